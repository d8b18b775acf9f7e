"""Post-training quantisation to static int8: activation ranges from calibration images.

Ranges are the minimum and maximum over all images, never a moving average of batch extremes,
which costs 15 dB (docs/decisions). Fused activations are inside the ranges because the graph's
tensors are the activated ones; batch normalisation is folded, and activations are fused, before.

Tried on trained MobileNetV2 and V3-Large, and so no defaults: clipped ranges (percentiles, least
squares) lose 1 to 13 dB of SQNR; sequential bias correction gave +0.3 and -0.3 dB. They are
options for networks that need them, as are fewer bits and learnt rounding (docs/quantizing.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from device_agents.errors import ConfigError
from device_agents.plain_values import bounds
from models.codes import QuantizationError
from models.model import Model
from models.number_format import STATIC8, NumberFormat
from models.scales import from_ranges
from models.side_by_side import map_side_by_side
from models.simplify import prepare_for_codes
from pipeline.compress.layer_codes import FULL_BITS, Rounding, WeightRules
from pipeline.compress.op_names import find_ops
from pipeline.compress.ranges import Histograms, RangeRule, Ranges

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy.typing as npt

    from models.execute import Observe
    from models.graph import Graph
    from pipeline.compress.api import Needs, Use

_PERCENTILE, _ITERATIONS = 99.99, 1000

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
        ranges: of activations: ``minmax``, all that was seen; ``percentile``; ``mse``, what leaves
            the least squared error; ``kl``, the least divergence, as TensorRT's calibration.
        percentile: of values, in percent, that ``ranges=percentile`` keeps.
        weight_bits: of a weight's code, which stands in int8 all the same: smaller once packed.
        per_tensor: one scale for each layer's weight, not for each output channel.
        rounding: of weights: ``nearest``, or ``adaround``, learnt on what each layer reads.
        iterations: of ``adaround``, for each layer.
        bias_correction: biases take up the mean error of each output channel, layer after layer.
    """

    images: int = 256
    scheme: Literal["static8", "static16x8"] = "static8"
    float_layers: tuple[str, ...] = ()
    ranges: RangeRule = "minmax"
    percentile: float = field(default=_PERCENTILE, metadata=bounds(above=50, high=100))
    weight_bits: int = field(default=FULL_BITS, metadata=bounds(low=2, high=FULL_BITS))
    per_tensor: bool = False
    rounding: Rounding = "nearest"
    iterations: int = field(default=_ITERATIONS, metadata=bounds(low=1, high=100_000))
    bias_correction: bool = False

    def __post_init__(self) -> None:
        """Refuse no images, int16's ranges cut by int8's errors, options of what is not asked."""
        if self.images < 1:
            raise ConfigError(f"ptq, images: {self.images} is not above 0")
        if self.scheme == "static16x8" and self.ranges in ("mse", "kl"):
            raise ConfigError(
                f"ptq, ranges: {self.ranges!r} is for int8 activations, and static16x8 is asked; "
                "choose minmax or percentile"
            )
        if self.percentile != _PERCENTILE and self.ranges != "percentile":
            raise ConfigError(
                f"ptq, percentile: {self.percentile:g} is for ranges=percentile, and ranges is "
                f"{self.ranges}; say so, or leave percentile out"
            )
        if self.iterations != _ITERATIONS and self.rounding != "adaround":
            raise ConfigError(
                f"ptq, iterations: {self.iterations} is for rounding=adaround, and rounding is "
                f"{self.rounding}; say so, or leave iterations out"
            )

    @property
    def weight_rules(self) -> WeightRules:
        """How weights become codes."""
        return WeightRules(
            bits=self.weight_bits,
            per_tensor=self.per_tensor,
            rounding=self.rounding,
            iterations=self.iterations,
            bias_correction=self.bias_correction,
        )


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
        options = self.options
        inputs = take_samples(self.name, what, needs, options.images)
        model = calibrate_all(
            what,
            inputs,
            number_format=NumberFormat.parse(options.scheme),
            float_layers=options.float_layers,
            ranges=options.ranges,
            percentile=options.percentile,
        )
        return _with_codes(model, inputs, options.weight_rules)


def _with_codes(model: Model, inputs: Mapping[str, npt.NDArray[Any]], rules: WeightRules) -> Model:
    """Return a calibrated model that holds the codes of its weights where writers make others."""
    if rules.are_the_writers or model.quantization is None:
        return model
    from pipeline.compress.by_layer import settle_layers

    codes, count = settle_layers(model, inputs, rules)
    seen = f", on {count} samples" if count else ""
    told = f"{model.history[-1]}; {', '.join(rules.words)}{seen}"
    quantization = replace(model.quantization, weights=codes)
    return replace(model, quantization=quantization, history=(*model.history[:-1], told))


def take_samples(who: str, model: Model, needs: Needs, most: int) -> Mapping[str, npt.NDArray[Any]]:
    """Return at most so many samples of a model's inputs, evenly spread, for the pass `who`.

    Raises:
        ConfigError: there are none.
        QuantizationError: images of another shape.
    """
    inputs = needs.inputs
    if inputs is None:
        inputs = _of_images(model, needs.require_images(who))
    count = max(map(len, inputs.values()), default=0)
    if count <= most:
        return inputs
    rows = spread_rows(count, most)
    return {name: values[rows] for name, values in inputs.items()}


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
    ranges: RangeRule = "minmax",
    percentile: float = 100.0,
) -> Model:
    """Return a model of any inputs and outputs in a static format, as `calibrate` does.

    Args:
        model: its float weights are kept, with normalisation folded in; writers quantise them.
        inputs: by their names in the graph, of its types, shaped as the graph says but for N
            samples in place of the batch dimension of 1.
        number_format: static8 or static16x8.
        float_layers: names or patterns of ops that stay real, beside those that must.
        ranges: how much of what was seen has codes of its own (`PTQOptions.ranges`).
        percentile: of ``ranges="percentile"``.

    Raises:
        ConfigError: no op has a name of `float_layers`.
        QuantizationError: inputs of other names, shapes or numbers of samples, or a range that is
            not finite.
    """
    model = prepare_for_codes(model)
    float_ops = find_ops(model.graph, float_layers)
    count = count_samples(model.graph, inputs)
    from models.execute import execute_all

    largest = max(math.prod(op.out_shape) for op in model.graph.ops)
    step = min(max(_BATCH_VALUES // largest, 1), _BATCH)
    seen = Ranges(model.graph)

    def show(observe: Observe) -> None:
        batches = (
            {name: values[start : start + step] for name, values in inputs.items()}
            for start in range(0, count, step)
        )
        # Outputs of many batches are not kept.
        for _ in map_side_by_side(lambda batch: bool(execute_all(model, batch, observe)), batches):
            pass

    show(seen.observe)
    found = dict(seen.found)
    if ranges != "minmax":
        histograms = Histograms(model.graph, seen.found)
        show(histograms.observe)
        found.update(histograms.ranges(ranges, percentile))
    unit = "images" if is_of_images(model.graph) else "samples"
    left = f", {len(float_ops)} ops asked to stay real" if float_ops else ""
    by = f"{percentile:g} % of values" if ranges == "percentile" else ranges
    cut = f", ranges by {by}" if ranges != "minmax" else ""
    return model.with_quantization(
        from_ranges(
            model.graph,
            found,
            model.weights,
            number_format=number_format,
            float_ops=float_ops | seen.beyond(),
        ),
        done=f"calibrated {number_format} on {count} {unit}{left}{cut}",
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


def count_samples(graph: Graph, inputs: Mapping[str, npt.NDArray[Any]]) -> int:
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
