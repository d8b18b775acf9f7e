"""Ops of a TFLite file that move values: other shapes, orders, margins and sizes."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from models.ops import (
    Concat,
    DepthToSpace,
    Gather,
    Pad,
    Reshape,
    Resize,
    SpaceToDepth,
    Tile,
    Transpose,
)
from pipeline.formats.tflite.read_arithmetic import in_scale_of
from pipeline.formats.tflite.read_layers import CONVOLUTIONS, Around
from pipeline.formats.tflite.values import UnknownError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from models.ops import Shape
    from models.window import Pair
    from pipeline.formats.tflite.file import FileOp
    from pipeline.formats.tflite.reading import Reading

_MIRRORS = {0: "reflect", 1: "symmetric"}
_LARGEST_RANK = 16


def axis_of(number: int, rank: int) -> int:
    """Return an axis counted from the front. Raises UnknownError if there is none such."""
    axis = number + rank if number < 0 else number
    if not 0 <= axis < rank:
        raise UnknownError(f"names axis {number} of {rank}")
    return axis


def reshaped(reading: Reading, op: FileOp, shape: Shape) -> None:
    """Add a reshape of an op's first input as its output."""
    value = reading.value(reading.input_of(op))
    if value is not None:  # of shapes, which may be empty
        reading.know(op.outputs[0], value.reshape(shape))
        return
    reading.emit(op, "reshape", [reading.name(reading.input_of(op))], Reshape(shape))


def _reshape(reading: Reading, op: FileOp) -> None:
    source = reading.shape(reading.input_of(op))
    if op.input(1) is not None:
        wanted = reading.ints(op, 1, "shape")
    else:
        wanted = op.list_option("shape")
        # Old files write a number without dimensions so.
        wanted = () if wanted == (0,) else wanted
    fixed = prod(size for size in wanted if size != -1)
    if wanted.count(-1) == 1 and fixed and prod(source) % fixed == 0:
        wanted = tuple(prod(source) // fixed if size == -1 else size for size in wanted)
    reshaped(reading, op, wanted)


def _squeeze(reading: Reading, op: FileOp) -> None:
    source = reading.shape(reading.input_of(op))
    axes = {axis_of(axis, len(source)) for axis in op.list_option("axes")}
    axes = axes or {axis for axis, size in enumerate(source) if size == 1}
    reshaped(reading, op, tuple(n for axis, n in enumerate(source) if axis not in axes))


def _expand_dims(reading: Reading, op: FileOp) -> None:
    source = reading.shape(reading.input_of(op))
    (axis,) = reading.ints(op, 1, "axis") or (0,)
    axis = axis_of(axis, len(source) + 1)
    reshaped(reading, op, (*source[:axis], 1, *source[axis:]))


def _transpose(reading: Reading, op: FileOp) -> None:
    order = reading.ints(op, 1, "order of axes")
    rank = len(reading.shape(reading.input_of(op)))
    permutation = tuple(axis_of(axis, rank) for axis in order)
    reading.emit(op, "transpose", [reading.name(reading.input_of(op))], Transpose(permutation))


def _concat(reading: Reading, op: FileOp) -> None:
    numbers = [reading.input_of(op, place) for place in range(len(op.inputs))]
    if not numbers:
        raise UnknownError("reads nothing")
    axis = axis_of(op.option("axis"), len(reading.shape(numbers[0])))
    values = reading.all_known(op)
    if values is not None:
        reading.spend_bytes(reading.names[op.outputs[0]], sum(value.nbytes for value in values))
        reading.know(op.outputs[0], np.concatenate(values, axis))
        return
    names = [in_scale_of(reading, op, reading.name(number)) for number in numbers]
    reading.emit(op, "concat", names, Concat(axis), act=reading.activation(op))


def _pack(reading: Reading, op: FileOp) -> None:
    numbers = [reading.input_of(op, place) for place in range(len(op.inputs))]
    if not numbers:
        raise UnknownError("reads nothing")
    shape = reading.shape(numbers[0])
    axis = axis_of(op.option("axis"), len(shape) + 1)
    row = (*shape[:axis], 1, *shape[axis:])
    if any(reading.shape(number) != shape for number in numbers):
        raise UnknownError("puts tensors of several shapes together")
    names = [reading.operand(number, row) for number in numbers]
    for name in names:
        reading.check_kept(name, op.outputs[0])
    reading.emit(op, "concat", names, Concat(axis))


def _pad(reading: Reading, op: FileOp) -> None:
    source = reading.input_of(op)
    margins = _margins(reading, op, len(reading.shape(source)))
    if op.kind == "MIRROR_PAD":
        mode = _MIRRORS.get(op.option("mode"))
        if mode is None:
            raise UnknownError(f"pads by mode {op.option('mode')}")
        reading.emit(op, "pad", [reading.name(source)], Pad(margins, mode=mode))
        return
    value = 0.0
    if op.kind == "PADV2":
        value = float(reading.needed(op, 2, "value").reshape(-1)[0])
    if value == 0 and _is_taken_up(reading, op, margins):
        (_, down, across, _) = margins
        reading.skipped[op.outputs[0]] = Around(source, (*down, *across))
        return
    reading.emit(op, "pad", [reading.name(source)], Pad(margins, value))


def _margins(reading: Reading, op: FileOp, rank: int) -> tuple[Pair, ...]:
    table = reading.needed(op, 1, "margins")
    if table.shape != (rank, 2) or table.min(initial=0) < 0:
        raise UnknownError(f"has margins of shape {table.shape} for {rank} axes")
    return tuple((int(before), int(after)) for before, after in table)


def _is_taken_up(reading: Reading, op: FileOp, margins: tuple[Pair, ...]) -> bool:
    """Tell whether the zeros can be the margins of the one convolution that reads them."""
    after = reading.only_reader(op.outputs[0])
    if after is None or after.kind not in CONVOLUTIONS or after.inputs[0] != op.outputs[0]:
        return False
    if reading.scale(op.outputs[0]) != reading.scale(reading.input_of(op)):
        return False
    return len(margins) == 4 and margins[0] == margins[3] == (0, 0)


def _resize(reading: Reading, op: FileOp) -> None:
    size = reading.ints(op, 1, "size")
    if len(size) != 2:
        raise UnknownError(f"makes a map of size {size}")
    corners, half = op.option("align_corners"), op.option("half_pixel")
    if corners and half:
        raise UnknownError("aligns corners and centres at once")
    coordinates = "align_corners" if corners else "half_pixel" if half else "asymmetric"
    mode = "bilinear" if op.kind == "RESIZE_BILINEAR" else "nearest"
    # The half pixel that is added before rounding down makes it the nearest, upwards if in doubt.
    rounding = "floor" if mode == "bilinear" or not (corners or half) else "prefer_ceil"
    attributes = Resize((size[0], size[1]), mode, coordinates, rounding)
    reading.emit(op, "resize", [reading.name(reading.input_of(op))], attributes)


def _gather(reading: Reading, op: FileOp) -> None:
    data, indices = reading.input_of(op), reading.input_of(op, 1)
    axis = 0
    if op.kind == "GATHER":
        if op.option("batch_axes"):
            raise UnknownError(f"looks up in each of {op.option('batch_axes')} axes for itself")
        axis = axis_of(op.option("axis"), len(reading.shape(data)))
    else:
        data, indices = indices, data
    reading.emit(op, "gather", [reading.name(data), reading.name(indices)], Gather(axis))


def _reverse(reading: Reading, op: FileOp) -> None:
    source = reading.input_of(op)
    shape = reading.shape(source)
    axes = [axis_of(axis, len(shape)) for axis in reading.ints(op, 1, "axes")]
    if not axes:
        raise UnknownError("turns no axis round")
    turn(reading, op, reading.name(source), axes)


def turn(reading: Reading, op: FileOp, name: str, axes: Sequence[int]) -> None:
    """Add a tensor with axes turned round as an op's output."""
    shape, like = reading.builder.shapes[name], reading.input_of(op)
    *before, last = axes
    for axis in before:
        order = turned_order(reading, op, shape[axis])
        name = reading.step(op, f"turned{axis}", "gather", [name, order], Gather(axis), like=like)
    reading.emit(op, "gather", [name, turned_order(reading, op, shape[last])], Gather(last))


def turned_order(reading: Reading, op: FileOp, size: int) -> str:
    """Add the places of an axis from the last to the first; return their name."""
    order = reading.unique(f"{reading.names[op.outputs[0]]}.order")
    return reading.constant(order, np.arange(size - 1, -1, -1, dtype=np.int32))


def _tile(reading: Reading, op: FileOp) -> None:
    repeats = reading.ints(op, 1, "number of repetitions")
    reading.emit(op, "tile", [reading.name(reading.input_of(op))], Tile(repeats))


def _broadcast_to(reading: Reading, op: FileOp) -> None:
    wanted = reading.ints(op, 1, "shape")
    source = reading.input_of(op)
    if len(wanted) > _LARGEST_RANK or len(reading.shape(source)) > len(wanted):
        raise UnknownError(f"makes {reading.shape(source)} into {wanted}")
    name = reading.ranked(source, len(wanted))
    shape = reading.builder.shapes[name]
    repeats = tuple(n // max(size, 1) for n, size in zip(wanted, shape, strict=True))
    if any(size not in (1, n) for n, size in zip(wanted, shape, strict=True)):
        raise UnknownError(f"makes {shape} into {wanted}")
    reading.emit(op, "tile", [name], Tile(repeats))


def _space_to_depth(reading: Reading, op: FileOp) -> None:
    block = op.option("block")
    attributes = SpaceToDepth(block) if op.kind == "SPACE_TO_DEPTH" else DepthToSpace(block)
    kind = "spacetodepth" if op.kind == "SPACE_TO_DEPTH" else "depthtospace"
    reading.emit(op, kind, [reading.name(reading.input_of(op))], attributes)


SHAPING: Mapping[str, Callable[[Reading, FileOp], None]] = {
    "RESHAPE": _reshape,
    "SQUEEZE": _squeeze,
    "EXPAND_DIMS": _expand_dims,
    "TRANSPOSE": _transpose,
    "CONCATENATION": _concat,
    "PACK": _pack,
    "PAD": _pad,
    "PADV2": _pad,
    "MIRROR_PAD": _pad,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "GATHER": _gather,
    "EMBEDDING_LOOKUP": _gather,
    "REVERSE_V2": _reverse,
    "TILE": _tile,
    "BROADCAST_TO": _broadcast_to,
    "SPACE_TO_DEPTH": _space_to_depth,
    "DEPTH_TO_SPACE": _space_to_depth,
}
