"""What the codes of a quantised tensor mean, and how real numbers become codes.

The scheme is TFLite's full-integer one (Jacob et al. 2018, section 2): activations int8 with one
scale and zero point per tensor, real = scale * (code - zero_point); weights int8 in [-127, 127]
with one scale per output channel and zero point 0; biases int32 with scale input * weight. ONNX
files use the same parameters, with codes shifted by 128 where activations are uint8. Where
activations are int16 their zero point is 0, and biases are int64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents.errors import ConfigError
from models.ops import KINDS

if TYPE_CHECKING:
    from models.graph import Op

CODE_MIN, CODE_MAX = -128, 127
WEIGHT_MAX = 127
BIAS_MAX = 2**30
"""Half of int32: the other half is left to the sum of products."""

WIDE_BIAS_MAX = 2**46
"""The same beside int16 activations: kernels rescale sums of 48 bits."""

FINEST_RESCALE = 2.0**-30
"""Kernels take input * weight / output scale from 2**-32 (XNNPACK) upwards."""

COARSEST_RESCALE = 256.0
"""And below this."""

_LIMITS = {"int8": (CODE_MIN, CODE_MAX), "int16": (-(2**15), 2**15 - 1)}

_DEAD_SCALE = 1e-12
"""Some kernels fail on scales whose square float32 cannot hold."""

_LARGEST = float(np.finfo(np.float32).max)


class QuantizationError(ConfigError):
    """Quantisation parameters that do not fit the network; the sentence names the tensor."""


@dataclass(frozen=True, slots=True)
class QParams:
    """One tensor's number format: real = scale * (code - zero_point).

    Attributes:
        scale: of one code, as a real number.
        zero_point: the code of 0; 0 itself where codes are int16.
        dtype: of the codes, int8 in [-128, 127] or int16 in [-32768, 32767].
    """

    scale: float
    zero_point: int
    dtype: str = "int8"

    def __post_init__(self) -> None:
        """Round the scale to float32, as which files hold it."""
        object.__setattr__(self, "scale", float(np.float32(self.scale)))

    @classmethod
    def of_range(
        cls, low: float, high: float, *, dead_scale: float = 1.0, dtype: str = "int8"
    ) -> QParams:
        """Cover [low, high], widened to contain 0, with all codes; 0 itself is exact.

        An empty range (a tensor that was always 0, or as good as) gets `dead_scale`. Raises
        QuantizationError for a range that is not finite.
        """
        low, high = min(float(low), 0.0), max(float(high), 0.0)
        least, most = _LIMITS[dtype]
        symmetric = dtype == "int16"
        scale = max(-low, high) / most if symmetric else (high - low) / (most - least)
        if not np.isfinite(scale):
            raise QuantizationError(f"range [{low}, {high}] is not finite")
        if scale < _DEAD_SCALE:
            return cls(dead_scale, 0, dtype)
        zero_point = 0 if symmetric else int(np.clip(round(least - low / scale), least, most))
        return cls(scale, zero_point, dtype)

    @classmethod
    def from_json(cls, data: Any) -> QParams:
        """Read what `to_json` gave. Raises ValueError or TypeError if it is something else."""
        scale, zero_point, *rest = data
        dtype = rest[0] if rest else "int8"
        if dtype not in _LIMITS or len(rest) > 1:
            raise ValueError(f"codes of {rest!r} are not known; have {', '.join(_LIMITS)}")
        least, most = (0, 0) if dtype == "int16" else _LIMITS[dtype]
        if not 0 < scale < _LARGEST or zero_point not in range(least, most + 1):
            raise ValueError(f"scale {scale!r} and zero point {zero_point!r} give no numbers")
        return cls(float(scale), int(zero_point), dtype)

    def to_json(self) -> list[Any]:
        """Return plain JSON values; the type of codes only where it is not int8."""
        return [self.scale, self.zero_point, *([self.dtype] if self.dtype != "int8" else [])]

    @property
    def limits(self) -> tuple[int, int]:
        """The least and the largest code."""
        return _LIMITS[self.dtype]

    def quantize(self, values: npt.NDArray[np.floating[Any]]) -> npt.NDArray[Any]:
        """Return the nearest codes, saturated, in the dtype of the codes."""
        codes = np.rint(np.asarray(values, np.float32) / np.float32(self.scale)) + self.zero_point
        clipped: npt.NDArray[Any] = np.clip(codes, *self.limits).astype(self.dtype)
        return clipped

    def dequantize(self, codes: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        """Return the real values of codes."""
        return (codes.astype(np.float32) - self.zero_point) * np.float32(self.scale)


SIGMOID = QParams(*KINDS["act"].fixed_scale["sigmoid"])
"""Output of a sigmoid, also of the one inside a SiLU."""

SIXTH = QParams.of_range(0.0, 1 / 6)
"""Of the constant 1/6 that scales a hard-sigmoid gate."""


@dataclass(frozen=True, slots=True, eq=False)
class WeightCodes:
    """A layer's weight as codes: `weight` int8 of `Op.weight_shape`, `scales` float32.

    `scales` has one value for each output channel, or a single one for the whole layer (dense).
    Two are equal if all their numbers are.
    """

    weight: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]

    @property
    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        """What it holds, in the order of its fields."""
        return self.weight, self.scales

    def __eq__(self, other: object) -> bool:
        """Compare number by number."""
        if not isinstance(other, WeightCodes):
            return NotImplemented
        return len(self.arrays) == len(other.arrays) and all(
            map(np.array_equal, self.arrays, other.arrays)
        )

    __hash__ = None  # type: ignore[assignment]  # arrays have none

    def dequantize(self, op: Op) -> npt.NDArray[np.float32]:
        """Return the weight in real numbers."""
        real: npt.NDArray[np.float32] = self.weight * along_channels(op, self.scales)
        return real


@dataclass(frozen=True, slots=True, eq=False)
class LayerCodes(WeightCodes):
    """A layer's weight and bias as codes: `bias` (out,), int32, or int64 beside int16 activations.

    A bias code counts input scale * weight scale.
    """

    bias: npt.NDArray[np.integer[Any]]

    def recode(
        self,
        op: Op,
        weight: npt.NDArray[np.float32],
        bias: npt.NDArray[np.float32],
        in_scale: float,
    ) -> LayerCodes:
        """Return the codes of other weights of the layer at the same scales, and as far as these.

        Raises:
            QuantizationError: weights or biases that are not finite.
        """
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise QuantizationError(f"op {op.name!r} has weights or biases that are not finite")
        most = int(np.abs(self.weight.astype(np.int16)).max(initial=0))
        codes = np.clip(np.rint(weight / along_channels(op, self.scales)), -most, most)
        most = WIDE_BIAS_MAX if self.bias.dtype == np.int64 else BIAS_MAX
        step = self.scales.astype(np.float64) * in_scale
        bias_codes = np.clip(np.rint(bias / step), -most, most)
        return LayerCodes(codes.astype(np.int8), self.scales, bias_codes.astype(self.bias.dtype))

    def real_bias(self, in_scale: float) -> npt.NDArray[np.float32]:
        """Return the bias (out,) in real numbers, for the scale of what the layer reads."""
        step = self.scales.astype(np.float64) * in_scale
        real: npt.NDArray[np.float32] = (self.bias * step).astype(np.float32)
        return real

    @property
    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        """What it holds, in the order of its fields."""
        return self.weight, self.scales, self.bias


def along_channels(op: Op, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Shape one value for each output channel (or one for all) to be multiplied with a weight."""
    shape = [1] * len(op.weight_shape)
    shape[op.layer.channel_axis] = -1
    return values.reshape(shape)


def quantize_weight(
    op: Op, weight: npt.NDArray[np.float32], *, per_output: bool = True
) -> WeightCodes:
    """Quantise the weight alone, symmetric min-max, for a layer whose activations stay real.

    Raises:
        QuantizationError: weights that are not finite.
    """
    scales = _largest(op, weight) / WEIGHT_MAX
    scales[scales < _DEAD_SCALE] = 1.0
    return _codes(op, weight, scales.astype(np.float32), per_output=per_output)


def quantize_layer(
    op: Op,
    weight: npt.NDArray[np.float32],
    bias: npt.NDArray[np.float32],
    *,
    in_scale: float,
    out_scale: float,
    per_output: bool = True,
    wide: bool = False,
) -> LayerCodes:
    """Quantise one layer, symmetric min-max, per output channel or as a whole.

    A scale is raised above |w|max / 127 where a bias would not fit its type or where the kernel
    could not express the rescaling (channels of zeros, which pruning leaves behind).
    `weight` has `Op.weight_shape`; `wide` says that activations are int16, and the bias int64.

    Raises:
        QuantizationError: weights or biases that are not finite, or too large for the scales.
    """
    scales = raise_scales(
        _largest(op, weight) / WEIGHT_MAX, bias, in_scale=in_scale, out_scale=out_scale, wide=wide
    )
    codes = _codes(op, weight, scales, per_output=per_output)
    check_rescaling(op, codes.scales, in_scale=in_scale, out_scale=out_scale)
    bias_codes = np.rint(bias.astype(np.float64) / (codes.scales.astype(np.float64) * in_scale))
    dtype = np.int64 if wide else np.int32
    return LayerCodes(codes.weight, codes.scales, bias_codes.astype(dtype))


def raise_scales(
    scales: npt.NDArray[np.float64],
    bias: npt.NDArray[np.float32],
    *,
    in_scale: float,
    out_scale: float,
    wide: bool = False,
) -> npt.NDArray[np.float32]:
    """Return scales of a layer's weight, one for each output channel, that kernels take.

    Larger than given where a bias would not fit its type, or the rescaling could not be expressed.
    """
    bias_max = WIDE_BIAS_MAX if wide else BIAS_MAX
    scales = np.maximum(scales, np.abs(bias) / (in_scale * bias_max))
    return np.maximum(scales, FINEST_RESCALE * out_scale / in_scale).astype(np.float32)


def check_rescaling(
    op: Op, scales: npt.NDArray[np.float32], *, in_scale: float, out_scale: float
) -> None:
    """Raise QuantizationError where a layer's sums would be rescaled by more than kernels take."""
    if (rescale := float(scales.max()) * in_scale / out_scale) >= COARSEST_RESCALE:
        raise QuantizationError(
            f"op {op.name!r}: input * weight / output scale is {rescale:.3g}, and kernels take "
            f"less than {COARSEST_RESCALE:g}; calibrate with these same weights"
        )


def _largest(op: Op, weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the largest magnitude of each output channel."""
    axes = tuple(axis for axis in range(weight.ndim) if axis != op.layer.channel_axis)
    largest: npt.NDArray[np.float32] = np.maximum(weight.max(axis=axes), -weight.min(axis=axes))
    return largest.astype(np.float64)


def _codes(
    op: Op,
    weight: npt.NDArray[np.float32],
    scales: npt.NDArray[np.float32],
    *,
    per_output: bool,
) -> WeightCodes:
    if not np.isfinite(scales).all():
        raise QuantizationError(f"op {op.name!r} has weights or biases that are not finite")
    if not per_output:
        scales = scales.max(keepdims=True)
    codes = weight * along_channels(op, np.float32(1) / scales)
    np.rint(codes, out=codes)
    return WeightCodes(codes.astype(np.int8), scales)
