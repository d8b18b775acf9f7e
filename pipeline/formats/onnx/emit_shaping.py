"""How ONNX says ops that move values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.formats.onnx.axes import CHANNELS_FIRST, as_it_is

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.graph import Op
    from models.ops import Concat, DepthToSpace, Gather, Pad, Resize, Slice, SpaceToDepth, Tile
    from pipeline.formats.onnx.axes import Axes
    from pipeline.formats.onnx.places import Made, Place
    from pipeline.formats.onnx.write import Writer

_FIRST = CHANNELS_FIRST[4]


def _reshape(writer: Writer, op: Op) -> Made | Place:
    return writer.viewed(op, writer.place(op).reshape(op.out_shape))


def _transpose(writer: Writer, op: Op) -> Made | Place:
    return writer.viewed(op, writer.place(op).transpose(op.attributes.permutation))


def _concat(writer: Writer, op: Op) -> Made:
    concat: Concat = op.attributes
    axes = writer.common_axes(op)
    inputs = writer.operands(op, axes)
    value = writer.file.node("Concat", inputs, op.name, axis=axes.index(concat.axis))
    return writer.aligned(op, value, axes)


def _slice(writer: Writer, op: Op) -> Made:
    part: Slice = op.attributes
    axes, file = writer.common_axes(op), writer.file
    (source,) = writer.operands(op, axes)
    each = [
        (begin, min(end, size), place, step)
        for place, (begin, end, step, size) in enumerate(
            (part.begin[axis], part.end[axis], part.step[axis], op.in_shapes[0][axis])
            for axis in axes
        )
        if (begin, min(end, size), step) != (0, size, 1)
    ]
    if not each:
        return writer.aligned(op, file.node("Identity", [source], op.name), axes)
    numbers = [file.integers(*column) for column in zip(*each, strict=True)]
    return writer.aligned(op, file.node("Slice", [source, *numbers], op.name), axes)


def _pad(writer: Writer, op: Op) -> Made:
    pad: Pad = op.attributes
    axes, file = writer.common_axes(op), writer.file
    (source,) = writer.operands(op, axes)
    margins = [pad.margins[axis] for axis in axes]
    if pad.mode == "symmetric":
        return writer.aligned(op, _mirror(writer, op, source, axes), axes)
    sides = file.integers(*(before for before, _ in margins), *(after for _, after in margins))
    inputs = [source, sides]
    if pad.mode == "constant":
        if pad.value or op.out_dtype == "bool":
            inputs.append(file.number(pad.value, op.out_dtype))
        return writer.aligned(op, file.node("Pad", inputs, op.name), axes)
    return writer.aligned(op, file.node("Pad", inputs, op.name, mode=pad.mode), axes)


def _mirror(writer: Writer, op: Op, source: str, axes: Axes) -> str:
    """Pad with what lies inside, the edge included, which ONNX has no mode for."""
    pad: Pad = op.attributes
    long = [place for place, axis in enumerate(axes) if any(pad.margins[axis])]
    if not long:
        return writer.file.node("Identity", [source], op.name)
    for place in long:
        axis = axes[place]
        order = np.pad(np.arange(op.in_shapes[0][axis]), pad.margins[axis], mode="symmetric")
        name = op.name if place == long[-1] else f"{op.name}.axis{place}"
        order_name = writer.file.integers(*order.tolist())
        source = writer.file.node("Gather", [source, order_name], name, axis=place)
    return source


def _gather(writer: Writer, op: Op) -> Made:
    gather: Gather = op.attributes
    place, axis, rank = writer.place(op), gather.axis, len(op.in_shapes[1])
    orders = (*place.orders, as_it_is(len(op.in_shapes[0])))
    axes = as_it_is(len(op.in_shapes[0])) if op.inputs[0] in op.constants else orders[0]
    data = writer.operand(op, axes)
    indices = writer.operand(op, as_it_is(rank), 1)
    value = writer.file.node("Gather", [data, indices], op.name, axis=axes.index(axis))
    given: list[int] = []
    for each in axes:
        if each == axis:
            given += range(axis, axis + rank)
        else:
            given.append(each if each < axis else each + rank - 1)
    return writer.aligned(op, value, tuple(given))


def _tile(writer: Writer, op: Op) -> Made:
    tile: Tile = op.attributes
    axes = writer.common_axes(op)
    repeats = writer.file.integers(*(tile.repeats[axis] for axis in axes))
    value = writer.file.node("Tile", [*writer.operands(op, axes), repeats], op.name)
    return writer.aligned(op, value, axes)


def _resize(writer: Writer, op: Op) -> Made:
    resize: Resize = op.attributes
    batch, _, _, channels = op.out_shape
    attributes = {
        "mode": {"nearest": "nearest", "bilinear": "linear"}[resize.mode],
        "coordinate_transformation_mode": resize.coordinates,
    }
    if resize.mode == "nearest":
        rounding = {"prefer_floor": "round_prefer_floor", "prefer_ceil": "round_prefer_ceil"}
        attributes["nearest_mode"] = rounding.get(resize.rounding, resize.rounding)
    inputs = [writer.operand(op, _FIRST), "", ""]
    inputs.append(writer.file.integers(batch, channels, *resize.size))
    return writer.aligned(op, writer.file.node("Resize", inputs, op.name, **attributes), _FIRST)


def _depthtospace(writer: Writer, op: Op) -> Made:
    blocks: DepthToSpace = op.attributes
    value = writer.file.node(
        "DepthToSpace",
        [writer.operand(op, _FIRST)],
        op.name,
        blocksize=blocks.block,
        mode=blocks.order,
    )
    return writer.aligned(op, value, _FIRST)


def _spacetodepth(writer: Writer, op: Op) -> Made:
    blocks: SpaceToDepth = op.attributes
    inputs = [writer.operand(op, _FIRST)]
    value = writer.file.node("SpaceToDepth", inputs, op.name, blocksize=blocks.block)
    return writer.aligned(op, value, _FIRST)


EMITTERS: Mapping[str, Callable[[Writer, Op], Made | Place]] = {
    "reshape": _reshape,
    "transpose": _transpose,
    "concat": _concat,
    "slice": _slice,
    "pad": _pad,
    "gather": _gather,
    "tile": _tile,
    "resize": _resize,
    "depthtospace": _depthtospace,
    "spacetodepth": _spacetodepth,
}
