"""Parts of a tensor in a TFLite file: slices, splits, and phases of a map beside each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from models.ops import Gather, Pad, Reshape, Slice, Transpose
from pipeline.formats.tflite.read_layers import CONVOLUTIONS, Apart, Around, add_conv
from pipeline.formats.tflite.read_shaping import axis_of, turn, turned_order
from pipeline.formats.tflite.values import UnknownError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from models.ops import Shape
    from models.window import Pair
    from pipeline.formats.tflite.file import FileOp
    from pipeline.formats.tflite.reading import Reading

_LARGEST_RANK = 16
_MASKS = ("begin", "end", "ellipsis", "new_axis", "shrink_axis")


def _slice(reading: Reading, op: FileOp) -> None:
    shape = reading.shape(reading.input_of(op))
    begin, size = reading.ints(op, 1, "begin"), reading.ints(op, 2, "size")
    if not len(begin) == len(size) == len(shape) or min(begin, default=0) < 0:
        raise UnknownError(f"takes {size} from {begin} of {shape}")
    end = tuple(
        whole if length == -1 else first + length
        for whole, first, length in zip(shape, begin, size, strict=True)
    )
    part = Slice(begin, end, (1,) * len(shape))
    reading.emit(op, "slice", [reading.name(reading.input_of(op))], part)


@dataclass(slots=True)
class _Parts:
    """Slices of a tensor's axes, from the first on, and the shape of what they give."""

    shape: Shape
    slices: list[slice] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)

    def add(self, part: slice, *, dropped: bool = False) -> None:
        """Take a part of the next axis, which goes if it is `dropped`."""
        if len(self.slices) >= len(self.shape):
            raise UnknownError(f"names more axes than {self.shape} has")
        self.slices.append(part)
        if not dropped:
            self.kept.append(len(range(*part.indices(self.shape[len(self.slices) - 1]))))

    def add_whole(self, count: int) -> None:
        """Take the next axes as they are."""
        for _ in range(count):
            self.add(slice(None))


def _strided_slice(reading: Reading, op: FileOp) -> None:
    """Read masks and negative numbers as Python's slices mean them."""
    source = reading.input_of(op)
    begins, ends, steps = (
        reading.ints(op, place, what) for place, what in ((1, "begin"), (2, "end"), (3, "step"))
    )
    if not len(begins) == len(ends) == len(steps) <= _LARGEST_RANK or 0 in steps:
        raise UnknownError(f"takes from {begins} to {ends} by {steps}")
    if op.option("offset"):
        ends = tuple(first + last for first, last in zip(begins, ends, strict=True))
    masks = {name: op.option(f"{name}_mask") for name in _MASKS}
    parts = _Parts(reading.shape(source))
    # A number of the mask names each place: its bits, from the lowest.
    named = sum(not (masks["new_axis"] | masks["ellipsis"]) >> n & 1 for n in range(len(steps)))
    for place, (first, last, step) in enumerate(zip(begins, ends, steps, strict=True)):
        masked = {name for name in _MASKS if masks[name] >> place & 1}
        if "ellipsis" in masked:
            parts.add_whole(len(parts.shape) - named)
        elif "new_axis" in masked:
            parts.kept.append(1)
        elif "shrink_axis" in masked:
            parts.add(slice(first, None if first == -1 else first + 1), dropped=True)
        else:
            begin = None if "begin" in masked else first
            parts.add(slice(begin, None if "end" in masked else last, step))
    parts.add_whole(len(parts.shape) - len(parts.slices))
    _take(reading, op, source, parts.slices, tuple(parts.kept))


def _take(reading: Reading, op: FileOp, source: int, parts: Sequence[slice], kept: Shape) -> None:
    """Add slices of all axes, turned round where a step is negative, in the shape `kept`."""
    shape, value = reading.shape(source), reading.value(source)
    if value is not None:
        reading.know(op.outputs[0], value[tuple(parts)].reshape(kept))
        return
    ranges = [range(*part.indices(size)) for part, size in zip(parts, shape, strict=True)]
    if any(len(places) == 0 for places in ranges):
        raise UnknownError(f"takes nothing of {shape}")
    back = [axis for axis, places in enumerate(ranges) if places.step < 0 and len(places) > 1]
    ranges = [places if places.step > 0 else places[::-1] for places in ranges]
    sliced = tuple(map(len, ranges))
    part = Slice(
        tuple(places.start for places in ranges),
        tuple(places[-1] + 1 for places in ranges),
        tuple(places.step for places in ranges),
    )
    name = reading.name(source)
    if not back and kept == sliced:
        reading.emit(op, "slice", [name], part)
        return
    if sliced != shape:
        name = reading.step(op, "part", "slice", [name], part, like=source)
    if kept == sliced:
        turn(reading, op, name, back)
        return
    for axis in back:
        order = turned_order(reading, op, sliced[axis])
        name = reading.step(op, f"turned{axis}", "gather", [name, order], Gather(axis), like=source)
    reading.emit(op, "reshape", [name], Reshape(kept))


def _split(reading: Reading, op: FileOp) -> None:
    by_size = op.kind == "SPLIT_V"
    source = reading.input_of(op, 0 if by_size else 1)
    shape = reading.shape(source)
    (axis,) = reading.ints(op, 2 if by_size else 0, "axis") or (0,)
    axis = axis_of(axis, len(shape))
    count = len(op.outputs)
    sizes = reading.ints(op, 1, "sizes") if by_size else (shape[axis] // max(count, 1),) * count
    if sizes.count(-1) == 1:
        rest = shape[axis] - sum(size for size in sizes if size != -1)
        sizes = tuple(rest if size == -1 else size for size in sizes)
    if len(sizes) != count or sum(sizes) != shape[axis] or min(sizes, default=0) < 0:
        raise UnknownError(f"cuts {shape} along axis {axis} into {count} parts of {sizes}")
    value, ends = reading.value(source), np.cumsum(sizes)
    for place, (size, end) in enumerate(zip(sizes, ends, strict=True)):
        if value is None:
            part = _one(shape, axis, int(end) - size, int(end))
            reading.emit(op, "slice", [reading.name(source)], part, output=place)
        else:  # a part of a shape, which may be empty
            places = np.arange(end - size, end)
            reading.know(op.outputs[place], np.take(value, places, axis))


def _unpack(reading: Reading, op: FileOp) -> None:
    source = reading.input_of(op)
    shape = reading.shape(source)
    axis = axis_of(op.option("axis"), len(shape))
    if len(op.outputs) != shape[axis]:
        raise UnknownError(f"cuts {shape} along axis {axis} into {len(op.outputs)}")
    row = (*shape[:axis], *shape[axis + 1 :])
    for place in range(shape[axis]):
        part = _one(shape, axis, place, place + 1)
        name = reading.name(source)
        if shape[axis] > 1:
            name = reading.step(op, f"part{place}", "slice", [name], part, like=source)
        reading.emit(op, "reshape", [name], Reshape(row), output=place)


def _one(shape: Shape, axis: int, begin: int, end: int) -> Slice:
    """Return the slice of one axis, whole along all others."""
    return Slice(
        tuple(begin if n == axis else 0 for n in range(len(shape))),
        tuple(end if n == axis else size for n, size in enumerate(shape)),
        (1,) * len(shape),
    )


def _to_batch(reading: Reading, op: FileOp) -> None:
    """Read SPACE_TO_BATCH_ND: with the layer on the phases and what joins them, one dilation."""
    source = reading.input_of(op)
    shape, block, margins = _phases(reading, op, reading.shape(source))
    if _is_dilation(reading, op, block, margins):
        padding = (*margins[0], *margins[1])
        reading.skipped[op.outputs[0]] = Around(source, padding, (block[0], block[1]))
        return
    axes = len(block)
    name = reading.name(source)
    if any(map(any, margins)):
        edges = ((0, 0), *margins, *((0, 0),) * (len(shape) - 1 - axes))
        name = reading.step(op, "pad", "pad", [name], Pad(edges), like=source)
    batch, *padded = reading.builder.shapes[name]
    if any(size % n for size, n in zip(padded, block, strict=False)):
        raise UnknownError(f"cuts {padded} into blocks of {block}")
    sizes = [size // n for size, n in zip(padded, block, strict=False)]
    rest = padded[axes:]
    parts = [batch]
    for size, n in zip(sizes, block, strict=True):
        parts += [size, n]
    steps = [2 + 2 * axis for axis in range(axes)]
    order = [*steps, 0, *(place - 1 for place in steps)]
    order += range(1 + 2 * axes, 1 + 2 * axes + len(rest))
    name = _moved(reading, op, name, (*parts, *rest), tuple(order))
    reading.emit(op, "reshape", [name], Reshape((prod(block) * batch, *sizes, *rest)))


def _is_dilation(
    reading: Reading, op: FileOp, block: tuple[int, ...], margins: tuple[Pair, ...]
) -> bool:
    """Tell whether a convolution alone reads the phases, and they alone are joined after it."""
    layer = reading.only_reader(op.outputs[0])
    if layer is None or layer.kind not in CONVOLUTIONS or layer.inputs[0] != op.outputs[0]:
        return False
    joined = reading.only_reader(layer.outputs[0])
    if joined is None or joined.kind != "BATCH_TO_SPACE_ND" or len(block) != 2:
        return False
    shape = reading.shape(reading.input_of(op))
    even = all(
        (size + sum(margin)) % n == 0
        for size, margin, n in zip(shape[1:], margins, block, strict=False)
    )
    return even and reading.ints(joined, 1, "block") == block


def _to_space(reading: Reading, op: FileOp) -> None:
    """Read BATCH_TO_SPACE_ND."""
    source = reading.input_of(op)
    apart = reading.skipped.get(source)
    if isinstance(apart, Apart):
        # Of the layer's phases no shape is known, and none is asked for.
        _, _, crops = _phases(reading, op, (0, 0, 0, 0))
        add_conv(reading, apart.layer, op, apart.around, (*crops[0], *crops[1]))
        return
    shape, block, crops = _phases(reading, op, reading.shape(source))
    axes, count = len(block), prod(block)
    if shape[0] % count:
        raise UnknownError(f"joins {shape} from blocks of {block}")
    rest = shape[1 + axes :]
    order = [axes]
    for axis in range(axes):
        order += [axes + 1 + axis, axis]
    order += range(1 + 2 * axes, 1 + 2 * axes + len(rest))
    parts = (*block, shape[0] // count, *shape[1:])
    name = _moved(reading, op, reading.name(source), parts, tuple(order))
    sizes = [size * n for size, n in zip(shape[1:], block, strict=False)]
    whole = (shape[0] // count, *sizes, *rest)
    if not any(map(any, crops)):
        reading.emit(op, "reshape", [name], Reshape(whole))
        return
    name = reading.step(op, "joined", "reshape", [name], Reshape(whole), like=source)
    begin = (0, *(before for before, _ in crops), *(0 for _ in rest))
    kept = [size - after for size, (_, after) in zip(sizes, crops, strict=True)]
    if min(kept) < 0:
        raise UnknownError(f"cuts {crops} off {whole}")
    part = Slice(begin, (whole[0], *kept, *rest), (1,) * len(whole))
    reading.emit(op, "slice", [name], part)


def _phases(
    reading: Reading, op: FileOp, shape: Shape
) -> tuple[Shape, tuple[int, ...], tuple[Pair, ...]]:
    """Return the shape, the block, and the margins or crops of each axis that has phases."""
    block, table = reading.ints(op, 1, "block"), reading.needed(op, 2, "margins")
    axes = len(block)
    if not 1 <= axes < len(shape) or table.shape != (axes, 2):
        raise UnknownError(f"has margins of shape {table.shape} for blocks of {block} of {shape}")
    if min(block) < 1 or table.min() < 0:
        raise UnknownError(f"has blocks of {block} with margins from {table.min()}")
    return shape, block, tuple((int(before), int(after)) for before, after in table)


def _moved(reading: Reading, op: FileOp, name: str, parts: Shape, order: tuple[int, ...]) -> str:
    """Add a tensor in parts with its axes in another order; return its name."""
    like = reading.input_of(op)
    name = reading.step(op, "parts", "reshape", [name], Reshape(parts), like=like)
    return reading.step(op, "moved", "transpose", [name], Transpose(order), like=like)


SLICING: Mapping[str, Callable[[Reading, FileOp], None]] = {
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "SPLIT": _split,
    "SPLIT_V": _split,
    "UNPACK": _unpack,
    "SPACE_TO_BATCH_ND": _to_batch,
    "BATCH_TO_SPACE_ND": _to_space,
}
