"""How TFLite says ops that move values and compute nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert.schema_py_generated import (
    ActivationFunctionType,
    BuiltinOperator,
    MirrorPadMode,
)

from pipeline.formats.tflite.broadcasting import reshape
from pipeline.formats.tflite.views import block_order, keeps_order, takes_channels_first
from pipeline.formats.tflite.windows import filling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from models.ops import Concat, DepthToSpace, Gather, Pad, Shape, Slice
    from pipeline.formats.tflite.file_builder import Options
    from pipeline.formats.tflite.step import Step


def along_last(step: Step, axis: int, code: int, options: Options) -> None:
    """Emit an operator that works along the last axis, and here along `axis`."""
    (x,), shape = step.inputs(), step.op.in_shapes[0]
    last = len(shape) - 1
    if axis == last:
        step.finish(code, [x], options)
        return
    order = [*(a for a in range(len(shape)) if a != axis), axis]
    turned = tuple(shape[a] for a in order)
    moved = step.temporary("turned", turned, like=x)
    transpose(step, x, order, moved)
    result = step.temporary("result", turned, params=step.params(step.op.name))
    step.emit(code, [moved], result, options)
    transpose(step, result, list(np.argsort(order)), step.output())


def transpose(step: Step, source: int, order: Sequence[int], target: int) -> None:
    """Emit a transposition between two tensors, as a RESHAPE where only axes of 1 move.

    Axes that stay neighbours become one where there are more than kernels know.

    Raises:
        ExportError: even so there are too many.
    """
    shape = step.writer.file.tensors[source].shape
    wide = [axis for axis in order if shape[axis] > 1]
    if wide == sorted(wide):
        result = step.writer.file.tensors[target].shape
        step.emit(BuiltinOperator.RESHAPE, [source, step.ints(result)], target)
        return
    if len(shape) <= _TRANSPOSE_AXES:
        step.emit(BuiltinOperator.TRANSPOSE, [source, step.ints(order)], target)
        return
    runs: list[list[int]] = []
    for axis in wide:
        between = range(runs[-1][-1] + 1, axis) if runs else ()
        if runs and axis > runs[-1][-1] and all(shape[a] == 1 for a in between):
            runs[-1].append(axis)
        else:
            runs.append([axis])
    if len(runs) > _TRANSPOSE_AXES:
        raise step.refuse(f"puts {len(runs)} axes of {shape} into another order")
    there = sorted(runs)
    sizes = tuple(int(np.prod([shape[axis] for axis in run])) for run in there)
    small = reshape(step, source, sizes, "merged")
    places = [there.index(run) for run in runs]
    turned = step.temporary("turned", tuple(sizes[place] for place in places), like=source)
    step.emit(BuiltinOperator.TRANSPOSE, [small, step.ints(places)], turned)
    result = step.writer.file.tensors[target].shape
    step.emit(BuiltinOperator.RESHAPE, [turned, step.ints(result)], target)


_TRANSPOSE_AXES = 6


def _transpose(step: Step) -> None:
    if keeps_order(step.op):
        _reshape(step)
        return
    (x,) = step.inputs()
    transpose(step, x, step.op.attributes.permutation, step.output())


def _reshape(step: Step) -> None:
    (x,) = step.inputs()
    step.finish(BuiltinOperator.RESHAPE, [x, step.ints(step.op.out_shape)])


def _concat(step: Step) -> None:
    concat: Concat = step.op.attributes
    if len(step.op.inputs) == 1:
        _reshape(step)
        return
    options = ("Concatenation", (("Axis", concat.axis),))
    step.finish(BuiltinOperator.CONCATENATION, step.inputs(), options)


_SLICE_AXES = 5


def _slice(step: Step) -> None:
    part: Slice = step.op.attributes
    shape, (x,) = step.op.in_shapes[0], step.inputs()
    numbers = [part.begin, step.op.out_shape, part.step]
    kept, shape = _merged(shape, [a != b for a, b in zip(shape, step.op.out_shape, strict=True)])
    begin, size, by = ([of[axis] if axis >= 0 else 0 for axis in kept] for of in numbers)
    size = [n if axis >= 0 else whole for n, axis, whole in zip(size, kept, shape, strict=True)]
    by = [max(n, 1) for n in by]
    if len(shape) > _SLICE_AXES:
        raise step.refuse(f"takes a part of {step.op.in_shapes[0]} along {len(shape)} axes")
    x = reshape(step, x, shape, "merged")
    strided = any(n > 1 for n in by)
    code = BuiltinOperator.STRIDED_SLICE if strided else BuiltinOperator.SLICE
    ends = [(n - 1) * each + first + 1 for n, each, first in zip(size, by, begin, strict=True)]
    inputs = [x, step.ints(begin), step.ints(ends if strided else size)]
    inputs += [step.ints(by)] if strided else []
    _finish_merged(step, code, inputs, tuple(size), ("StridedSlice" if strided else "Slice", ()))


def _merged(shape: Shape, touched: Sequence[bool]) -> tuple[list[int], Shape]:
    """Return axes and shape with untouched neighbours as one, where there are many axes.

    A merged axis is numbered -1.
    """
    if len(shape) <= _USUAL_AXES:
        return list(range(len(shape))), shape
    axes: list[int] = []
    sizes: list[int] = []
    for axis, (size, own) in enumerate(zip(shape, touched, strict=True)):
        if not own and axes and axes[-1] == -1:
            sizes[-1] *= size
        elif own or size > 1:
            axes.append(axis if own else -1)
            sizes.append(size)
    if not axes:
        return [-1], (1,)
    return axes, tuple(sizes)


_USUAL_AXES = 4


def _finish_merged(
    step: Step, code: int, inputs: Sequence[int], shape: Shape, options: Options
) -> None:
    """Emit an operator whose result has the op's shape when merged axes are told apart."""
    if shape == step.op.out_shape:
        step.finish(code, inputs, options)
        return
    result = step.apply(code, inputs, "result", shape, options)
    step.finish(BuiltinOperator.RESHAPE, [result, step.ints(step.op.out_shape)])


_MIRRORS = {"reflect": MirrorPadMode.REFLECT, "symmetric": MirrorPadMode.SYMMETRIC}
_PAD_AXES = 5


def _pad(step: Step) -> None:
    pad: Pad = step.op.attributes
    (x,) = step.inputs()
    if pad.mode == "edge":
        _pad_by_edges(step, x)
        return
    axes, shape = _merged(step.op.in_shapes[0], [any(margin) for margin in pad.margins])
    margins = [pad.margins[axis] if axis >= 0 else (0, 0) for axis in axes]
    if len(shape) > _PAD_AXES:
        raise step.refuse(f"pads {step.op.in_shapes[0]} along {len(shape)} axes")
    x = reshape(step, x, shape, "merged")
    sides = [side for margin in margins for side in margin]
    table = step.ints(sides, (len(margins), 2))
    whole = tuple(size + sum(margin) for size, margin in zip(shape, margins, strict=True))
    if pad.mode in _MIRRORS:
        mode = ("MirrorPad", (("Mode", _MIRRORS[pad.mode]),))
        _finish_merged(step, BuiltinOperator.MIRROR_PAD, [x, table], whole, mode)
    elif pad.value == 0:
        _finish_merged(step, BuiltinOperator.PAD, [x, table], whole, ("Pad", ()))
    else:
        value = filling(step, pad.value)
        _finish_merged(step, BuiltinOperator.PADV2, [x, table, value], whole, ("PadV2", ()))


def _pad_by_edges(step: Step, x: int) -> None:
    pad: Pad = step.op.attributes
    places: dict[int, Sequence[int]] = {}
    for axis, (size, margin) in enumerate(zip(step.op.in_shapes[0], pad.margins, strict=True)):
        if any(margin):
            places[axis] = np.arange(-margin[0], size + margin[1]).clip(0, size - 1).tolist()
    gather_along(step, x, places)


def gather_along(step: Step, x: int, places: Mapping[int, Sequence[int]]) -> None:
    """Emit, for each axis, the entries at these places of it; the last gives the op's output."""
    shape = step.op.in_shapes[0]
    if not places:
        step.finish(BuiltinOperator.RESHAPE, [x, step.ints(step.op.out_shape)])
        return
    *before, last = places
    for axis in before:
        shape = (*shape[:axis], len(places[axis]), *shape[axis + 1 :])
        inputs, options = [x, step.ints(places[axis])], ("Gather", (("Axis", axis),))
        x = step.apply(BuiltinOperator.GATHER, inputs, f"along{axis}", shape, options)
    options = ("Gather", (("Axis", last),))
    step.finish(BuiltinOperator.GATHER, [x, step.ints(places[last])], options)


def _gather(step: Step) -> None:
    gather: Gather = step.op.attributes
    step.finish(BuiltinOperator.GATHER, step.inputs(), ("Gather", (("Axis", gather.axis),)))


def _tile(step: Step) -> None:
    """Emit repetitions; those of single values as a product with ones, which is delegated."""
    (x,), repeats, shape = step.inputs(), step.op.attributes.repeats, step.op.in_shapes[0]
    single = all(size == 1 for size, times in zip(shape, repeats, strict=True) if times > 1)
    real = step.op.out_dtype == "float32" and not step.integer
    if single and real and len(shape) <= _BROADCAST_AXES:
        ones = step.writer.constant(f"{step.op.name}.ones", np.ones(repeats, np.float32))
        none = (("FusedActivationFunction", ActivationFunctionType.NONE),)
        step.finish(BuiltinOperator.MUL, [x, ones], ("Mul", none))
        return
    step.finish(BuiltinOperator.TILE, [x, step.ints(repeats)])


_BROADCAST_AXES = 6


def _depthtospace(step: Step) -> None:
    attributes: DepthToSpace = step.op.attributes
    (x,), shape, block = step.inputs(), step.op.in_shapes[0], attributes.block
    if block == 1:
        step.finish(BuiltinOperator.RESHAPE, [x, step.ints(shape)])
        return
    if takes_channels_first(step.op) and step.op.inputs[0] not in step.writer.channel_orders:
        order = block_order(step.op).tolist()
        inputs, options = [x, step.ints(order)], ("Gather", (("Axis", 3),))
        x = step.apply(BuiltinOperator.GATHER, inputs, "channels", shape, options)
    step.finish(BuiltinOperator.DEPTH_TO_SPACE, [x], ("DepthToSpace", (("BlockSize", block),)))


def _spacetodepth(step: Step) -> None:
    (x,), block = step.inputs(), step.op.attributes.block
    if block == 1:
        step.finish(BuiltinOperator.RESHAPE, [x, step.ints(step.op.out_shape)])
        return
    step.finish(BuiltinOperator.SPACE_TO_DEPTH, [x], ("SpaceToDepth", (("BlockSize", block),)))


MOVING: Mapping[str, Callable[[Step], None]] = {
    "reshape": _reshape,
    "transpose": _transpose,
    "concat": _concat,
    "slice": _slice,
    "pad": _pad,
    "gather": _gather,
    "tile": _tile,
    "depthtospace": _depthtospace,
    "spacetodepth": _spacetodepth,
}
