"""Ops of a TFLite file that change how numbers are held, or whose results are known beforehand."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from models.ops import Clip, Compare, Reshape
from pipeline.formats.tflite.values import UnknownError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.formats.tflite.file import FileOp
    from pipeline.formats.tflite.reading import Reading

_LARGEST_RANK = 16


def _copy(reading: Reading, op: FileOp) -> None:
    """Read DEQUANTIZE and DENSIFY of constants as their values, and DEQUANTIZE as nothing."""
    source, target = reading.input_of(op), op.outputs[0]
    value = reading.value(source)
    if value is not None:
        reading.know(target, value, source)
        return
    if op.kind == "DENSIFY" or reading.scale(source) is None:
        raise UnknownError(f"reads {reading.tensor(source).dtype} that is no constant")
    # The numbers are the same, held otherwise.
    reading.at[target] = reading.name(source)


def _quantize(reading: Reading, op: FileOp) -> None:
    """Read QUANTIZE as a copy with codes: who reads its source as it was made has no part in them.

    Copies that are not needed are taken away when all is read (`pipeline.formats.code_readers`).
    """
    source, target = reading.input_of(op), op.outputs[0]
    params = reading.scale(target)
    if params is None:
        raise UnknownError(f"gives {reading.tensor(target).dtype} without a scale")
    name = reading.name(source)
    if name in reading.builder.constants:
        held = reading.weights[name][0]
        reading.know(target, params.dequantize(params.quantize(held)))
        return
    meant = reading.params.get(name)
    if meant == params:
        reading.at[target] = name
        return
    if (name, params) not in reading.coded:
        copy = reading.coded[name, params] = reading.emit(op, "clip", [name], Clip())
        if meant is None:
            reading.copies.add(copy)
    reading.at[target] = reading.coded[name, params]


def _shape(reading: Reading, op: FileOp) -> None:
    shape = reading.shape(reading.input_of(op))
    dtype = np.int64 if reading.tensor(op.outputs[0]).dtype == "int64" else np.int32
    held = len(shape) if op.kind == "RANK" else shape
    reading.know(op.outputs[0], np.array(held, dtype))


def _range(reading: Reading, op: FileOp) -> None:
    first, last, step = (
        reading.needed(op, place, what).reshape(-1)[:1]
        for place, what in enumerate(("begin", "end", "step"))
    )
    if not first.size == last.size == step.size == 1 or not step[0]:
        raise UnknownError("counts by nothing")
    count = max(0, int(np.ceil((last[0] - first[0]) / step[0])))
    reading.spend_bytes(reading.names[op.outputs[0]], 8 * count)
    reading.know(op.outputs[0], (first + np.arange(count) * step).astype(first.dtype))


def _fill(reading: Reading, op: FileOp) -> None:
    if op.kind == "FILL":
        shape, value = reading.ints(op, 0, "shape"), reading.needed(op, 1, "value")
    else:
        source = reading.input_of(op)
        shape = reading.shape(source)
        value = np.zeros(1, reading.builder.dtypes[reading.name(source)])
    if value.size != 1 or min(shape, default=0) < 0 or len(shape) > _LARGEST_RANK:
        raise UnknownError(f"fills {shape} with {value.size} values")
    reading.spend_bytes(reading.names[op.outputs[0]], 8 * prod(shape))
    reading.know(op.outputs[0], np.full(shape, value.reshape(())))


def _broadcast_args(reading: Reading, op: FileOp) -> None:
    shapes = [reading.ints(op, place, "shape") for place in range(2)]
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise UnknownError(f"broadcasts {shapes[0]} with {shapes[1]}") from error
    reading.know(op.outputs[0], np.array(shape, np.int32))


def _one_hot(reading: Reading, op: FileOp) -> None:
    """Read ONE_HOT: a comparison with all places chooses one of two values."""
    source = reading.input_of(op)
    shape = reading.shape(source)
    (depth,) = reading.ints(op, 1, "depth") or (0,)
    axis = op.option("axis")
    axis = len(shape) if axis == -1 else axis
    if not 0 <= axis <= len(shape) or not 1 <= depth <= 1 << 20:
        raise UnknownError(f"makes {depth} of axis {axis} of {shape}")
    values = [
        reading.needed(op, place, what).reshape(-1)[:1] for place, what in ((2, "on"), (3, "off"))
    ]
    column = (*shape[:axis], 1, *shape[axis:])
    name = reading.step(op, "column", "reshape", [reading.name(source)], Reshape(column))
    rank = len(column)
    places = np.arange(depth, dtype=reading.builder.dtypes[name])
    around = [1] * rank
    around[axis] = depth
    base = reading.names[op.outputs[0]]
    row = reading.constant(reading.unique(f"{base}.places"), places.reshape(around))
    chosen = reading.step(op, "chosen", "compare", [name, row], Compare("equal"))
    both = [
        reading.constant(reading.unique(f"{base}.{what}"), value.reshape((1,) * rank))
        for what, value in zip(("on", "off"), values, strict=True)
    ]
    reading.emit(op, "where", [chosen, *both])


KNOWN: Mapping[str, Callable[[Reading, FileOp], None]] = {
    "DEQUANTIZE": _copy,
    "DENSIFY": _copy,
    "QUANTIZE": _quantize,
    "SHAPE": _shape,
    "RANK": _shape,
    "RANGE": _range,
    "FILL": _fill,
    "ZEROS_LIKE": _fill,
    "BROADCAST_ARGS": _broadcast_args,
    "ONE_HOT": _one_hot,
}
