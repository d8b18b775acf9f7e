"""Layer normalisations, and vectors brought to one length."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from models.graph import Op
from models.ops import Clip, L2Norm, LayerNorm, Transpose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.recognise.arithmetic import Arithmetic

_SMALLEST = 1e-30
"""Of a sum of squares that something is divided by, where the source has no limit."""


def standard(at: Arithmetic, op: Op) -> Sequence[Op] | None:
    """Find (x - mean) / sqrt(variance + epsilon) over one axis, the last or the channels'."""
    found = _centred_and_variance(at, op)
    total = None if found is None else at.op(found[1], "add")
    difference = None if found is None else at.op(found[0], "sub")
    if total is None or difference is None or op.act != "none":
        return None
    x = difference.inputs[0]
    mean = _reduced(at, difference.inputs[1], "mean")
    for variance, moved in (total.inputs, total.inputs[::-1]):
        epsilon, squares = at.number(moved), _reduced(at, variance, "mean")
        if epsilon is None or squares is None or mean is None:
            continue
        if mean != (x, squares[1]) or not _is_centred(at, at.square_of(squares[0]), x, op):
            continue
        return _layernorm(at, op, x, squares[1], epsilon)
    return None


def _centred_and_variance(at: Arithmetic, op: Op) -> tuple[str, str] | None:
    """Return a and b of a / sqrt(b), however it is written."""
    first, second = op.inputs
    if op.kind == "div":
        inside = at.unary(second, "sqrt")
        return None if inside is None else (first, inside)
    for centred, below in ((first, second), (second, first)):
        inside = at.unary(below, "rsqrt")
        if inside is None and (root := at.unary(below, "reciprocal")) is not None:
            inside = at.unary(root, "sqrt")
        if inside is not None:
            return centred, inside
    return None


def _reduced(at: Arithmetic, name: str, function: str) -> tuple[str, int] | None:
    """Return what a tensor is reduced from, over which one axis; axes of size 1 stay."""
    op = at.op(name, "reduce")
    if op is None or op.attributes.function != function or not op.attributes.keepdims:
        return None
    axes = op.attributes.axes
    return (op.inputs[0], axes[0]) if len(axes) == 1 else None


def _is_centred(at: Arithmetic, name: str | None, x: str, op: Op) -> bool:
    """Tell whether a tensor is x less its mean, the one that `op` reads or made again."""
    if name is None or name in op.inputs:
        return name is not None
    again = at.op(name, "sub")
    if again is None or again.inputs[0] != x:
        return False
    return _reduced(at, again.inputs[1], "mean") is not None


def _layernorm(at: Arithmetic, op: Op, x: str, axis: int, epsilon: float) -> Sequence[Op] | None:
    shape, rank = op.out_shape, len(op.out_shape)
    if axis not in (1, rank - 1):
        return None
    size, held = shape[axis], (f"{op.name}.scale", f"{op.name}.shift")
    for name, value in zip(held, (1.0, 0.0), strict=True):
        at.weights[name] = (np.full((size,), value, np.float32),)
    attributes, sizes = LayerNorm(1, epsilon), ((size,), (size,))
    if axis == rank - 1:
        return (Op("layernorm", op.name, (x, *held), (shape, *sizes), attributes, constants=held),)
    order, back = (0, *range(2, rank), 1), (0, rank - 1, *range(1, rank - 1))
    last = Op("transpose", f"{op.name}.last", (x,), (shape,), Transpose(order))
    shapes = (last.out_shape, *sizes)
    norm = Op(
        "layernorm", f"{op.name}.norm", (last.name, *held), shapes, attributes, constants=held
    )
    first = Op("transpose", op.name, (norm.name,), (norm.out_shape,), Transpose(back))
    return last, norm, first


def scaled_norm(at: Arithmetic, op: Op) -> Sequence[Op] | None:
    """Put what a layer normalisation is multiplied by, or what is added, into its parameters."""
    if len(op.constants) != 1 or op.act != "none":
        return None
    (constant,) = op.constants
    (source,) = (name for name in op.inputs if name != constant)
    behind = at.op(source, "transpose")
    norm = at.op(source if behind is None else behind.inputs[0], "layernorm")
    value = at.weights[constant][0]
    if norm is None or op.out_shape != (norm if behind is None else behind).out_shape:
        return None
    axis = len(op.out_shape) - 1
    if behind is not None:
        axis = behind.attributes.permutation.index(axis)
    others = [size for place, size in enumerate(value.shape) if place != axis]
    if norm.attributes.axes_count != 1 or any(size != 1 for size in others):
        return None
    by = np.broadcast_to(value.reshape(-1), (op.out_shape[axis],))
    scale, shift = (at.weights[name][0] for name in norm.inputs[1:])
    pair = (scale * by, shift * by) if op.kind == "mul" else (scale, shift + by)
    held = (f"{op.name}.scale", f"{op.name}.shift")
    for name, array in zip(held, pair, strict=True):
        at.weights[name] = (array.astype(np.float32),)
    name = op.name if behind is None else f"{op.name}.norm"
    moved = replace(norm, name=name, inputs=(norm.inputs[0], *held), constants=held)
    if behind is None:
        return (moved,)
    return moved, replace(behind, name=op.name, inputs=(moved.name,))


def length(at: Arithmetic, op: Op) -> Sequence[Op] | None:
    """Find x / max(sqrt(sum of squares over an axis), epsilon)."""
    x, below = op.inputs
    if (tiled := at.op(below, "tile")) is not None:
        below = tiled.inputs[0]
    least = 0.0
    limit = at.op(below, "clip")
    if limit is not None and isinstance(limit.attributes, Clip) and limit.attributes.high == np.inf:
        below, least = limit.inputs[0], limit.attributes.low
    total = at.unary(below, "sqrt")
    found = None if total is None else _reduced(at, total, "sum")
    if found is None or at.square_of(found[0]) != x:
        return None
    if op.act != "none" or op.in_shapes[0] != op.out_shape:
        return None
    attributes = L2Norm(found[1], max(least * least, _SMALLEST))
    return (Op("l2norm", op.name, (x,), (op.out_shape,), attributes),)
