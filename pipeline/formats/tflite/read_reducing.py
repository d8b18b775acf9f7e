"""Pools and reductions of a TFLite file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.ops import Arg, AvgPool, Mean, Reduce, Unary
from models.window import Window
from pipeline.formats.tflite.read_layers import SAME
from pipeline.formats.tflite.read_shaping import axis_of
from pipeline.formats.tflite.values import UnknownError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.formats.tflite.file import FileOp
    from pipeline.formats.tflite.reading import Reading

_INTEGERS = ("int32", "int64")
_MAP_AXES = (1, 2)


def _pool(reading: Reading, op: FileOp) -> None:
    name = reading.name(reading.input_of(op))
    shape = reading.builder.shapes[name]
    kernel = op.option("filter_h"), op.option("filter_w")
    stride = op.option("stride_h"), op.option("stride_w")
    if len(shape) != 4 or min(*kernel, *stride) < 1:
        raise UnknownError(f"has a window of {kernel} in steps of {stride} on {shape}")
    padding = (0, 0, 0, 0)
    if op.option("padding") == SAME:
        padding = Window(kernel=kernel, stride=stride).same_padding(shape[1], shape[2])
    act = reading.activation(op)
    if op.kind == "MAX_POOL_2D":
        window = Window(kernel=kernel, stride=stride, padding=padding)
        reading.emit(op, "maxpool", [name], window, act=act)
        return
    average = AvgPool(kernel=kernel, stride=stride, padding=padding)
    if op.kind == "AVERAGE_POOL_2D":
        reading.emit(op, "avgpool", [name], average, act=act)
        return
    if act != "none":
        raise UnknownError(f"has the fused activation {act}")
    squares = reading.step(op, "squares", "unary", [name], Unary("square"))
    mean = reading.step(op, "mean", "avgpool", [squares], average)
    reading.emit(op, "unary", [mean], Unary("sqrt"))


def _reduction(function: str) -> Callable[[Reading, FileOp], None]:
    def read(reading: Reading, op: FileOp) -> None:
        source = reading.input_of(op)
        rank = len(reading.shape(source))
        named = {axis_of(axis, rank) for axis in reading.ints(op, 1, "axes")}
        # No axis named means none is reduced.
        axes, keepdims = tuple(sorted(named)), bool(op.option("keepdims"))
        if function == "mean" and rank == 4 and axes == _MAP_AXES:
            reading.emit(op, "mean", [reading.name(source)], Mean(keepdims=keepdims))
            return
        reading.emit(op, "reduce", [reading.name(source)], Reduce(function, axes, keepdims))

    return read


def _place(reading: Reading, op: FileOp) -> None:
    source = reading.input_of(op)
    (axis,) = reading.ints(op, 1, "axis") or (0,)
    dtype = reading.tensor(op.outputs[0]).dtype
    if dtype not in _INTEGERS:
        raise UnknownError(f"gives places as {dtype}")
    function = "argmax" if op.kind == "ARG_MAX" else "argmin"
    attributes = Arg(
        function, axis_of(axis, len(reading.shape(source))), keepdims=False, dtype=dtype
    )
    reading.emit(op, "argmax", [reading.name(source)], attributes)


REDUCING: Mapping[str, Callable[[Reading, FileOp], None]] = {
    "MAX_POOL_2D": _pool,
    "AVERAGE_POOL_2D": _pool,
    "L2_POOL_2D": _pool,
    "MEAN": _reduction("mean"),
    "SUM": _reduction("sum"),
    "REDUCE_MAX": _reduction("max"),
    "REDUCE_MIN": _reduction("min"),
    "REDUCE_PROD": _reduction("prod"),
    "REDUCE_ANY": _reduction("any"),
    "REDUCE_ALL": _reduction("all"),
    "ARG_MAX": _place,
    "ARG_MIN": _place,
}
