"""Scales of a network's tensors: of the ranges that its values were seen in, or assumed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from models.codes import BIAS_MAX, COARSEST_RESCALE, WEIGHT_MAX, QParams, QuantizationError
from models.number_format import (
    DYNAMIC8,
    FLOAT16,
    NAMED,
    STATIC8,
    STATIC16X8,
    NumberFormat,
)
from models.quantization import Quantization, hardsigmoid_sources

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.fold import Weights
    from models.graph import Graph, Op

_WIDE_UNIT = QParams(2.0**-15, 0, "int16")
"""Of int16 outputs whose scale kernels fix: sigmoid, tanh, softmax."""


def from_ranges(
    graph: Graph,
    ranges: Mapping[str, tuple[float, float]],
    weights: Weights | None = None,
    *,
    number_format: NumberFormat = STATIC8,
) -> Quantization:
    """Turn observed (low, high) per tensor into parameters.

    Applies what kernels fix (`models.ops`): max pooling shares its input's parameters, a sigmoid
    has its own. The input of a hard-sigmoid is stored as relu6(x + 3). With `weights`, outputs
    that are nearly dead get a scale that kernels accept (`_finest_scale`).

    Raises:
        QuantizationError: a range that is not finite.
    """
    gates, dtype = hardsigmoid_sources(graph), number_format.activations
    given = (tensor.name for tensor in (*graph.inputs, *graph.constants))
    found = {name: _params(name, ranges[name], 1.0, dtype) for name in given}
    for op in graph.ops:
        low, high = ranges[op.name]
        if op.name in gates:
            low, high = (min(max(value + 3.0, 0.0), 6.0) for value in (low, high))
        if op.rules.keeps_scale:
            found[op.name] = found[op.inputs[0]]
        elif op.act in op.rules.fixed_scale:
            fixed = QParams(*op.rules.fixed_scale[op.act])
            found[op.name] = fixed if dtype == "int8" else _WIDE_UNIT
        else:
            in_scale = max(found[name].scale for name in op.inputs)
            params = _params(op.name, (low, high), in_scale, dtype)
            finest = _finest_scale(op, in_scale, weights)
            found[op.name] = params if params.scale >= finest else replace(params, scale=finest)
    return Quantization(found, number_format=number_format)


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


_ASSUMED = {
    "none": (-6.0, 6.0),
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
        ranges[op.name] = ranges[op.inputs[0]] if op.rules.keeps_range else _ASSUMED[op.act]
    return from_ranges(graph, ranges, number_format=number_format)
