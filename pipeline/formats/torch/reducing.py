"""Forms of torch's reductions."""

from __future__ import annotations

import math
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from models.ops import Arg, Matmul, Mean, Reduce, Unary
from pipeline.formats.torch.elementwise import scale_by, truth
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
        x = truth(w, call.first)
        return _reduced(w, x, function, _axes(call), keepdims=call.args.get("keepdim", False))

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
    function = {math.inf: "max", -math.inf: "min"}.get(order, "sum")
    sizes = w.op("unary", [x], Unary("abs"))
    if function != "sum" or order == 1:
        return _reduced(w, sizes, function, axes, keepdims=keepdims)
    if order == 0:
        raise Unsaid("it is the norm of order 0")
    powers = w.op("pow", w.fit([sizes, held(torch.tensor(float(order)))]))
    total = _reduced(w, powers, "sum", axes, keepdims=keepdims)
    return w.op("pow", w.fit([total, held(torch.tensor(1 / order))]))


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
}
"""Torch's name of an op -> what writes it; several results are a tuple."""
