"""Weights of layers as codes by other rules than the writers': fewer bits, one scale, corrected.

The codes are held by the model (`Quantization.weights`), so that every format writes the same. A
dense layer has one scale, which TFLite's runtimes of all versions take.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from models.codes import (
    BIAS_MAX,
    WIDE_BIAS_MAX,
    QuantizationError,
    along_channels,
    check_rescaling,
    raise_scales,
)

if TYPE_CHECKING:
    from models.codes import QParams
    from models.fold import FloatArray
    from models.graph import Op

Rounding = Literal["nearest", "adaround"]

FULL_BITS = 8
"""Of codes whose scale is that of the largest weight; fewer bits are worth cutting it."""

_SHRINKS = np.linspace(0.3, 1.0, 71)
"""Shares of the largest weight that are tried as the end of a scale, steps of a hundredth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightRules:
    """How weights become codes.

    Attributes:
        bits: of a code; its magnitude is 2**(bits - 1) - 1 at most.
        per_tensor: one scale for each layer, not for each output channel.
        rounding: to the nearest code, or learnt (`pipeline.compress.adaround`).
        iterations: of learning, for each layer.
        bias_correction: whether biases take up the mean error of each output channel.
    """

    bits: int = FULL_BITS
    per_tensor: bool = False
    rounding: Rounding = "nearest"
    iterations: int = 1000
    bias_correction: bool = False

    @property
    def largest(self) -> int:
        """The largest code."""
        return int(2 ** (self.bits - 1)) - 1

    @property
    def are_the_writers(self) -> bool:
        """Whether writers make such codes by themselves."""
        return self.bits == FULL_BITS and not (self.per_tensor or self.see_samples)

    @property
    def see_samples(self) -> bool:
        """Whether codes depend on what layers read."""
        return self.rounding != "nearest" or self.bias_correction

    @property
    def words(self) -> tuple[str, ...]:
        """What is not as usual, for the history."""
        said = {
            f"weights of {self.bits} bits": self.bits != FULL_BITS,
            "one scale a layer": self.per_tensor,
            f"rounding learnt in {self.iterations} iterations": self.rounding == "adaround",
            "biases corrected": self.bias_correction,
        }
        return tuple(words for words, there in said.items() if there)


def choose_scales(
    op: Op, weight: FloatArray, bias: FloatArray, rules: WeightRules, ends: tuple[QParams, QParams]
) -> npt.NDArray[np.float32]:
    """Return the scales of a layer's weight: one for each output channel, a single one if dense.

    Those of `scales_of_weight`, larger where kernels need them so. `ends` are the parameters of its
    input and output.

    Raises:
        QuantizationError: weights that are not finite, or too large for the scales of its ends.
    """
    source, result = ends
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise QuantizationError(f"op {op.name!r} has weights or biases that are not finite")
    held = scales_of_weight(op, weight, rules)
    one, channels = len(held) == 1, weight.shape[op.layer.channel_axis]
    scales = raise_scales(
        np.broadcast_to(held, channels),
        bias,
        in_scale=source.scale,
        out_scale=result.scale,
        wide=source.dtype == "int16",
    )
    if one:
        scales = scales.max(keepdims=True)
    check_rescaling(op, scales, in_scale=source.scale, out_scale=result.scale)
    return scales if op.layer.one_scale else np.ascontiguousarray(np.broadcast_to(scales, channels))


def scales_of_weight(op: Op, weight: FloatArray, rules: WeightRules) -> npt.NDArray[np.float64]:
    """Return the scales that suit a weight, whatever reads it: one a channel, or a single one.

    Of the largest weight, or, below 8 bits, of the end that leaves the least squared error.
    """
    axis = op.layer.channel_axis
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64)
    groups = rows.reshape(1, -1) if rules.per_tensor or op.layer.one_scale else rows
    ends = np.abs(groups).max(axis=1)
    if rules.bits < FULL_BITS:
        ends = ends * _best_shares(groups, ends, rules.largest)
    scales: npt.NDArray[np.float64] = ends / rules.largest
    return scales


def round_to_nearest(
    op: Op, weight: FloatArray, scales: npt.NDArray[np.float32], largest: int
) -> npt.NDArray[np.int8]:
    """Return the nearest codes, at most `largest` in magnitude."""
    codes = np.rint(weight / along_channels(op, scales.astype(np.float64)))
    clipped: npt.NDArray[np.int8] = np.clip(codes, -largest, largest).astype(np.int8)
    return clipped


def code_bias(
    bias: FloatArray, scales: npt.NDArray[np.float32], source: QParams
) -> npt.NDArray[np.integer]:
    """Return the codes of a bias beside a weight of these scales, saturated."""
    wide = source.dtype == "int16"
    most = WIDE_BIAS_MAX if wide else BIAS_MAX
    codes = np.rint(bias.astype(np.float64) / (scales.astype(np.float64) * source.scale))
    return np.clip(codes, -most, most).astype(np.int64 if wide else np.int32)


def _best_shares(
    groups: npt.NDArray[np.float64], ends: npt.NDArray[np.float64], largest: int
) -> npt.NDArray[np.float64]:
    """Return which share of each group's largest weight is best the end of its scale."""
    best, least = np.ones(len(groups)), np.full(len(groups), np.inf)
    for share in _SHRINKS:
        steps = np.where(ends > 0, share * ends / largest, 1.0)[:, None]
        meant = np.clip(np.rint(groups / steps), -largest, largest) * steps
        error = np.square(meant - groups).sum(axis=1)
        best = np.where(error < least, share, best)
        least = np.minimum(error, least)
    return best
