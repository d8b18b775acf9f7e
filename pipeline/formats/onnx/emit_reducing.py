"""How ONNX says pools and reductions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper

from pipeline.formats.api import ExportError
from pipeline.formats.onnx.axes import CHANNELS_FIRST, as_it_is
from pipeline.formats.onnx.emit_layers import window_attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.graph import Op
    from models.ops import Arg, AvgPool, Mean, Reduce
    from models.window import Window
    from pipeline.formats.onnx.axes import Axes
    from pipeline.formats.onnx.places import Made, Place
    from pipeline.formats.onnx.write import Writer

_FIRST = CHANNELS_FIRST[4]
_INT32 = helper.np_dtype_to_tensor_dtype(np.dtype("int32"))
_BOOL = helper.np_dtype_to_tensor_dtype(np.dtype("bool"))


def _mean(writer: Writer, op: Op) -> Made:
    mean: Mean = op.attributes
    inputs = [writer.operand(op, _FIRST)]
    if mean.keepdims:
        return writer.aligned(op, writer.file.node("GlobalAveragePool", inputs, op.name), _FIRST)
    value = writer.file.node("ReduceMean", inputs, op.name, axes=[2, 3], keepdims=0)
    return writer.aligned(op, value, as_it_is(2))


def _maxpool(writer: Writer, op: Op) -> Made:
    _check_padding(op, "max")
    window: Window = op.attributes
    inputs = [writer.operand(op, _FIRST)]
    value = writer.file.node("MaxPool", inputs, op.name, **window_attributes(window))
    return writer.aligned(op, value, _FIRST)


def _avgpool(writer: Writer, op: Op) -> Made:
    pool: AvgPool = op.attributes
    if pool.dilation != (1, 1):
        raise ExportError(
            f"op {op.name!r} is an average pool with dilation {pool.dilation}, which ONNX cannot "
            "express in opset 17; it knows (1, 1)"
        )
    _check_padding(op, "average")
    attributes = window_attributes(pool)
    if pool.count_padding:
        attributes["count_include_pad"] = 1
    inputs = [writer.operand(op, _FIRST)]
    return writer.aligned(
        op, writer.file.node("AveragePool", inputs, op.name, **attributes), _FIRST
    )


def _check_padding(op: Op, what: str) -> None:
    (height, width), (top, bottom, left, right) = op.attributes.kernel, op.attributes.padding
    if max(top, bottom) >= height or max(left, right) >= width:
        article = "an" if what == "average" else "a"
        raise ExportError(
            f"op {op.name!r} is {article} {what} pool of {height}x{width} with padding "
            f"{op.attributes.padding}, which onnxruntime refuses; it takes less padding than the "
            "kernel has rows and columns"
        )


def _reduce(writer: Writer, op: Op) -> Made:
    reduce: Reduce = op.attributes
    axes, file = writer.common_axes(op), writer.file
    (source,) = writer.operands(op, axes)
    places = sorted(axes.index(axis) for axis in reduce.axes)
    left = _left(axes, reduce.axes, keepdims=reduce.keepdims)
    if not places:  # which ONNX takes for all
        return writer.aligned(op, file.node("Identity", [source], op.name), left)
    keepdims = int(reduce.keepdims)
    if reduce.function == "sum":
        inputs = [source, file.integers(*places)]
        value = file.node("ReduceSum", inputs, op.name, keepdims=keepdims)
    elif reduce.function in ("any", "all"):
        kind = {"any": "ReduceMax", "all": "ReduceMin"}[reduce.function]
        number = file.node("Cast", [source], f"{op.name}.number", to=_INT32)
        found = file.node(kind, [number], f"{op.name}.found", axes=places, keepdims=keepdims)
        value = file.node("Cast", [found], op.name, to=_BOOL)
    else:
        kind = f"Reduce{reduce.function.capitalize()}"
        value = file.node(kind, [source], op.name, axes=places, keepdims=keepdims)
    return writer.aligned(op, value, left)


def _place(writer: Writer, op: Op) -> Made:
    arg: Arg = op.attributes
    axes, file = writer.common_axes(op), writer.file
    kind = {"argmax": "ArgMax", "argmin": "ArgMin"}[arg.function]
    attributes: dict[str, Any] = {"axis": axes.index(arg.axis), "keepdims": int(arg.keepdims)}
    narrow = arg.dtype == "int32"
    name = f"{op.name}.wide" if narrow else op.name
    value = file.node(kind, writer.operands(op, axes), name, **attributes)
    if narrow:
        value = file.node("Cast", [value], op.name, to=_INT32)
    return writer.aligned(op, value, _left(axes, (arg.axis,), keepdims=arg.keepdims))


def _left(axes: Axes, reduced: tuple[int, ...], *, keepdims: bool) -> Axes:
    """Return the order of the axes that a reduction leaves."""
    if keepdims:
        return axes
    kept = [axis for axis in range(len(axes)) if axis not in reduced]
    return tuple(kept.index(axis) for axis in axes if axis in kept)


EMITTERS: Mapping[str, Callable[[Writer, Op], Made | Place]] = {
    "mean": _mean,
    "maxpool": _maxpool,
    "avgpool": _avgpool,
    "reduce": _reduce,
    "argmax": _place,
}
