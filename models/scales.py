"""Scales of a network's tensors: of the ranges that its values were seen in, or assumed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from models.codes import (
    BIAS_MAX,
    COARSEST_RESCALE,
    CODE_MAX,
    CODE_MIN,
    WEIGHT_MAX,
    QParams,
    QuantizationError,
)
from models.islands import find_float_ops
from models.number_format import (
    DYNAMIC8,
    FLOAT16,
    NAMED,
    STATIC8,
    STATIC16X8,
    NumberFormat,
)
from models.quantization import Quantization, float_tensors, hardsigmoid_sources

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from models.fold import Weights
    from models.graph import Graph, Op


def from_ranges(
    graph: Graph,
    ranges: Mapping[str, tuple[float, float]],
    weights: Weights | None = None,
    *,
    number_format: NumberFormat = STATIC8,
    float_ops: Collection[str] = (),
) -> Quantization:
    """Turn observed (low, high) per tensor into parameters.

    Applies what kernels fix (`models.ops`): max pooling shares its input's parameters, all that a
    concatenation reads and gives has one scale, a sigmoid has its own. The input of a
    hard-sigmoid is stored as relu6(x + 3). With `weights`, outputs that are nearly dead get a
    scale that kernels accept (`_finest_scale`). What no op with codes reads or makes stays real,
    and so does what a fixed scale would leave nothing of (`_is_lost`).

    Args:
        graph: whose tensors they are.
        ranges: of every tensor of real numbers.
        weights: of the graph, float32.
        number_format: a static one.
        float_ops: ops to stay real, beside those that must (`models.islands`).

    Raises:
        QuantizationError: a range that is not finite.
    """
    dtype = number_format.activations
    lost = {op.name for op in graph.ops if _is_lost(op, ranges, dtype)}
    real = find_float_ops(graph, lost.union(float_ops))
    integer = [op for op in graph.ops if float_tensors(op) and op.name not in real]
    coded = {name for op in integer for name in float_tensors(op)}
    gates = hardsigmoid_sources(graph, None) - real
    fixed = {op.name: params for op in graph.ops if (params := _fixed(op, dtype)) is not None}
    scale_of = _shared_scales(integer, fixed)
    bounds: dict[str, tuple[float, float]] = {}
    for name in coded:
        low, high = ranges[name]
        if name in gates:
            low, high = (min(max(value + 3.0, 0.0), 6.0) for value in (low, high))
        least, most = bounds.get(scale_of[name], (low, high))
        bounds[scale_of[name]] = min(low, least), max(high, most)
    found: dict[str, QParams] = {}
    made = [(tensor.name, None) for tensor in (*graph.inputs, *graph.constants)]
    for name, op in (*made, *((op.name, op) for op in graph.ops)):
        if name not in coded:
            continue
        shared = scale_of[name]
        if shared in fixed:
            found[shared] = fixed[shared]
            continue
        inputs = () if op is None else float_tensors(op)[:-1]
        scales = [found[scale_of[read]].scale for read in inputs if read in coded]
        in_scale = max(scales, default=1.0)
        if shared not in found:
            found[shared] = _params(name, bounds[shared], in_scale, dtype)
        if op is None or op.name in real or op.keeps_scale:
            continue
        finest = _finest_scale(op, in_scale, weights)
        if found[shared].scale < finest:
            found[shared] = replace(found[shared], scale=finest)
    tensors = {name: found[scale_of[name]] for name in graph.tensors if name in coded}
    return Quantization(tensors, number_format=number_format, float_ops=real)


def free_scales(graph: Graph, quantization: Quantization) -> dict[str, str]:
    """Return tensor -> the one that stands for all that have its scale, as `from_ranges` shares it.

    Constants are left out, and whatever has a scale that kernels fix.
    """
    integer = [op for op in graph.ops if quantization.is_integer(op)]
    dtype = quantization.number_format.activations
    fixed = {op.name for op in graph.ops if _fixed(op, dtype) is not None}
    constants = {tensor.name for tensor in graph.constants}
    found = {
        name: stands
        for name, stands in _shared_scales(integer, fixed).items()
        if stands not in fixed
    }
    held = {stands for name, stands in found.items() if name in constants}
    return {name: stands for name, stands in found.items() if stands not in held}


def rescale(graph: Graph, quantization: Quantization, weights: Weights) -> Quantization:
    """Return number formats of a graph whose scales or weights were changed, as kernels take them.

    Raises:
        QuantizationError: as `from_ranges`.
    """
    gates = hardsigmoid_sources(graph, quantization)
    ranges = {}
    for name, params in quantization.tensors.items():
        least, most = params.limits
        least = -most if params.dtype == "int16" else least
        shift = params.zero_point + 3 / params.scale * (name in gates)
        ranges[name] = (least - shift) * params.scale, (most - shift) * params.scale
    real = {op.name for op in graph.ops if float_tensors(op) and not quantization.is_integer(op)}
    found = from_ranges(
        graph, ranges, weights, number_format=quantization.number_format, float_ops=real
    )
    return replace(quantization, tensors=found.tensors)


def _shared_scales(ops: Sequence[Op], fixed: Collection[str]) -> dict[str, str]:
    """Return tensor -> the one that stands for all that have its scale.

    A scale that kernels fix is shared by what only moves its values, never by what joins it with
    others: a writer rescales it there.
    """
    stands: dict[str, str] = {}

    def find(name: str) -> str:
        while stands.setdefault(name, name) != name:
            name = stands[name]
        return name

    for op in ops:
        names = float_tensors(op)
        roots = {name: find(name) for name in names}
        if op.keeps_scale:
            stands[roots[op.name]] = roots[op.inputs[0]]
        elif op.rules.shares_scale:
            free = [root for root in roots.values() if root not in fixed]
            for root in free:
                stands[find(root)] = find(free[0])
    return {name: find(name) for name in stands}


def _is_lost(op: Op, ranges: Mapping[str, tuple[float, float]], dtype: str) -> bool:
    """Tell whether the scale that kernels fix of an output leaves next to nothing of its values.

    Such are the probabilities of a detector that finds nothing, all of them near 0.
    """
    fixed = _fixed(op, dtype)
    if fixed is None or op.name not in ranges:
        return False
    low, high = ranges[op.name]
    return 0 < max(-low, high) < _FEW_CODES * fixed.scale


def _fixed(op: Op, dtype: str) -> QParams | None:
    """Return the parameters that kernels fix of an op's output; None of any other op."""
    if op.act not in op.rules.fixed_scale:
        return None
    scale, zero_point = op.rules.fixed_scale[op.act]
    if dtype == "int8":
        return QParams(scale, zero_point)
    reach = scale * max(zero_point - CODE_MIN, CODE_MAX + 1 - zero_point)
    return QParams(reach / 2**15, 0, dtype)


def _params(name: str, bounds: tuple[float, float], dead_scale: float, dtype: str) -> QParams:
    try:
        return QParams.of_range(*bounds, dead_scale=dead_scale, dtype=dtype)
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
    return in_scale * max(largest, for_bias) / (COARSEST_RESCALE / 2)


_FEW_CODES = 8
"""What reaches no farther from 0 than this is lost in a scale that kernels fix."""

_ASSUMED = {
    "relu": (0.0, 6.0),
    "relu6": (0.0, 6.0),
    "hardswish": (-0.375, 6.0),
    "silu": (-0.28, 6.0),
    "sigmoid": (0.0, 1.0),
    "hardsigmoid": (0.0, 1.0),
}


def random_quantization(graph: Graph, number_format: NumberFormat = STATIC8) -> Quantization:
    """Return plausible parameters without data: the counterpart of `models.fold.random_weights`.

    Latency does not depend on the values of scales; accuracy does: calibrate for that.

    Raises:
        QuantizationError: a number format that has no assumed scales.
    """
    if number_format in (FLOAT16, DYNAMIC8):
        return Quantization({}, number_format=number_format)
    if number_format not in (STATIC8, STATIC16X8):
        have = ", ".join(NAMED)
        raise QuantizationError(f"no scales can be assumed for {number_format}; have {have}")
    ranges = {tensor.name: (-2.0, 2.0) for tensor in (*graph.inputs, *graph.constants)}
    for op in graph.ops:
        known = op.rules.keeps_range and op.inputs[0] in ranges
        ranges[op.name] = ranges[op.inputs[0]] if known else _ASSUMED.get(op.act, (-6.0, 6.0))
    return from_ranges(graph, ranges, number_format=number_format)
