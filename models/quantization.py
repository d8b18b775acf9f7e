"""Number formats of a quantised network, as plain values: no torch, no runtime.

The scheme is TFLite's full-integer one (Jacob et al. 2018, section 2): activations int8 with one
scale and zero point per tensor, real = scale * (code - zero_point); weights int8 in [-127, 127]
with one scale per output channel and zero point 0; biases int32 with scale input * weight. ONNX
files use the same parameters, with codes shifted by 128 where activations are uint8.

Convention for hard-sigmoid gates: both formats compute relu6(x + 3) in the convolution and scale
by 1/6 afterwards, so the parameters stored for that convolution's tensor are those of
relu6(x + 3), see `hardsigmoid_sources`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents.errors import ConfigError
from models.number_format import STATIC8, NumberFormat
from models.ops import KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.fold import Weights
    from models.graph import Graph, Op

CODE_MIN, CODE_MAX = -128, 127
WEIGHT_MAX = 127
BIAS_MAX = 2**30
"""Half of int32: the other half is left to the sum of products."""

_DEAD_SCALE = 1e-12
"""Some kernels fail on scales whose square float32 cannot hold."""

_FINEST_RESCALE = 2.0**-30
"""Kernels take input * weight / output scale from 2**-32 (XNNPACK) upwards."""

_COARSEST_RESCALE = 256.0
"""And below this."""

_LARGEST = float(np.finfo(np.float32).max)


class QuantizationError(ConfigError):
    """Quantisation parameters that do not fit the network; the sentence names the tensor."""


@dataclass(frozen=True, slots=True)
class QParams:
    """One tensor's number format: real = scale * (code - zero_point), codes in [-128, 127]."""

    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        """Round the scale to float32, as which files hold it."""
        object.__setattr__(self, "scale", float(np.float32(self.scale)))

    @classmethod
    def of_range(cls, low: float, high: float, *, dead_scale: float = 1.0) -> QParams:
        """Cover [low, high], widened to contain 0, with 256 codes; 0 itself is exact.

        An empty range (a tensor that was always 0, or as good as) gets `dead_scale`. Raises
        QuantizationError for a range that is not finite.
        """
        low, high = min(float(low), 0.0), max(float(high), 0.0)
        scale = (high - low) / (CODE_MAX - CODE_MIN)
        if not np.isfinite(scale):
            raise QuantizationError(f"range [{low}, {high}] is not finite")
        if scale < _DEAD_SCALE:
            return cls(dead_scale, 0)
        return cls(scale, int(np.clip(round(CODE_MIN - low / scale), CODE_MIN, CODE_MAX)))

    def quantize(self, values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int8]:
        """Return the nearest codes, saturated."""
        codes = np.rint(np.asarray(values, np.float32) / np.float32(self.scale)) + self.zero_point
        clipped: npt.NDArray[np.int8] = np.clip(codes, CODE_MIN, CODE_MAX).astype(np.int8)
        return clipped

    def dequantize(self, codes: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        """Return the real values of codes."""
        return (codes.astype(np.float32) - self.zero_point) * np.float32(self.scale)


SIGMOID = QParams(*KINDS["act"].fixed_scale["sigmoid"])
"""Output of a sigmoid, also of the one inside a SiLU."""

SIXTH = QParams.of_range(0.0, 1 / 6)
"""Of the constant 1/6 that scales a hard-sigmoid gate."""


@dataclass(frozen=True, slots=True)
class LayerCodes:
    """A layer's weights as codes: `weight` int8, `scales` float32, `bias` int32 (out,).

    `scales` has one value for each output channel, or a single one for the whole layer (dense).
    """

    weight: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]
    bias: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Quantization:
    """Number formats of a graph's activations and weights.

    Attributes:
        tensors: parameters of every activation and constant, by name (`Graph.tensors`).
        dense_per_output: whether dense layers have a scale per output, as convolutions do, or
            one for the layer, as TFLite files need (`pipeline.formats.tflite.write`).
        number_format: of the whole.
    """

    tensors: Mapping[str, QParams]
    dense_per_output: bool = True
    number_format: NumberFormat = STATIC8

    def __post_init__(self) -> None:
        """Freeze the mapping."""
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))

    def __getitem__(self, tensor: str) -> QParams:
        """Return the parameters of a tensor; QuantizationError names one that has none."""
        try:
            return self.tensors[tensor]
        except KeyError:
            raise QuantizationError(
                f"tensor {tensor!r} has no quantisation parameters; calibrate this same network"
            ) from None

    def layer(
        self, op: Op, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]
    ) -> LayerCodes:
        """Quantise an op's weights for the parameters of its input and output."""
        in_scale, out_scale = self[op.inputs[0]].scale, self[op.name].scale
        per_output = self.dense_per_output or not op.layer.one_scale
        return quantize_layer(
            op, weight, bias, in_scale=in_scale, out_scale=out_scale, per_output=per_output
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        tensors = {name: [q.scale, q.zero_point] for name, q in self.tensors.items()}
        return {
            "number_format": str(self.number_format),
            "tensors": tensors,
            "dense_per_output": self.dense_per_output,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Quantization:
        """Read what `to_json` wrote (also after a trip through JSON text)."""
        try:
            tensors = {n: _stored(scale, zero) for n, (scale, zero) in data["tensors"].items()}
            form = NumberFormat.parse(data["number_format"])
            return cls(tensors, bool(data["dense_per_output"]), form)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise QuantizationError(f"not quantisation parameters: {error}") from error


def _stored(scale: Any, zero_point: Any) -> QParams:
    if not 0 < scale < _LARGEST or zero_point not in range(CODE_MIN, CODE_MAX + 1):
        raise ValueError(f"scale {scale!r} and zero point {zero_point!r} give no numbers")
    return QParams(float(scale), int(zero_point))


def quantize_layer(
    op: Op,
    weight: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    *,
    in_scale: float,
    out_scale: float,
    per_output: bool = True,
) -> LayerCodes:
    """Quantise one layer, symmetric min-max, per output channel or as a whole.

    A scale is raised above |w|max / 127 where a bias would not fit int32 or where the kernel
    could not express the rescaling (channels of zeros, which pruning leaves behind).
    `weight` has `Op.weight_shape`.
    """
    channels = op.layer.channel_axis
    axes = tuple(axis for axis in range(weight.ndim) if axis != channels)
    largest = np.maximum(weight.max(axis=axes), -weight.min(axis=axes)).astype(np.float64)
    scales = np.maximum(largest / WEIGHT_MAX, np.abs(bias) / (in_scale * BIAS_MAX))
    scales = np.maximum(scales, _FINEST_RESCALE * out_scale / in_scale).astype(np.float32)
    if not np.isfinite(scales).all():
        raise QuantizationError(f"op {op.name!r} has weights or biases that are not finite")
    if not per_output:
        scales = scales.max(keepdims=True)
    if (rescale := float(scales.max()) * in_scale / out_scale) >= _COARSEST_RESCALE:
        raise QuantizationError(
            f"op {op.name!r}: input * weight / output scale is {rescale:.3g}, and kernels take "
            f"less than {_COARSEST_RESCALE:g}; calibrate with these same weights"
        )
    inverse = np.float32(1) / scales
    codes = weight * inverse.reshape([-1 if axis == channels else 1 for axis in range(weight.ndim)])
    np.rint(codes, out=codes)
    bias_codes = np.rint(bias.astype(np.float64) / (scales.astype(np.float64) * in_scale))
    return LayerCodes(codes.astype(np.int8), scales, bias_codes.astype(np.int32))


def hardsigmoid_sources(graph: Graph) -> frozenset[str]:
    """Return the ops whose output goes through a hard-sigmoid (see the module's convention)."""
    return frozenset(op.inputs[0] for op in graph.ops if op.act == "hardsigmoid")


def from_ranges(
    graph: Graph, ranges: Mapping[str, tuple[float, float]], weights: Weights | None = None
) -> Quantization:
    """Turn observed (low, high) per tensor into parameters.

    Applies what kernels fix (`models.ops`): max pooling shares its input's parameters, a sigmoid
    has its own. The input of a hard-sigmoid is stored as relu6(x + 3). With `weights`, outputs
    that are nearly dead get a scale that kernels accept (`_finest_scale`).

    Raises:
        QuantizationError: a range that is not finite.
    """
    gates = hardsigmoid_sources(graph)
    given = (tensor.name for tensor in (*graph.inputs, *graph.constants))
    found = {name: _params(name, ranges[name], 1.0) for name in given}
    for op in graph.ops:
        low, high = ranges[op.name]
        if op.name in gates:
            low, high = (min(max(value + 3.0, 0.0), 6.0) for value in (low, high))
        if op.rules.keeps_scale:
            found[op.name] = found[op.inputs[0]]
        elif op.act in op.rules.fixed_scale:
            found[op.name] = QParams(*op.rules.fixed_scale[op.act])
        else:
            in_scale = max(found[name].scale for name in op.inputs)
            params = _params(op.name, (low, high), in_scale)
            finest = _finest_scale(op, in_scale, weights)
            found[op.name] = params if params.scale >= finest else replace(params, scale=finest)
    return Quantization(found)


def _params(name: str, bounds: tuple[float, float], dead_scale: float) -> QParams:
    try:
        return QParams.of_range(*bounds, dead_scale=dead_scale)
    except QuantizationError as error:
        raise QuantizationError(f"tensor {name!r}: {error}") from error


def _finest_scale(op: Op, in_scale: float, weights: Weights | None) -> float:
    """Return the smallest output scale that every kernel takes, with a factor 2 to spare.

    LiteRT refuses a layer whose input * weight / output scale reaches 256.
    """
    if op.act in op.rules.finest_scale:
        return in_scale * op.rules.finest_scale[op.act]
    if weights is None or not op.has_weights:
        return 0.0
    weight, bias = weights[op.name]
    largest = max(float(weight.max()), -float(weight.min())) / WEIGHT_MAX
    for_bias = (float(np.abs(bias).max()) + 3.0) / (in_scale * BIAS_MAX)
    return in_scale * max(largest, for_bias) / (_COARSEST_RESCALE / 2)


_ASSUMED = {
    "none": (-6.0, 6.0),
    "relu": (0.0, 6.0),
    "relu6": (0.0, 6.0),
    "hardswish": (-0.375, 6.0),
    "silu": (-0.28, 6.0),
    "sigmoid": (0.0, 1.0),
    "hardsigmoid": (0.0, 1.0),
}


def random_quantization(graph: Graph) -> Quantization:
    """Return plausible parameters without data: the counterpart of `models.fold.random_weights`.

    Latency does not depend on the values of scales; accuracy does: calibrate for that.
    """
    ranges = {tensor.name: (-2.0, 2.0) for tensor in (*graph.inputs, *graph.constants)}
    for op in graph.ops:
        ranges[op.name] = ranges[op.inputs[0]] if op.rules.keeps_range else _ASSUMED[op.act]
    return from_ranges(graph, ranges)
