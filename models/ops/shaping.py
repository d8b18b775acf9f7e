"""Ops that move values and compute nothing, or next to nothing."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from models.ops.api import (
    INTEGERS,
    Array,
    Named,
    OpKind,
    check_axes,
    first_dtype,
    map_shape,
    one_dtype,
)
from models.ops.resizing import ROWS as RESIZING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.graph import Op
    from models.ops.api import Dtypes, Shape, Shapes
    from models.window import Pair


@dataclass(frozen=True, slots=True)
class Reshape(Named):
    """Of another shape for the same values."""

    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Transpose(Named):
    """Of axes in another order: output axis i is input axis permutation[i]."""

    permutation: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Concat(Named):
    """Of tensors put together along an axis."""

    axis: int


@dataclass(frozen=True, slots=True)
class Slice(Named):
    """Of a part: begin, end and step of each axis, as in Python; none negative."""

    begin: tuple[int, ...]
    end: tuple[int, ...]
    step: tuple[int, ...]


PAD_MODES = {"constant": "constant", "reflect": "reflect", "symmetric": "symmetric", "edge": "edge"}


@dataclass(frozen=True, slots=True)
class Pad(Named):
    """Of margins (before, after) on each axis; `mode` is numpy's, `value` of constant ones."""

    margins: tuple[Pair, ...]
    value: float = 0.0
    mode: str = "constant"


@dataclass(frozen=True, slots=True)
class Gather(Named):
    """Of the entries of the first tensor along `axis` that the second names."""

    axis: int


@dataclass(frozen=True, slots=True)
class Tile(Named):
    """Of repetitions of each axis."""

    repeats: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DepthToSpace(Named):
    """Of channels laid out as blocks of positions.

    `order` is ONNX's: DCR takes rows and columns before channels out of the channel axis, as
    TensorFlow does; CRD channels first, as torch does.
    """

    block: int
    order: str = "DCR"


@dataclass(frozen=True, slots=True)
class SpaceToDepth(Named):
    """Of blocks of positions laid out as channels, rows and columns before channels."""

    block: int


def _reshape_shape(shapes: Shapes, reshape: Reshape) -> Shape:
    if prod(shapes[0]) != prod(reshape.shape):
        raise ValueError(f"makes {shapes[0]} into {reshape.shape}, which holds another number")
    return reshape.shape


def _transpose_shape(shapes: Shapes, transpose: Transpose) -> Shape:
    if sorted(transpose.permutation) != list(range(len(shapes[0]))):
        raise ValueError(f"puts the axes of {shapes[0]} into the order {transpose.permutation}")
    return tuple(shapes[0][axis] for axis in transpose.permutation)


def _concat_shape(shapes: Shapes, concat: Concat) -> Shape:
    check_axes(shapes, concat.axis)
    first, axis = shapes[0], concat.axis
    rests = {(len(shape), shape[:axis], shape[axis + 1 :]) for shape in shapes}
    if len(rests) > 1:
        raise ValueError(f"puts {', '.join(map(str, shapes))} together along axis {axis}")
    return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])


def _slice_shape(shapes: Shapes, part: Slice) -> Shape:
    numbers = (part.begin, part.end, part.step)
    whole = all(len(each) == len(shapes[0]) for each in numbers)
    if not whole or min((*part.begin, *part.end), default=0) < 0 or min(part.step, default=1) < 1:
        raise ValueError(f"takes {numbers} of {shapes[0]}; needs begin, end >= 0 and step >= 1")
    return tuple(
        len(range(size)[begin:end:step])
        for size, begin, end, step in zip(shapes[0], *numbers, strict=True)
    )


def _pad_shape(shapes: Shapes, pad: Pad) -> Shape:
    if pad.mode not in PAD_MODES:
        raise ValueError(f"pads by {pad.mode!r}; known: {', '.join(PAD_MODES)}")
    sides = [side for margin in pad.margins for side in margin]
    if len(pad.margins) != len(shapes[0]) or min(sides, default=0) < 0:
        raise ValueError(f"pads {shapes[0]} by {pad.margins}")
    for size, margin in zip(shapes[0], pad.margins, strict=True):
        if max(margin) > {"reflect": size - 1, "symmetric": size}.get(pad.mode, max(margin)):
            raise ValueError(f"pads {shapes[0]} by {pad.margins}, more than {pad.mode} can fill")
    return tuple(
        size + before + after for size, (before, after) in zip(shapes[0], pad.margins, strict=True)
    )


def _gather_shape(shapes: Shapes, gather: Gather) -> Shape:
    check_axes(shapes, gather.axis)
    data, indices = shapes
    return (*data[: gather.axis], *indices, *data[gather.axis + 1 :])


def _gather_dtype(dtypes: Dtypes, _: Gather) -> str:
    if dtypes[1] not in INTEGERS:
        raise ValueError(f"looks entries up by {dtypes[1]}; known: {', '.join(INTEGERS)}")
    return dtypes[0]


def _tile_shape(shapes: Shapes, tile: Tile) -> Shape:
    if len(tile.repeats) != len(shapes[0]) or min(tile.repeats, default=1) < 1:
        raise ValueError(f"repeats {shapes[0]} {tile.repeats} times")
    return tuple(size * times for size, times in zip(shapes[0], tile.repeats, strict=True))


def _depthtospace_shape(shapes: Shapes, attributes: DepthToSpace) -> Shape:
    height, width, channels = map_shape(shapes)
    block = attributes.block
    if attributes.order not in ("DCR", "CRD"):
        raise ValueError(f"has the order {attributes.order!r}; known: DCR, CRD")
    if block < 1 or channels % (block * block):
        raise ValueError(f"makes blocks of {block}x{block} of {channels} channels")
    return shapes[0][0], height * block, width * block, channels // (block * block)


def _spacetodepth_shape(shapes: Shapes, attributes: SpaceToDepth) -> Shape:
    height, width, channels = map_shape(shapes)
    block = attributes.block
    if block < 1 or height % block or width % block:
        raise ValueError(f"cuts a {height}x{width} map into blocks of {block}x{block}")
    return shapes[0][0], height // block, width // block, channels * block * block


def _reshape(op: Op, arrays: Sequence[Array]) -> Array:
    shape = op.out_shape
    if _reshape_keeps_batch(op):
        shape = (len(arrays[0]), *shape[1:])
    return arrays[0].reshape(shape)


def _reshape_keeps_batch(op: Op) -> bool:
    return op.in_shapes[0][:1] == op.out_shape[:1] == (1,)


def _concat(op: Op, arrays: Sequence[Array]) -> Array:
    axis = op.attributes.axis
    if axis:  # a constant stands beside each sample
        batch = max(len(array) for array in arrays)
        arrays = [np.broadcast_to(array, (batch, *array.shape[1:])) for array in arrays]
    return np.concatenate(arrays, axis)


def _slice(op: Op, arrays: Sequence[Array]) -> Array:
    part: Slice = op.attributes
    places = [slice(*each) for each in zip(part.begin, part.end, part.step, strict=True)]
    if _slice_keeps_batch(op):
        places[0] = slice(None)
    return arrays[0][tuple(places)]


def _slice_keeps_batch(op: Op) -> bool:
    return op.in_shapes[0][:1] == op.out_shape[:1] == (1,)


def _pad(op: Op, arrays: Sequence[Array]) -> Array:
    pad: Pad = op.attributes
    if pad.mode == "constant":
        value = arrays[0].dtype.type(pad.value)
        return np.pad(arrays[0], pad.margins, constant_values=value)
    modes: dict[str, object] = {"mode": PAD_MODES[pad.mode]}
    return np.pad(arrays[0], pad.margins, **modes)  # type: ignore[call-overload,no-any-return]


def _gather(op: Op, arrays: Sequence[Array]) -> Array:
    return np.take(arrays[0], arrays[1], axis=op.attributes.axis)


def _gather_keeps_batch(op: Op) -> bool:
    """One of both is the same for all samples."""
    data, indices = (name in op.constants for name in op.inputs)
    return (indices and not data and op.attributes.axis > 0) or (
        data and not indices and op.attributes.axis == 0
    )


def _depthtospace(op: Op, arrays: Sequence[Array]) -> Array:
    (x,) = arrays
    batch, height, width, channels = x.shape
    block, out = op.attributes.block, channels // op.attributes.block**2
    if op.attributes.order == "DCR":
        parts = x.reshape(batch, height, width, block, block, out).transpose(0, 1, 3, 2, 4, 5)
    else:
        parts = x.reshape(batch, height, width, out, block, block).transpose(0, 1, 4, 2, 5, 3)
    return parts.reshape(batch, height * block, width * block, out)


def _spacetodepth(op: Op, arrays: Sequence[Array]) -> Array:
    (x,) = arrays
    batch, height, width, channels = x.shape
    block = op.attributes.block
    parts = x.reshape(batch, height // block, block, width // block, block, channels)
    _, rows, columns, depth = op.out_shape
    return parts.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, columns, depth)


ROWS: Mapping[str, OpKind] = {
    "reshape": OpKind(
        shape=_reshape_shape,
        reference=_reshape,
        dtype=first_dtype,
        attributes=Reshape,
        keeps_batch=_reshape_keeps_batch,
        keeps_scale=True,
        keeps_range=True,
    ),
    "transpose": OpKind(
        shape=_transpose_shape,
        reference=lambda op, arrays: arrays[0].transpose(op.attributes.permutation),
        dtype=first_dtype,
        attributes=Transpose,
        keeps_batch=lambda op: op.attributes.permutation[:1] == (0,),
        keeps_scale=True,
        keeps_range=True,
    ),
    "concat": OpKind(
        shape=_concat_shape,
        reference=_concat,
        dtype=one_dtype,
        attributes=Concat,
        inputs=None,
        keeps_batch=lambda op: op.attributes.axis != 0,
        shares_scale=True,
        keeps_range=True,
    ),
    "slice": OpKind(
        shape=_slice_shape,
        reference=_slice,
        dtype=first_dtype,
        attributes=Slice,
        keeps_batch=_slice_keeps_batch,
        keeps_scale=True,
        keeps_range=True,
    ),
    "pad": OpKind(
        shape=_pad_shape,
        reference=_pad,
        dtype=first_dtype,
        attributes=Pad,
        keeps_batch=lambda op: op.attributes.margins[:1] == ((0, 0),),
        keeps_scale=True,
        keeps_range=True,
    ),
    "gather": OpKind(
        shape=_gather_shape,
        reference=_gather,
        dtype=_gather_dtype,
        attributes=Gather,
        inputs=2,
        keeps_batch=_gather_keeps_batch,
        keeps_scale=True,
        keeps_range=True,
    ),
    "tile": OpKind(
        shape=_tile_shape,
        reference=lambda op, arrays: np.tile(arrays[0], op.attributes.repeats),
        dtype=first_dtype,
        attributes=Tile,
        keeps_batch=lambda op: op.attributes.repeats[:1] == (1,),
        keeps_scale=True,
        keeps_range=True,
    ),
    "depthtospace": OpKind(
        shape=_depthtospace_shape,
        reference=_depthtospace,
        attributes=DepthToSpace,
        keeps_scale=True,
        keeps_range=True,
    ),
    "spacetodepth": OpKind(
        shape=_spacetodepth_shape,
        reference=_spacetodepth,
        attributes=SpaceToDepth,
        keeps_scale=True,
        keeps_range=True,
    ),
    **RESIZING,
}
