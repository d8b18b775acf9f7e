"""In which order of its axes each tensor of a graph will be wanted, found from the outputs back."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import TYPE_CHECKING

from pipeline.formats.onnx.axes import CHANNELS_FIRST, as_it_is, turn_digits, user_axes, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.graph import Op
    from models.model import Model
    from models.ops import Shape
    from pipeline.formats.onnx.axes import Axes
    from pipeline.formats.onnx.places import Place

_CHANNELS_FIRST = (
    *("conv", "depthwise", "deconv", "mean", "maxpool", "avgpool", "resize"),
    *("depthtospace", "spacetodepth"),
)
_AS_IT_IS = ("dense", "matmul", "layernorm")
"""Kinds that want the graph's order; any other that keeps the rank takes what its readers want."""


def plan_orders(model: Model) -> dict[str, Axes]:
    """Return tensor -> the order that most of its values are wanted in; nothing of the indifferent.

    An op that takes any order wants what its own readers want.
    """
    graph = model.graph
    votes: dict[str, Counter[Axes]] = {name: Counter() for name in graph.tensors}
    for name, end in zip(graph.outputs, model.outputs, strict=True):
        shape = graph.shape(name)
        votes[name][user_axes(end.layout, len(shape))] += prod(shape)
    for op in reversed(graph.ops):
        given = _most_wanted(votes[op.name])
        for name, shape in zip(op.inputs, op.in_shapes, strict=True):
            axes = _wanted(op, len(shape), given)
            if axes is not None:
                votes[name][axes] += prod(shape)
    found = ((name, _most_wanted(cast)) for name, cast in votes.items())
    return {name: axes for name, axes in found if axes is not None}


def choose_order(
    places: Sequence[tuple[Place, int]], shape: Shape, wanted: Axes | None, given: Shape
) -> Axes:
    """Return the order of axes in which the fewest values must be moved, before an op or after.

    Args:
        places: of what the op reads that is computed, and by how many ops it is read: they share
            what moving it takes.
        shape: of its first input; the others have the same rank.
        wanted: in which order its output is wanted, if in any.
        given: the shape of its output.
    """
    rank = len(shape)
    if wanted is None or not len(wanted) == len(given) == rank:
        wanted = None
    orders = dict.fromkeys(axes for place, _ in places for axes in place.orders)
    for axes in (wanted, as_it_is(rank)):
        if axes is not None:
            orders.setdefault(axes)

    size = prod(given)
    later = None if wanted is None else turn_digits(whole(size), given, wanted)

    def moved(axes: Axes) -> tuple[float, int]:
        # Orders may differ in axes of one entry alone: then a reshape is all that it takes.
        alike = later is None or turn_digits(whole(size), given, axes) == later
        before = sum(place.size / readers for place, readers in places if not place.holds(axes))
        reshapes = sum(not place.is_shaped(axes) for place, _ in places)
        reshapes += wanted is not None and axes != wanted
        return (before if alike else before + size), reshapes

    return min(orders, key=moved)


def _wanted(op: Op, rank: int, given: Axes | None) -> Axes | None:
    if op.kind in _CHANNELS_FIRST:
        return CHANNELS_FIRST[4]
    if op.kind in _AS_IT_IS:
        return as_it_is(rank) if rank > 2 else None
    if given is None or op.kind == "reshape" or not rank == len(given) == len(op.in_shapes[0]):
        return None
    if op.kind == "transpose":
        order = op.attributes.permutation
        return tuple(order[axis] for axis in given)
    return given


def _most_wanted(votes: Counter[Axes]) -> Axes | None:
    return max(votes, key=lambda axes: votes[axes]) if votes else None
