"""Reads normalisations."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from models.ops import BatchNorm, L2Norm, LayerNorm, Reduce, Unary
from pipeline.formats.onnx.node import Node, UnknownError, Value, axis_of, known

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.ops import Shape
    from pipeline.formats.onnx.reading import Reading

_SCALE_OF_CHANNELS = 21
"""The opset from which a group normalisation has a scale for each channel, not each group."""

_FLAT = 3
"""Axes of a tensor whose positions are one."""

_SMALLEST = 1e-30
"""Of a sum of squares that something is divided by: 0 / 0 would not be a number."""


def _batchnorm(reading: Reading, node: Node) -> Value:
    node.gives_only()
    if node.attribute("training_mode", 0):
        raise UnknownError("takes mean and variance of the batch, as in training")
    x = node.input(0)
    names = ("scale", "shift", "mean", "variance")
    parameters = [
        reading.constant(f"{node.name}.{what}", known(node.input(place), what).reshape(-1))
        for place, what in enumerate(names, 1)
    ]
    last = reading.channels_last(x, name=node.name)
    attributes = BatchNorm(node.attribute("epsilon", 1e-5))
    made = reading.op("batchnorm", [last, *parameters], attributes, name=node.name)
    return reading.channels_first(made, name=node.name)


def _instancenorm(reading: Reading, node: Node) -> Value:
    x = node.input(0)
    whole = _before_flattening(reading, x)
    axes = tuple(range(2, whole.rank))
    made = standardise(reading, whole, axes, node.attribute("epsilon", 1e-5), name=node.name)
    made = _by_channel(reading, node, made, node.input(1), node.input(2))
    return reading.reshape(made, x.shape, name=f"{node.name}.flat")


def _before_flattening(reading: Reading, x: Value) -> Value:
    """Return groups of channels of a map with their axes; exporters flatten them before this op.

    So they write a group normalisation. With all axes there, it can be computed channels-last.
    """
    source = reading.before_reshape(x)
    batch, groups, *_ = x.shape
    fits = x.rank == _FLAT < source.rank and source.shape[0] == batch
    if not fits or source.shape[1] % groups:
        return x
    _, channels, *rest = source.shape
    shape = (batch, groups, channels // groups, *rest)
    return reading.reshape(source, shape, name=f"{x.name}.groups")


def _groupnorm(reading: Reading, node: Node) -> Value:
    x, groups = node.input(0), node.attribute("num_groups")
    batch, channels, *rest = x.shape
    if channels % groups:
        raise UnknownError(f"cuts {channels} channels into {groups} groups")
    cut = reading.reshape(x, (batch, groups, channels // groups, *rest), name=f"{node.name}.cut")
    axes = tuple(range(2, cut.rank))
    made = standardise(reading, cut, axes, node.attribute("epsilon", 1e-5), name=node.name)
    whole = reading.reshape(made, x.shape, name=f"{node.name}.whole")
    scale, shift = node.input(1), node.input(2)
    if node.opset < _SCALE_OF_CHANNELS and channels != groups:
        scale, shift = (
            reading.constant(value.name, np.repeat(known(value, "scale"), channels // groups))
            for value in (scale, shift)
        )
    return _by_channel(reading, node, whole, scale, shift)


def _by_channel(reading: Reading, node: Node, x: Value, scale: Value, shift: Value) -> Value:
    shape = (1, -1, *(1,) * (x.rank - 2))
    for kind, value in (("mul", scale), ("add", shift)):
        sizes = [prod(value.shape) if size == -1 else size for size in shape]
        name = node.name if kind == "add" else f"{node.name}.scaled"
        operand = reading.reshape(value, sizes, name=f"{node.name}.{kind}")
        x = reading.op(kind, [x, operand], name=name)
    return x


def standardise(
    reading: Reading, x: Value, axes: tuple[int, ...], epsilon: float, *, name: str
) -> Value:
    """Return (x - mean) / sqrt(variance + epsilon), of means over these axes."""
    over = Reduce("mean", axes, keepdims=True)
    mean = reading.op("reduce", [x], over, name=f"{name}.mean")
    centred = reading.op("sub", [x, mean], name=f"{name}.centred")
    return _by_root(reading, centred, centred, axes, epsilon, name=name)


def _by_root(
    reading: Reading,
    x: Value,
    of: Value,
    axes: tuple[int, ...],
    epsilon: float,
    *,
    name: str,
) -> Value:
    """Return x / sqrt(mean of squares over these axes + epsilon)."""
    squares = reading.op("unary", [of], Unary("square"), name=f"{name}.squares")
    over = Reduce("mean", axes, keepdims=True)
    variance = reading.op("reduce", [squares], over, name=f"{name}.variance")
    moved = reading.op("add", [variance, reading.number(variance, epsilon)], name=f"{name}.moved")
    root = reading.op("unary", [moved], Unary("rsqrt"), name=f"{name}.rsqrt")
    return reading.op("mul", [x, root], name=f"{name}.standard")


def _layernorm(reading: Reading, node: Node) -> Value:
    node.gives_only()
    return layernorm(reading, node, node.input(0), node.optional(1), node.optional(2))


def layernorm(
    reading: Reading, node: Node, x: Value, scale: Value | None, shift: Value | None
) -> Value:
    """Add a layer normalisation; a scale that is computed stands behind it."""
    axis = axis_of(node.attribute("axis", -1), x.rank)
    shape = x.shape[axis:]
    attributes = LayerNorm(x.rank - axis, node.attribute("epsilon", 1e-5))
    one = _parameter(reading, scale, shape, 1.0, name=f"{node.name}.scale")
    zero = _parameter(reading, shift, shape, 0.0, name=f"{node.name}.shift")
    made = reading.op("layernorm", [x, one, zero], attributes, name=node.name)
    for kind, value in (("mul", scale), ("add", shift)):
        if value is not None and value.array is None:
            both = reading.aligned([made, value], name=node.name)
            made = reading.op(kind, both, name=f"{node.name}.{kind}")
    return made


def _parameter(
    reading: Reading, value: Value | None, shape: Shape, otherwise: float, *, name: str
) -> Value:
    if value is None or value.array is None:
        return reading.constant(name, np.full(shape, otherwise, np.float32))
    flat = value.array.reshape(value.shape[max(value.rank - len(shape), 0) :])
    return reading.constant(name, np.broadcast_to(flat, shape).copy())


def _rmsnorm(reading: Reading, node: Node) -> Value:
    """Read x / sqrt(mean of squares + epsilon) * scale."""
    node.gives_only()
    x = node.input(0)
    axis = axis_of(node.attribute("axis", -1), x.rank)
    axes, epsilon = tuple(range(axis, x.rank)), node.attribute("epsilon", 1e-5)
    made = _by_root(reading, x, x, axes, epsilon, name=node.name)
    return reading.op("mul", reading.aligned([made, node.input(1)], name=node.name), name=node.name)


def _lpnorm(reading: Reading, node: Node) -> Value:
    x, power = node.input(0), node.attribute("p", 2)
    axis = axis_of(node.attribute("axis", -1), x.rank)
    if power == 2:
        return reading.op("l2norm", [x], L2Norm(axis, _SMALLEST), name=node.name)
    sizes = reading.op("unary", [x], Unary("abs"), name=f"{node.name}.abs")
    over = Reduce("sum", (axis,), keepdims=True)
    total = reading.op("reduce", [sizes], over, name=f"{node.name}.sum")
    return reading.op("div", [x, total], name=node.name)


def _meanvariance(reading: Reading, node: Node) -> Value:
    x = node.input(0)
    axes = tuple(axis_of(axis, x.rank) for axis in node.attribute("axes", (0, 2, 3)))
    return standardise(reading, x, tuple(sorted(axes)), 1e-9, name=node.name)


def _skiplayernorm(reading: Reading, node: Node, *, has_shift: bool) -> Value:
    """Read onnxruntime's layer normalisation of a sum."""
    node.gives_only()
    x = reading.op(
        "add",
        reading.aligned([node.input(0), node.input(1)], name=node.name),
        name=f"{node.name}.sum",
    )
    bias = node.optional(4 if has_shift else 3)
    if bias is not None:
        x = reading.op(
            "add", reading.aligned([x, bias], name=node.name), name=f"{node.name}.biased"
        )
    return layernorm(reading, node, x, node.input(2), node.optional(3) if has_shift else None)


NORMALISING: Mapping[str, Callable[[Reading, Node], Any]] = {
    "BatchNormalization": _batchnorm,
    "InstanceNormalization": _instancenorm,
    "GroupNormalization": _groupnorm,
    "LayerNormalization": _layernorm,
    "RMSNormalization": _rmsnorm,
    "SimplifiedLayerNormalization": _rmsnorm,
    "SkipLayerNormalization": partial(_skiplayernorm, has_shift=True),
    "LpNormalization": _lpnorm,
    "MeanVarianceNormalization": _meanvariance,
}
