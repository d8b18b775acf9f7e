"""The windows of convolutions and pools in ONNX's words: padding by name, rounding up, one axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.window import same_margins
from pipeline.formats.onnx.node import Node, UnknownError, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.ops import Shape
    from models.window import Padding, Pair
    from pipeline.formats.onnx.reading import Reading


_AXES = (1, 2)
"""Of a window: of a sequence, of a map."""


def as_map(reading: Reading, x: Value, *, name: str) -> Value:
    """Return a sequence (N, C, L) or a map (N, C, H, W) as a map with channels last.

    Raises:
        UnknownError: it is neither.
    """
    if x.rank not in (3, 4):
        raise UnknownError(f"reads {x.shape}; windows move over sequences and maps here")
    last = reading.channels_last(x, name=name)
    if x.rank == 4:
        return last
    batch, length, channels = last.shape
    return reading.reshape(last, (batch, 1, length, channels), name=f"{name}.map")


def as_before(reading: Reading, made: Value, rank: int, *, name: str) -> Value:
    """Return a map with channels last as the file has it: with as many axes, channels first."""
    if rank == 3:
        batch, _, length, channels = made.shape
        made = reading.reshape(made, (batch, length, channels), name=f"{name}.sequence")
    return reading.channels_first(made, name=name)


def pair(values: Sequence[int], otherwise: int = 1) -> Pair:
    """Return an attribute of each axis as one of a map: that of a sequence goes across."""
    numbers = [int(value) for value in values]
    if len(numbers) not in _AXES:
        raise UnknownError(f"has a window of {len(numbers)} axes; sequences and maps are known")
    down, across = numbers if len(numbers) == 2 else (otherwise, *numbers)
    return down, across


def steps(node: Node, name: str, rank: int) -> Pair:
    """Return strides or dilations, 1 where they are left out."""
    return pair(node.attribute(name) or (1,) * (rank - 2))


def margins(node: Node, x: Value, kernel: Pair, stride: Pair, dilation: Pair) -> Padding:
    """Return the padding of a window (top, bottom, left, right).

    Raises:
        UnknownError: it is negative, or called by a name that is not known.
    """
    auto = node.attribute("auto_pad", "NOTSET")
    if auto == "VALID":
        return 0, 0, 0, 0
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        return same(x.shape, kernel, stride, dilation, upper=auto == "SAME_UPPER")
    if auto not in ("NOTSET", ""):
        raise UnknownError(f"pads by {auto!r}")
    return sides(node.attribute("pads") or (0,) * (2 * (x.rank - 2)))


def sides(pads: Sequence[int]) -> Padding:
    """Return ONNX's pads, all starts before all ends, as (top, bottom, left, right)."""
    half = len(pads) // 2
    (top, left), (bottom, right) = pair(pads[:half], 0), pair(pads[half:], 0)
    if min(top, bottom, left, right) < 0:
        raise UnknownError(f"has the negative padding {tuple(pads)}")
    return top, bottom, left, right


def same(shape: Shape, kernel: Pair, stride: Pair, dilation: Pair, *, upper: bool) -> Padding:
    """Return the padding that gives ceil(size / stride) positions; an odd one is at the end."""
    found: list[int] = []
    lengths = pair(shape[2:])
    for length, size, step, gap in zip(lengths, kernel, stride, dilation, strict=True):
        before, after = same_margins(length, (size - 1) * gap + 1, step)
        found.extend((before, after) if upper else (after, before))
    top, bottom, left, right = found
    return top, bottom, left, right


def rounded_up(length: int, reach: int, step: int, before: int, after: int) -> int:
    """Return what to add at the end for the number of positions to be rounded up.

    A window that would begin in what is added, or in the padding at the end, is left out.
    """
    positions = -(-(length + before + after - reach) // step) + 1
    if (positions - 1) * step >= length + before:
        positions -= 1
    return max((positions - 1) * step + reach - (length + before + after), 0)
