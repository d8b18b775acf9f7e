"""Post-training quantisation to static int8: activation ranges from calibration images.

Ranges are the minimum and maximum over all images, never a moving average of batch extremes,
which costs 15 dB (docs/decisions). Fused activations are inside the ranges because the graph's
tensors are the activated ones.

Tried on trained MobileNetV2 and V3-Large and left out: clipped ranges (percentiles, least
squares) lose 1 to 13 dB of SQNR; sequential bias correction gave +0.3 and -0.3 dB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.errors import ConfigError
from models.codes import QuantizationError
from models.model import Model
from models.number_format import STATIC8
from models.scales import from_ranges

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from pipeline.compress.api import Needs

_BATCH = 32


@dataclass(frozen=True, slots=True)
class PTQOptions:
    """Options of `PTQ`.

    Attributes:
        images: how many images to calibrate on, evenly spread over those there are; at least 1.
    """

    images: int = 256

    def __post_init__(self) -> None:
        """Refuse to calibrate on nothing."""
        if self.images < 1:
            raise ConfigError(f"ptq, images: {self.images} is not above 0")


class PTQ:
    """Brings a model into static int8."""

    name = "ptq"
    version = 1
    takes = Model
    Options = PTQOptions

    def __init__(self, options: PTQOptions = PTQOptions()) -> None:
        self.options = options

    def apply(self, what: Model, needs: Needs) -> Model:
        """Return the model with the scales that `calibrate` finds.

        Raises:
            ConfigError: there are no images.
            QuantizationError: images of another shape, or a range that is not finite.
        """
        images = needs.require_images(self.name)
        return calibrate(what, spread(images, self.options.images))


def spread(images: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
    """Return `count` images (all, if there are fewer) evenly spread over the array.

    The first few of a data set sorted by class would all be of one class.
    """
    rows = np.linspace(0, len(images) - 1, min(count, len(images)))
    chosen: npt.NDArray[np.float32] = images[rows.astype(int)]
    return chosen


def calibrate(model: Model, images: npt.NDArray[np.float32]) -> Model:
    """Return the model in static int8, by every tensor's range over all images.

    Args:
        model: its float weights are kept; writers quantise them.
        images: (N, C, H, W) float32, prepared like training images; 100 or more are usual.

    Raises:
        QuantizationError: no images, images of another shape, or a range that is not finite.
    """
    height, width, channels = model.graph.image_shape
    if images.ndim != 4 or not len(images) or images.shape[1:] != (channels, height, width):
        raise QuantizationError(
            f"calibration images have shape {images.shape}; the network needs "
            f"(N, {channels}, {height}, {width}) with N at least 1"
        )
    from models.execute import execute

    ranges = _Ranges()
    for start in range(0, len(images), _BATCH):
        execute(model, images[start : start + _BATCH], ranges.observe)
    return model.with_quantization(
        from_ranges(model.graph, ranges.found, model.weights),
        done=f"calibrated {STATIC8} on {len(images)} images",
    )


def calibrate_all(model: Model, inputs: Mapping[str, npt.NDArray[np.float32]]) -> Model:
    """Return a model of any inputs and outputs in static int8, as `calibrate` does one of images.

    Args:
        model: its float weights are kept; writers quantise them.
        inputs: by their names in the graph, float32, shaped as the graph says but for N samples in
            place of the batch dimension of 1.

    Raises:
        QuantizationError: inputs of other names, shapes or numbers of samples, or a range that is
            not finite.
    """
    counts = {len(values) for values in inputs.values()}
    given = {name: values.shape[1:] for name, values in inputs.items()}
    needed = {tensor.name: tensor.shape[1:] for tensor in model.graph.inputs}
    if given != needed or len(counts) != 1 or counts == {0}:
        shapes = {name: values.shape for name, values in inputs.items()}
        raise QuantizationError(
            f"calibration inputs have the shapes {shapes}; the network needs "
            f"{ {name: ('N', *shape) for name, shape in needed.items()} } with one N of at least 1"
        )
    from models.execute import execute_all

    ranges, count = _Ranges(), counts.pop()
    for start in range(0, count, _BATCH):
        batch = {name: values[start : start + _BATCH] for name, values in inputs.items()}
        execute_all(model, batch, ranges.observe)
    return model.with_quantization(
        from_ranges(model.graph, ranges.found, model.weights),
        done=f"calibrated {STATIC8} on {count} samples",
    )


class _Ranges:
    """Observes the least and the largest value of every tensor."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[float, float]] = {}

    def observe(self, name: str, tensor: Any) -> None:
        low, high = (float(value) for value in tensor.aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise QuantizationError(
                f"tensor {name!r} is not finite on the calibration images: check images and weights"
            )
        if name in self.found:
            low, high = min(low, self.found[name][0]), max(high, self.found[name][1])
        self.found[name] = (low, high)
