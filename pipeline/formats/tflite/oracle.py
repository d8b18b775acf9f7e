"""The same network built in TensorFlow and put through TFLiteConverter, in this process.

Heavy (0.9 to 1.8 GB): the product reaches it through `pipeline.formats.tflite.converter`, which
starts a process for it. Batch normalisation is folded already, so the converter has no more to do
here than the native writer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from models.graph import INPUT, Op
from models.lower import window_padding

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from models.model import Model

Images = npt.NDArray[np.float32]

_ACTIVATIONS = {
    "none": lambda x: x,
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    # This shape of the formula is what the converter recognises as HARD_SWISH.
    "hardswish": lambda x: x * tf.nn.relu6(x + 3.0) * (1.0 / 6.0),
    "silu": lambda x: x * tf.sigmoid(x),
    "sigmoid": tf.sigmoid,
    "hardsigmoid": lambda x: tf.nn.relu6(x + 3.0) * (1.0 / 6.0),
}


class Module(tf.Module):  # type: ignore[misc]
    """A graph with its weights as a TensorFlow function of (1, H, W, C) float32."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.graph = graph = model.graph
        self.layers = {name: _layer(graph[name], *pair) for name, pair in model.weights.items()}
        spec = tf.TensorSpec((1, *graph.input_shape), tf.float32, name=INPUT)
        self.function = tf.function(self.run, input_signature=[spec])

    def run(self, images: Any) -> Any:
        """Return the logits."""
        tensors = {INPUT: images}
        for op in self.graph.ops:
            tensors[op.name] = self.op(op, [tensors[name] for name in op.inputs])
        return tensors[self.graph.output.name]

    def op(self, op: Op, inputs: list[Any]) -> Any:
        """Apply one op."""
        x = inputs[0]
        if op.kind == "dense":
            weight, bias = self.layers[op.name]
            x = tf.nn.bias_add(tf.matmul(x, weight), bias)
        elif op.has_weights:
            weight, bias = self.layers[op.name]
            x, padding = _pad(op, x)
            strides = [1, op.stride, op.stride, 1]
            convolve = tf.nn.depthwise_conv2d if op.kind == "depthwise" else tf.nn.conv2d
            x = tf.nn.bias_add(convolve(x, weight, strides=strides, padding=padding), bias)
        elif op.kind == "add":
            x = inputs[0] + inputs[1]
        elif op.kind == "mul":
            x = inputs[0] * inputs[1]
        elif op.kind == "mean":
            x = tf.reduce_mean(x, [1, 2], keepdims=op.keepdims)
        elif op.kind == "maxpool":
            x = tf.nn.max_pool2d(x, op.kernel, op.stride, "SAME")
        return _ACTIVATIONS[op.act](x)


def convert(model: Model, images: Images | None = None) -> bytes:
    """Return the converter's float32 file, or static int8 if calibrated on `images` (N, C, H, W).

    Tracing is part of the work, as lowering and folding are not.
    """
    module = Module(model)
    function = module.function.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    return _run(converter, images)


def convert_saved_model(path: Path, images: Images | None = None) -> bytes:
    """Return the TFLite file of a SavedModel folder or a .keras / .h5 file."""
    if path.is_dir():
        converter = tf.lite.TFLiteConverter.from_saved_model(str(path))
    else:
        model = tf.keras.models.load_model(path, compile=False, safe_mode=True)
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
    return _run(converter, images)


def _run(converter: Any, images: Images | None) -> bytes:
    if images is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: _samples(images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
        # One scale for a dense layer: TFLite before 2.10 computes zeros from several.
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True  # noqa: SLF001
    content: bytes = converter.convert()
    return content


def _samples(images: Images) -> Iterator[list[Images]]:
    for image in images:
        yield [np.ascontiguousarray(image.transpose(1, 2, 0)[None])]


def _layer(op: Op, weight: Images, bias: Images) -> tuple[Any, Any]:
    """Bring weights from TFLite's layout into TensorFlow's."""
    weight = weight.T if op.kind == "dense" else weight.transpose(1, 2, 3, 0)
    return tf.constant(weight), tf.constant(bias)


def _pad(op: Op, x: Any) -> tuple[Any, str]:
    top, bottom, left, right = op.padding
    height, width, _ = op.in_shapes[0]
    same = (
        *window_padding(height, op.kernel, op.stride, "same")[1:],
        *window_padding(width, op.kernel, op.stride, "same")[1:],
    )
    if op.padding == same:
        return x, "SAME"
    if any(op.padding):
        x = tf.pad(x, [[0, 0], [top, bottom], [left, right], [0, 0]])
    return x, "VALID"
