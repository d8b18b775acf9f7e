"""In which order a file holds the values of a tensor: the arithmetic of layouts.

The graph's channels are last, ONNX's convolutions want them first; reshapes and transpositions of
the graph move nothing as long as whoever reads them can name the order. So an order is written
down as digits: the values of a tensor are numbered in the order of some reference, and a file
that holds them as digits ((size, stride), …), outermost first, has at place (d0, d1, …) the value
d0 * stride0 + d1 * stride1 + … of the reference. Of (1, H, W, C) channels first they are
((C, 1), (H * W, C)).
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

Digit = tuple[int, int]
Digits = tuple[Digit, ...]
Axes = tuple[int, ...]
"""A permutation: axis i of a file is axis `axes[i]` of the graph."""

CHANNELS_FIRST: dict[int, Axes] = {3: (0, 2, 1), 4: (0, 3, 1, 2)}
"""By rank, of what the graph holds as (batch, …, channels)."""


def user_axes(layout: str, rank: int) -> Axes:
    """Return the order of axes of an input or output in the layout that its user has it in."""
    return CHANNELS_FIRST[rank] if layout == {3: "NCL", 4: "NCHW"}.get(rank) else as_it_is(rank)


def as_it_is(rank: int) -> Axes:
    """Return the graph's own order of axes."""
    return tuple(range(rank))


def whole(size: int) -> Digits:
    """Return the digits of the reference's own order."""
    return ((size, 1),) if size > 1 else ()


def join_digits(digits: Sequence[Digit]) -> Digits:
    """Return the only form of digits that has as few as can be: equal orders are equal then."""
    found: list[Digit] = []
    for size, stride in digits:
        if size == 1:
            continue
        if found and found[-1][1] == size * stride:
            found[-1] = (found[-1][0] * size, stride)
        else:
            found.append((size, stride))
    return tuple(found)


def places_of(digits: Digits) -> npt.NDArray[np.intp]:
    """Return where in the reference's order each value of a file is, in the file's order."""
    places = np.zeros(1, np.intp)
    for size, stride in digits:
        places = (places[:, None] + np.arange(size) * stride).ravel()
    return places


def split_digits(digits: Digits, shape: Sequence[int]) -> list[Digits] | None:
    """Cut digits into a group for each axis of a shape; None where an axis ends within one."""
    left = list(reversed(digits))
    groups: list[Digits] = []
    for axis_size in shape:
        group, needed = [], axis_size
        while needed > 1:
            size, stride = left.pop()
            if size <= needed and needed % size == 0:
                group.append((size, stride))
                needed //= size
            elif size % needed == 0:
                inner = size // needed
                group.append((needed, stride * inner))
                left.append((inner, stride))
                needed = 1
            else:
                return None
        groups.append(tuple(group))
    return groups


def turn_digits(digits: Digits, shape: Sequence[int], axes: Axes) -> Digits | None:
    """Return the digits of a tensor whose axes are put into another order.

    Args:
        digits: of the tensor's values in the order of its own axes.
        shape: of the tensor.
        axes: the order.

    Returns:
        None where an axis ends within a digit: then the values must be moved first.
    """
    groups = split_digits(digits, shape)
    if groups is None:
        return None
    return join_digits([digit for axis in axes for digit in groups[axis]])


def find_axes(held: Digits, digits: Digits, shape: Sequence[int]) -> Axes | None:
    """Return in which order of a tensor's axes a file holds it; None if in none.

    Args:
        held: the file's digits.
        digits: of the tensor's values in the order of its own axes.
        shape: of the tensor.
    """
    rank = len(shape)
    usual = [as_it_is(rank), *([CHANNELS_FIRST[rank]] if rank in CHANNELS_FIRST else [])]
    for axes in usual:
        if turn_digits(digits, shape, axes) == held:
            return axes
    groups = split_digits(digits, shape)
    if groups is None:
        return None
    firsts = {group[0]: axis for axis, group in enumerate(groups) if group}
    found: list[int] = []
    for size, stride in held:
        # Cut the file's digit into whole axes, outermost first.
        inner = size
        while inner > 1:
            ends = [
                (digit, axis)
                for digit, axis in firsts.items()
                if digit[0] * digit[1] == inner * stride and axis not in found
            ]
            if not ends:
                return None
            axis = ends[0][1]
            found.append(axis)
            inner //= prod(count for count, _ in groups[axis])
    long = iter(found)
    axes = tuple(next(long, axis) if groups[axis] else axis for axis in range(rank))
    whole_order = sorted(axes) == list(range(rank))
    return axes if whole_order and turn_digits(digits, shape, axes) == held else None


def refine_digits(first: Digits, second: Digits) -> tuple[Digits, Axes] | None:
    """Cut two orders of the same values into the same digits.

    Returns:
        The finer digits of the first, and how they are permuted into the second; None where the
        digits of one end within those of the other.
    """
    ends = {stride for _, stride in (*first, *second)}
    cut = _cut(first, ends), _cut(second, ends)
    if cut[0] is None or cut[1] is None or sorted(cut[0]) != sorted(cut[1]):
        return None
    places = {digit: place for place, digit in enumerate(cut[0])}
    return cut[0], tuple(places[digit] for digit in cut[1])


def _cut(digits: Digits, ends: set[int]) -> Digits | None:
    found: list[Digit] = []
    for size, stride in digits:
        inside = sorted(end for end in ends if stride < end < size * stride)
        outer = size * stride
        for end in reversed(inside):
            if outer % end or end % stride:
                return None
            found.append((outer // end, end))
            outer = end
        found.append((outer // stride, stride))
    return tuple(found)
