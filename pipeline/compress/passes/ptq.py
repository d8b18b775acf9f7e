"""Post-training quantisation to static int8: activation ranges from calibration images.

Ranges are the minimum and maximum over all images, never a moving average of batch extremes,
which costs 15 dB (docs/decisions). Fused activations are inside the ranges because the graph's
tensors are the activated ones; batch normalisation is folded, and activations are fused, before.

Tried on trained MobileNetV2 and V3-Large and left out: clipped ranges (percentiles, least
squares) lose 1 to 13 dB of SQNR; sequential bias correction gave +0.3 and -0.3 dB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from device_agents.errors import ConfigError
from models.codes import QuantizationError
from models.model import Model
from models.number_format import STATIC8, NumberFormat
from models.scales import from_ranges
from models.side_by_side import map_side_by_side
from models.simplify import prepare_for_codes
from pipeline.compress.op_names import find_ops

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy.typing as npt

    from models.graph import Graph
    from pipeline.compress.api import Needs, Use

_BATCH = 32
_BATCH_VALUES = 2**21
"""Values of the largest tensor that are computed at once, at most: what caches hold is quicker."""


@dataclass(frozen=True, slots=True)
class PTQOptions:
    """Options of `PTQ`.

    Attributes:
        images: how many images (or other samples) to calibrate on, evenly spread over those there
            are; at least 1.
        scheme: static8, or static16x8 with int16 activations.
        float_layers: ops to stay in float32: names, or patterns such as ``blocks.1.*``.
    """

    images: int = 256
    scheme: Literal["static8", "static16x8"] = "static8"
    float_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse to calibrate on nothing."""
        if self.images < 1:
            raise ConfigError(f"ptq, images: {self.images} is not above 0")


class PTQ:
    """Brings a model into static int8."""

    name = "ptq"
    version = 1
    takes = Model
    uses: frozenset[Use] = frozenset({"calibration"})
    quantizes = True
    Options = PTQOptions

    def __init__(self, options: PTQOptions = PTQOptions()) -> None:
        self.options = options

    def apply(self, what: Model, needs: Needs) -> Model:
        """Return the model with the scales that `calibrate` finds.

        Raises:
            ConfigError: there are no images, or no op has a name of `float_layers`.
            QuantizationError: images of another shape, or a range that is not finite.
        """
        inputs = needs.inputs
        if inputs is None:
            inputs = _of_images(what, needs.require_images(self.name))
        count = max(map(len, inputs.values()), default=0)
        if count > self.options.images:
            rows = spread_rows(count, self.options.images)
            inputs = {name: values[rows] for name, values in inputs.items()}
        return calibrate_all(
            what,
            inputs,
            number_format=NumberFormat.parse(self.options.scheme),
            float_layers=self.options.float_layers,
        )


def spread_rows(have: int, count: int) -> npt.NDArray[np.int64]:
    """Return `count` places (all, if there are fewer), evenly spread over those of `have` samples.

    The first few of a data set sorted by class would all be of one class.
    """
    return np.linspace(0, have - 1, min(count, have)).astype(np.int64)


def spread(images: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
    """Return `count` images (all, if there are fewer) evenly spread over the array."""
    chosen: npt.NDArray[np.float32] = images[spread_rows(len(images), count)]
    return chosen


def calibrate(model: Model, images: npt.NDArray[np.float32]) -> Model:
    """Return the model in static int8, by every tensor's range over all images.

    Args:
        model: its float weights are kept; writers quantise them.
        images: (N, C, H, W) float32, prepared like training images; 100 or more are usual.

    Raises:
        QuantizationError: no images, images of another shape, or a range that is not finite.
    """
    return calibrate_all(model, _of_images(model, images))


def calibrate_all(
    model: Model,
    inputs: Mapping[str, npt.NDArray[Any]],
    *,
    number_format: NumberFormat = STATIC8,
    float_layers: Collection[str] = (),
) -> Model:
    """Return a model of any inputs and outputs in a static format, as `calibrate` does.

    Args:
        model: its float weights are kept, with normalisation folded in; writers quantise them.
        inputs: by their names in the graph, of its types, shaped as the graph says but for N
            samples in place of the batch dimension of 1.
        number_format: static8 or static16x8.
        float_layers: names or patterns of ops that stay real, beside those that must.

    Raises:
        ConfigError: no op has a name of `float_layers`.
        QuantizationError: inputs of other names, shapes or numbers of samples, or a range that is
            not finite.
    """
    model = prepare_for_codes(model)
    float_ops = find_ops(model.graph, float_layers)
    count = _count_samples(model.graph, inputs)
    from models.execute import execute_all

    largest = max(math.prod(op.out_shape) for op in model.graph.ops)
    step = min(max(_BATCH_VALUES // largest, 1), _BATCH)
    ranges = _Ranges(model.graph)
    batches = (
        {name: values[start : start + step] for name, values in inputs.items()}
        for start in range(0, count, step)
    )

    def show(batch: dict[str, npt.NDArray[Any]]) -> None:
        execute_all(model, batch, ranges.observe)  # outputs of many batches are not kept

    for _ in map_side_by_side(show, batches):
        pass
    unit = "images" if is_of_images(model.graph) else "samples"
    left = f", {len(float_ops)} ops asked to stay real" if float_ops else ""
    return model.with_quantization(
        from_ranges(
            model.graph,
            ranges.found,
            model.weights,
            number_format=number_format,
            float_ops=float_ops | ranges.beyond(),
        ),
        done=f"calibrated {number_format} on {count} {unit}{left}",
    )


def is_of_images(graph: Graph) -> bool:
    """Tell whether the only input is a map."""
    return len(graph.inputs) == 1 and len(graph.inputs[0].shape) == 4


def _of_images(model: Model, images: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
    """Return images (N, C, H, W) as the model's only input. Raises QuantizationError."""
    height, width, channels = model.graph.image_shape
    if images.ndim != 4 or not len(images) or images.shape[1:] != (channels, height, width):
        raise QuantizationError(
            f"calibration images have shape {images.shape}; the network needs "
            f"(N, {channels}, {height}, {width}) with N at least 1"
        )
    return {model.graph.inputs[0].name: images.transpose(0, 2, 3, 1)}


def _count_samples(graph: Graph, inputs: Mapping[str, npt.NDArray[Any]]) -> int:
    """Return how many samples there are. Raises QuantizationError."""
    counts = {len(values) for values in inputs.values()}
    given = {name: values.shape[1:] for name, values in inputs.items()}
    needed = {tensor.name: tensor.shape[1:] for tensor in graph.inputs}
    if given != needed or len(counts) != 1 or counts == {0}:
        shapes = {name: values.shape for name, values in inputs.items()}
        raise QuantizationError(
            f"calibration inputs have the shapes {shapes}; the network needs "
            f"{ {name: ('N', *shape) for name, shape in needed.items()} } with one N of at least 1"
        )
    return counts.pop()


_UNSEEN = 16.0
"""A score that is so much below the largest has a share of exp(-16), which is no code."""

_BEYOND = 1e8
"""Numbers this large come from masks, and leave no codes for what else is in a tensor."""


class _Ranges:
    """Observes the least and the largest value of every tensor of real numbers.

    Of the scores of a softmax, only as far down as has a share of it: where masks hide scores by
    adding a large negative number, the others would have one code.
    """

    def __init__(self, graph: Graph) -> None:
        self.found: dict[str, tuple[float, float]] = {}
        self._alone = Lock()
        self._graph = graph
        self._scores = _scores_of(graph)
        self._constants = {tensor.name for tensor in graph.constants}

    def observe(self, name: str, tensor: Any) -> None:
        if not tensor.is_floating_point() or not tensor.numel():
            return
        low, high = (float(value) for value in tensor.aminmax())
        finite = math.isfinite(low) and math.isfinite(high)
        if not finite and (name not in self._constants or math.isnan(low + high)):
            raise QuantizationError(
                f"tensor {name!r} is not finite on the calibration images: check images and weights"
            )
        if name in self._scores:
            largest = tensor.amax(self._scores[name])
            if (seen := largest[largest > -_BEYOND]).numel():
                low = max(low, float(seen.min()) - _UNSEEN)
        with self._alone:  # batches are run side by side
            if name in self.found:
                low, high = min(low, self.found[name][0]), max(high, self.found[name][1])
            self.found[name] = (low, high)

    def beyond(self) -> frozenset[str]:
        """Return the ops that read or give what no code can hold beside other values."""
        far = {name for name, limits in self.found.items() if max(map(abs, limits)) > _BEYOND}
        return frozenset(
            op.name for op in self._graph.ops if not far.isdisjoint((*op.inputs, op.name))
        )


def _scores_of(graph: Graph) -> dict[str, int]:
    """Return what softmaxes alone read -> the axis, of torch's tensor, that they are over."""
    found: dict[str, int] = {}
    others = set(graph.outputs)
    for op in graph.ops:
        if op.kind != "softmax":
            others.update(op.inputs)
            continue
        axis = op.attributes.axis
        # Maps are observed with their channels first.
        place = (0, 2, 3, 1)[axis] if len(op.in_shapes[0]) == 4 else axis
        if found.setdefault(op.inputs[0], place) != place:
            others.add(op.inputs[0])
    return {name: place for name, place in found.items() if name not in others}
