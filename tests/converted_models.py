"""Small Keras networks put through TFLiteConverter in every number format; run as a program.

`python -m tests.converted_models FOLDER` writes NAME.FORM.tflite for each network and form: float,
half, dynamic, int8, int16. Forms that TensorFlow refuses are left out and said. In a process of its
own: TensorFlow takes ten seconds and a gigabyte.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.converted_names import FORMS, NETWORKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def model(shape: tuple[int, ...], body: Callable[[Any], Any], dtype: str = "float32") -> Any:
    """Return the network of a function of one input, whose batch is open."""
    given = keras.Input(shape, dtype=dtype)
    return keras.Model(given, body(given))


def attention(x: Any) -> Any:
    return layers.LayerNormalization()(x + layers.MultiHeadAttention(num_heads=2, key_dim=3)(x, x))


def unet(x: Any) -> Any:
    first = layers.Conv2D(6, 3, padding="same", activation="relu")(x)
    below = layers.MaxPooling2D()(first)
    below = layers.Conv2D(8, 3, padding="same", activation="relu")(below)
    above = layers.Conv2DTranspose(6, 3, strides=2, padding="same")(below)
    return layers.Conv2D(3, 1)(layers.Concatenate()([first, above]))


def mobile(x: Any) -> Any:
    x = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = layers.Conv2D(8, 3, strides=2, use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.Activation("hard_swish")(layers.BatchNormalization()(x))
    squeezed = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(8, 1, activation="hard_sigmoid")(squeezed)
    return layers.Dense(5, activation="softmax")(layers.Flatten()(x * gate))


def sequence(x: Any) -> Any:
    x = layers.Conv1D(8, 3, padding="causal", dilation_rate=2, activation="relu")(x)
    x = layers.SeparableConv1D(6, 3, strides=2, padding="same")(x)
    return layers.Dense(4)(layers.GlobalMaxPooling1D()(x))


def activations(x: Any) -> Any:
    every = [layers.Activation(name)(x) for name in ("elu", "tanh", "sigmoid", "swish")]
    every += [layers.LeakyReLU(0.2)(x), layers.PReLU(shared_axes=[1])(x)]
    return layers.Concatenate()(every)


def gelu(x: Any) -> Any:
    return layers.Activation("gelu")(layers.Dense(6)(x))


def arithmetic(x: Any) -> Any:
    top, bottom = x[:, :3], x[:, ::2]
    both = ops.maximum(top, bottom) - ops.mean(x, axis=2, keepdims=True)[:, 1:4]
    return ops.transpose(ops.square(both) / (ops.abs(top) + 1.0), (0, 3, 1, 2))


def chosen(x: Any) -> Any:
    return ops.where(x > 0.5, ops.minimum(x, 1.0), ops.exp(x) * 0.5)


def resized(x: Any) -> Any:
    near = layers.UpSampling2D((2, 3))(x)
    smooth = layers.UpSampling2D((2, 3), interpolation="bilinear")(x)
    return layers.Concatenate()([near, smooth])


def dilated(x: Any) -> Any:
    x = layers.Conv2D(5, 3, dilation_rate=(2, 2), padding="same", activation="relu")(x)
    return layers.DepthwiseConv2D((3, 2), dilation_rate=(2, 2))(x)


def grouped(x: Any) -> Any:
    return layers.AveragePooling2D((3, 2), padding="same")(layers.Conv2D(6, 3, groups=3)(x))


def split(x: Any) -> Any:
    parts = ops.split(x, 3, axis=-1)
    stacked = ops.stack([parts[2], parts[0]], axis=2)
    return ops.reshape(stacked, (-1, 7, 2 * 5 * 2))


def embedded(x: Any) -> Any:
    return layers.Dense(3)(layers.GlobalAveragePooling1D()(layers.Embedding(20, 6)(x)))


def normalised(x: Any) -> Any:
    return layers.UnitNormalization()(layers.LayerNormalization()(x))


def wide(x: Any) -> Any:
    """Layers large enough that the converter makes their weights int8."""
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(x)
    x = layers.DepthwiseConv2D((3, 2))(x)
    return layers.Dense(70)(layers.Flatten()(layers.AveragePooling2D((3, 4))(x)))


MAPS = (unet, mobile, activations, resized, dilated, grouped, split, wide)
SHAPES = {"unet": (12, 20, 3), "split": (7, 5, 6), "grouped": (9, 13, 6), "wide": (9, 13, 16)}
OTHERS = {
    sequence: ((23, 5), "float32"),
    attention: ((7, 6), "float32"),
    gelu: ((7, 6), "float32"),
    arithmetic: ((5, 6, 3), "float32"),
    chosen: ((5, 7), "float32"),
    normalised: ((5, 7), "float32"),
    embedded: ((9,), "int32"),
}


def networks() -> dict[str, Any]:
    """Return the networks by name. Sides differ throughout."""
    maps = {body.__name__: model(SHAPES.get(body.__name__, (9, 13, 4)), body) for body in MAPS}
    others = {body.__name__: model(shape, body, kind) for body, (shape, kind) in OTHERS.items()}
    return {name: (maps | others)[name] for name in NETWORKS}


def draw(shape: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Return a sample of an input."""
    if np.dtype(dtype).kind == "i":
        return rng.integers(0, 20, shape).astype(dtype)
    return rng.normal(0, 1.5, shape).astype(dtype)


def convert(network: Any, form: str) -> bytes:
    """Return the file of a network in a form."""
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    if form != "float":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if form == "half":
        converter.target_spec.supported_types = [tf.float16]
    if form in ("int8", "int16"):
        rng = np.random.default_rng(0)

        def samples() -> Iterator[list[np.ndarray[Any, Any]]]:
            for _ in range(20):
                given = network.inputs[0]
                yield [draw((1, *given.shape[1:]), given.dtype, rng)]

        converter.representative_dataset = samples
        sets = tf.lite.OpsSet
        wide = "EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8"
        name = "TFLITE_BUILTINS_INT8" if form == "int8" else wide
        converter.target_spec.supported_ops = [getattr(sets, name), sets.TFLITE_BUILTINS]
        if form == "int8" and network.inputs[0].dtype == "float32":
            converter.inference_input_type = converter.inference_output_type = tf.int8
    content: bytes = converter.convert()
    return content


def main(folder: Path) -> None:
    """Write all files."""
    keras.utils.set_random_seed(5)
    for name, network in networks().items():
        for variable in network.variables:
            if variable.path.endswith(("bias", "beta", "mean")):
                variable.assign(np.random.default_rng(1).normal(0, 0.3, variable.shape))
        for form in FORMS:
            try:
                (folder / f"{name}.{form}.tflite").write_bytes(convert(network, form))
            except Exception as error:  # noqa: BLE001 - what TensorFlow cannot is no concern here
                print(f"{name} {form}: {str(error)[:200]!r}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
