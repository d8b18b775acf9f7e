"""In which order the axes of a tensor lie in the network that is written.

A label says of each axis of what is stored which axis of the source's tensor it is, or None for
an axis of size 1. Axes of size 1 have no identity: they may stand anywhere, and there may be more
or fewer of them than the source has. So channels-first (1, 8, 5, 7) stored channels-last is
(None, 2, 3, 1), and as (1, 5, 7, 8) of three axes it would be (2, 3, 1).
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.ops import Shape

Label = tuple[int | None, ...]
Group = tuple[tuple[int, ...], tuple[int, ...]]

TRANSPOSE_COST = 4096
"""Of a transpose, in values moved, beside the values that it does move."""

RESHAPE_COST = 1024
"""Of a reshape, which moves nothing and is still an op."""


def own_label(shape: Shape) -> Label:
    """Return the label of a tensor that is stored as the source has it."""
    return tuple(None if size == 1 else axis for axis, size in enumerate(shape))


def of_permutation(shape: Shape, permutation: Sequence[int]) -> Label:
    """Return the label of a tensor that is stored with its axes in this order."""
    return tuple(None if shape[axis] == 1 else axis for axis in permutation)


def restrict(label: Label, shape: Shape) -> Label:
    """Return a label of a tensor that has size 1 on some of the axes."""
    return tuple(None if axis is None or shape[axis] == 1 else axis for axis in label)


def stored_shape(label: Label, shape: Shape) -> Shape:
    """Return the shape in which a tensor of the source's `shape` is stored."""
    return tuple(1 if axis is None else shape[axis] for axis in label)


def order(label: Label) -> tuple[int, ...]:
    """Return the axes that hold more than one value, in the order in which they are stored."""
    return tuple(axis for axis in label if axis is not None)


def after_transpose(label: Label, permutation: Sequence[int] | None) -> Label:
    """Return what a stored tensor's label is called by the reader of its transpose."""
    if permutation is None:
        return label
    places = {axis: place for place, axis in enumerate(permutation)}
    return tuple(None if axis is None else places[axis] for axis in label)


def before_transpose(label: Label, permutation: Sequence[int] | None) -> Label:
    """Return the label of a tensor for one of its transpose."""
    if permutation is None:
        return label
    return tuple(None if axis is None else permutation[axis] for axis in label)


def complete(label: Label, shape: Shape) -> Label | None:
    """Put the axes of `shape` that a label lacks in the place of its axes of size 1, in order.

    Returns None where there are not as many places as axes.
    """
    missing = [axis for axis in range(len(shape)) if axis not in label]
    if all(shape[axis] == 1 for axis in missing):
        return label
    if label.count(None) != len(missing):
        return None
    left = iter(missing)
    return restrict(tuple(next(left) if axis is None else axis for axis in label), shape)


def conversion_cost(stored: Label, wanted: Label, shape: Shape) -> int:
    """Return the cost of bringing a tensor from one label to another."""
    if stored == wanted:
        return 0
    if order(stored) == order(wanted):
        return RESHAPE_COST
    cost = TRANSPOSE_COST + prod(shape)
    return cost if len(stored) == len(wanted) else cost + RESHAPE_COST


def permutation_between(stored: Label, wanted: Label) -> tuple[int, ...]:
    """Return the transpose that makes one label of another of as many axes."""
    ones = iter(place for place, axis in enumerate(stored) if axis is None)
    return tuple(next(ones) if axis is None else stored.index(axis) for axis in wanted)


def reshape_groups(before: Shape, after: Shape) -> tuple[Group, ...]:
    """Return which axes become which in a reshape, in order; those of size 1 are left out."""
    left = [axis for axis, size in enumerate(before) if size != 1]
    right = [axis for axis, size in enumerate(after) if size != 1]
    groups: list[Group] = []
    while left or right:
        ours, theirs = [left.pop(0)], [right.pop(0)]
        while (a := prod(before[i] for i in ours)) != (b := prod(after[i] for i in theirs)):
            if a < b:
                ours.append(left.pop(0))
            else:
                theirs.append(right.pop(0))
        groups.append((tuple(ours), tuple(theirs)))
    return tuple(groups)


def regrouped(label: Label, groups: Sequence[Group], side: int) -> Label:
    """Return a label with the axes of every group together, where the first of them is.

    `side` is as of `whole_groups`, for which it then has whole ones.
    """
    group_of = {axis: group[side] for group in groups for axis in group[side]}
    found: list[int | None] = []
    for axis in label:
        if axis is None:
            found.append(None)
        elif axis not in found:
            found.extend(group_of[axis])
    return tuple(found)


def whole_groups(axes: Sequence[int], groups: Sequence[Group], side: int) -> list[Group] | None:
    """Cut stored axes into whole groups; None where the axes of one do not lie together.

    `side` is 0 for axes of what is reshaped, 1 for axes of the result.
    """
    starts = {group[side][0]: group for group in groups}
    found, place = [], 0
    while place < len(axes):
        group = starts.get(axes[place])
        if group is None or tuple(axes[place : place + len(group[side])]) != group[side]:
            return None
        found.append(group)
        place += len(group[side])
    return found
