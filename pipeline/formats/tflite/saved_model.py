"""A user's Keras file or SavedModel in TensorFlow: converted, and run beside the file it became.

Heavy, as `oracle`: the product reaches it through `pipeline.formats.tflite.converter`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from pipeline.formats.keras.loadable import loadable
from pipeline.formats.keras.signature import pick_signature
from pipeline.formats.tflite.oracle import Images, run_converter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_SEED = 0

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Source:
    """A model as its user made it.

    Attributes:
        converter: of TensorFlow Lite.
        inputs: name -> (shape with None where it is open, NumPy's type), as the file's signature
            will name them.
        call: computes the outputs, by name, of one sample of each input.
    """

    converter: Any
    inputs: Mapping[str, tuple[tuple[int | None, ...], np.dtype[Any]]]
    call: Callable[[Arrays], Arrays]


def load_source(path: Path) -> Source:
    """Load a SavedModel folder, or a .keras or .h5 file."""
    if path.is_dir():
        return _saved_model(path)
    with loadable(path) as file:
        model = tf.keras.models.load_model(file, compile=False, safe_mode=True)

    def call(sample: Arrays) -> Arrays:
        given = [tf.constant(sample[item.name]) for item in model.inputs]
        found = model(given[0] if len(given) == 1 else given, training=False)
        if not isinstance(found, dict):
            flat = tf.nest.flatten(found)
            found = {f"output_{place}": value for place, value in enumerate(flat)}
        return {name: np.asarray(value) for name, value in found.items()}

    inputs = {
        item.name: (tuple(item.shape), tf.as_dtype(item.dtype).as_numpy_dtype)
        for item in model.inputs
    }
    return Source(tf.lite.TFLiteConverter.from_keras_model(model), _typed(inputs), call)


def convert(source: Source, images: Images | None = None) -> bytes:
    """Return the TFLite file; int8 if calibrated on `images` (N, C, H, W)."""
    return run_converter(source.converter, images)


def draw_samples(source: Source, count: int) -> list[Arrays]:
    """Return random samples: normal noise, or zeros and ones where an input takes integers.

    Raises:
        ValueError: an input of which no sample can be drawn; the end of a sentence.
    """
    rng = np.random.default_rng(_SEED)
    return [
        {name: _draw(name, shape, dtype, rng) for name, (shape, dtype) in source.inputs.items()}
        for _ in range(count)
    ]


def image_samples(source: Source, images: Images) -> list[Arrays]:
    """Return images (N, C, H, W) as samples of the only input, NHWC.

    Raises:
        ValueError: there are several inputs; the end of a sentence.
    """
    if len(source.inputs) != 1:
        names = ", ".join(source.inputs)
        raise ValueError(f"it has the inputs {names}, and the images of a recipe are one")
    ((name, (_, dtype)),) = source.inputs.items()
    return [{name: image.transpose(1, 2, 0)[None].astype(dtype)} for image in images]


def compute(source: Source, samples: list[Arrays]) -> Arrays:
    """Return the source's outputs by name, (N, …) float32."""
    outputs = [source.call(sample) for sample in samples]
    return {
        name: np.stack([output[name].astype(np.float32) for output in outputs])
        for name in outputs[0]
    }


def _saved_model(path: Path) -> Source:
    loaded = tf.saved_model.load(str(path))
    key = pick_signature(loaded.signatures)
    taken = loaded.signatures[key].structured_input_signature[1]
    inputs = {name: (tuple(spec.shape), spec.dtype.as_numpy_dtype) for name, spec in taken.items()}

    def call(sample: Arrays) -> Arrays:
        given = {name: tf.constant(value) for name, value in sample.items()}
        # Not by the signature alone: the variables are gone when nobody holds what owns them.
        found = loaded.signatures[key](**given)
        return {name: np.asarray(value) for name, value in found.items()}

    converter = tf.lite.TFLiteConverter.from_saved_model(str(path), signature_keys=[key])
    return Source(converter, _typed(inputs), call)


def _typed(inputs: Mapping[str, Any]) -> dict[str, tuple[tuple[int | None, ...], np.dtype[Any]]]:
    return {name: (shape, np.dtype(dtype)) for name, (shape, dtype) in inputs.items()}


def _draw(
    name: str, shape: tuple[int | None, ...], dtype: np.dtype[Any], rng: np.random.Generator
) -> npt.NDArray[Any]:
    # The first dimension is the batch's; no other has a size that one could guess.
    sizes = [size or (1 if place == 0 else 0) for place, size in enumerate(shape)]
    if not all(sizes) or dtype.kind not in "fiub":
        shown = "x".join(str(size or "?") for size in sizes)
        raise ValueError(f"no random {dtype.name} of shape {shown} can be drawn for {name!r}")
    if dtype.kind == "f":
        return rng.standard_normal(sizes).astype(dtype)
    return rng.integers(0, 2, sizes).astype(dtype)
