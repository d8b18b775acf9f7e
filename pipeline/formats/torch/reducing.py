"""Forms of torch's reductions and look-ups."""

from __future__ import annotations

import math
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from models.ops import Arg, Gather, Matmul, Mean, Reduce, Unary
from pipeline.formats.torch.elementwise import scale_by
from pipeline.formats.torch.writer import Unsaid, held

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.formats.torch.calls import Call
    from pipeline.formats.torch.writer import Value, Writer


def _axes(call: Call) -> tuple[int, ...]:
    """Return the axes that a call reduces: all, where it names none."""
    rank, given = len(call.first.shape), call.args.get("dim", call.args.get("dims"))
    if given is None or given == []:
        return tuple(range(rank))
    return tuple(sorted(axis % rank for axis in ([given] if isinstance(given, int) else given)))


def _reduced(w: Writer, x: Value, function: str, axes: Sequence[int], *, keepdims: bool) -> Value:
    if not axes:
        return x
    return w.op("reduce", [x], Reduce(function, tuple(axes), keepdims))


def _reduce(function: str) -> Callable[[Writer, Call], Value]:
    def write(w: Writer, call: Call) -> Value:
        keepdims = call.args.get("keepdim", False)
        x = w.cast(call.first, call.dtype)
        return _reduced(w, x, function, _axes(call), keepdims=keepdims)

    return write


def _mean(w: Writer, call: Call) -> Value:
    """Write a mean; that of whole maps is an op of its own."""
    x, axes, keepdims = w.cast(call.first, call.dtype), _axes(call), call.args.get("keepdim", False)
    if len(x.shape) == 4 and axes == (2, 3):
        made = w.op("mean", [w.to_last(x)], Mean(keepdims=keepdims))
        return w.to_first(made) if keepdims else made
    return _reduced(w, x, "mean", axes, keepdims=keepdims)


def _truth(function: str) -> Callable[[Writer, Call], Value]:
    def write(w: Writer, call: Call) -> Value:
        if call.first.dtype != "bool":
            raise Unsaid(f"it reads {call.first.dtype}, not bool")
        return _reduce(function)(w, call)

    return write


def _extreme(function: str) -> Callable[[Writer, Call], Any]:
    """Make the form of torch.max and torch.min of one tensor: of all, or of an axis with places."""

    def write(w: Writer, call: Call) -> Any:
        if "dim" not in call.args:
            return _reduce(function)(w, call)
        axis, keepdims = call["dim"] % len(call.first.shape), call["keepdim"]
        value = _reduced(w, call.first, function, (axis,), keepdims=keepdims)
        places = None
        if 1 in call.used:
            places = w.op("argmax", [call.first], Arg(f"arg{function}", axis, keepdims))
        return value, places

    return write


def _place(function: str) -> Callable[[Writer, Call], Value]:
    def write(w: Writer, call: Call) -> Value:
        x, axis = call.first, call["dim"]
        if axis is None:
            x, axis = w.reshape(x, (prod(x.shape),)), 0
        made = w.op("argmax", [x], Arg(function, axis % len(x.shape), call["keepdim"]))
        return w.reshape(made, call.shape)

    return write


def _variance(w: Writer, call: Call) -> Value:
    return _moments(w, call)[0]


def _moments(w: Writer, call: Call) -> tuple[Value, Value]:
    """Return variance and mean."""
    x, axes, keepdims = call.first, _axes(call), call["keepdim"]
    mean = _reduced(w, x, "mean", axes, keepdims=True)
    squares = w.op("unary", [w.op("sub", [x, mean])], Unary("square"))
    count = prod(x.shape[axis] for axis in axes)
    correction = 1 if call["correction"] is None else call["correction"]
    if count <= correction:
        raise Unsaid(f"it takes the variance of {count} values, less {correction}")
    variance = _reduced(w, squares, "mean", axes, keepdims=keepdims)
    shape = call.shape
    return scale_by(w, variance, count / (count - correction)), w.reshape(mean, shape)


def _norm(w: Writer, call: Call) -> Value:
    x, order, axes, keepdims = call.first, call["ord"], _axes(call), call["keepdim"]
    if order == 2:
        squares = w.op("unary", [x], Unary("square"))
        return w.op("unary", [_reduced(w, squares, "sum", axes, keepdims=keepdims)], Unary("sqrt"))
    function = {1: "sum", math.inf: "max", -math.inf: "min"}.get(order)
    if function is None:
        raise Unsaid(f"it is the norm of order {order}; known are 1, 2 and inf")
    sizes = w.op("unary", [x], Unary("abs"))
    return _reduced(w, sizes, function, axes, keepdims=keepdims)


def _index(w: Writer, call: Call) -> Value:
    """Write x[…, i, j, …]: one look-up, along one axis or along several that are made one."""
    x, given = call.first, call["indices"]
    axes = [axis for axis, index in enumerate(given) if index is not None]
    indices = [given[axis] for axis in axes]
    if any(index.dtype == "bool" for index in indices):
        raise Unsaid("which entries it takes depends on values")
    if axes != list(range(axes[0], axes[0] + len(axes))):
        raise Unsaid("it looks up along axes that are not beside each other")
    first, sizes = axes[0], [x.shape[axis] for axis in axes]
    total, step = _positive(indices[-1], sizes[-1]), sizes[-1]
    for index, size in zip(indices[-2::-1], sizes[-2::-1], strict=True):
        place = scale_by(w, _positive(index, size), step)
        if place.constant is not None and total.constant is not None:
            total = held(total.constant + place.constant)
        else:
            total = w.op("add", w.fit([total, place]))
        step *= size
    flat = w.reshape(x, (*x.shape[:first], prod(sizes), *x.shape[first + len(axes) :]))
    return w.op("gather", [flat, total], Gather(first))


def _positive(index: Value, size: int) -> Value:
    """Return places counted from the start; of those that are computed, they must be."""
    if index.constant is None:
        return index
    return held(torch.where(index.constant < 0, index.constant + size, index.constant))


def _index_select(w: Writer, call: Call) -> Value:
    axis = call["dim"] % len(call.first.shape)
    return w.op("gather", [call.first, call["index"]], Gather(axis))


def _running_sum(w: Writer, call: Call) -> Value:
    """Write cumsum as a product with a triangle of ones."""
    x, axis = w.cast(call.first, "float32"), call["dim"] % len(call.first.shape)
    size, rank = x.shape[axis], len(x.shape)
    order = [*(place for place in range(rank) if place != axis), axis]
    turned = w.transpose(x, order)
    if rank == 1:
        turned = w.reshape(turned, (1, size))
    ones = held(torch.ones(size, size).triu().reshape((1,) * max(rank - 2, 0) + (size, size)))
    made = w.op("matmul", [turned, ones], Matmul())
    if rank == 1:
        made = w.reshape(made, (size,))
    back = [order.index(place) for place in range(rank)]
    return w.cast(w.transpose(made, back), call.dtype)


FORMS: Mapping[str, Callable[[Writer, Call], Any]] = {
    "mean": _mean,
    "sum": _reduce("sum"),
    "amax": _reduce("max"),
    "amin": _reduce("min"),
    "prod": _reduce("prod"),
    "any": _truth("any"),
    "all": _truth("all"),
    "max": _extreme("max"),
    "min": _extreme("min"),
    "argmax": _place("argmax"),
    "argmin": _place("argmin"),
    "var": _variance,
    "var_mean": _moments,
    "linalg_vector_norm": _norm,
    "cumsum": _running_sum,
    "index": _index,
    "index_select": _index_select,
}
"""Torch's name of an op -> what writes it; several results are a tuple."""
