"""Reads ops that take or put entries at places, and those that count."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from models.ops import Compare, Concat, Dense, Gather, Reduce
from models.ops.api import FLOAT
from pipeline.formats.onnx.node import (
    Array,
    Node,
    UnknownError,
    Value,
    axis_of,
    known,
    known_ints,
)
from pipeline.formats.onnx.read_arithmetic import CAST_TO

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.ops import Shape
    from pipeline.formats.onnx.reading import Reading


def _gather_nd(reading: Reading, node: Node) -> Value:
    """Read entries that are named by all their places: rows of a table."""
    x, places = node.input(0), node.input(1)
    if node.attribute("batch_dims", 0):
        raise UnknownError("looks entries up in each sample by itself")
    count = places.shape[-1]
    if places.array is None:
        rows = _computed_rows(reading, places, x.shape[:count], name=node.name)
    else:
        whole = _rows(places.array.reshape(-1, count), x.shape[:count])
        rows = reading.constant(f"{node.name}.rows", whole)
    table = _as_table(reading, x, count, name=f"{node.name}.table")
    found = reading.op("gather", [table, rows], Gather(0), name=node.name)
    shape = (*places.shape[:-1], *x.shape[count:])
    return reading.reshape(found, shape, name=f"{node.name}.shape")


def _gather_elements(reading: Reading, node: Node) -> Value:
    """Read values that are each at a place of its own along an axis."""
    x, places = node.input(0), node.input(1)
    axis = axis_of(node.attribute("axis", 0), x.rank)
    grid: list[Array] = list(np.indices(places.shape))
    if places.array is None:
        step = prod(x.shape[axis + 1 :])
        column = reading.reshape(places, (prod(places.shape), 1), name=f"{node.name}.column")
        own = _computed_rows(reading, column, (x.shape[axis],), step=step, name=node.name)
        grid[axis][...] = 0
        others = np.ravel_multi_index([each.reshape(-1) for each in grid], x.shape)
        starts = reading.constant(f"{node.name}.starts", others.astype(places.dtype))
        rows = reading.op("add", [own, starts], name=f"{node.name}.places")
    else:
        grid[axis] = np.where(places.array < 0, places.array + x.shape[axis], places.array)
        whole = np.ravel_multi_index([each.reshape(-1) for each in grid], x.shape)
        rows = reading.constant(f"{node.name}.places", whole.astype(np.int64))
    flat = reading.reshape(x, (prod(x.shape),), name=f"{node.name}.flat")
    found = reading.op("gather", [flat, rows], Gather(0), name=node.name)
    return reading.reshape(found, places.shape, name=f"{node.name}.shape")


def _scatter_nd(reading: Reading, node: Node) -> Value:
    """Read values that are put in the place of others: rows of either of two tables."""
    x, places, new = node.input(0), known(node.input(1), "places"), node.input(2)
    if node.attribute("reduction", "none") != "none":
        raise UnknownError("puts values together with those that are there")
    count = places.shape[-1]
    rows = _rows(places.reshape(-1, count), x.shape[:count])
    table = _as_table(reading, x, count, name=f"{node.name}.table")
    size = table.shape[0]
    rest = table.shape[1:]
    more = reading.reshape(new, (len(rows), *rest), name=f"{node.name}.new")
    both = reading.op("concat", [table, more], Concat(0), name=f"{node.name}.both")
    taken = np.arange(size)
    taken[rows] = size + np.arange(len(rows))
    kept = reading.constant(f"{node.name}.rows", taken.astype(np.int64))
    found = reading.op("gather", [both, kept], Gather(0), name=node.name)
    return reading.reshape(found, x.shape, name=f"{node.name}.shape")


def _as_table(reading: Reading, x: Value, count: int, *, name: str) -> Value:
    """Return a tensor with its first axes as one."""
    return reading.reshape(x, (prod(x.shape[:count]), *x.shape[count:]), name=name)


def _rows(places: Array, shape: Shape) -> Array:
    """Return places along several axes as places along all of them as one."""
    whole = np.where(places < 0, places + np.array(shape), places)
    rows: Array = np.ravel_multi_index(tuple(whole.T), shape).astype(np.int64)
    return rows


def _computed_rows(
    reading: Reading, places: Value, shape: Shape, *, step: int = 1, name: str
) -> Value:
    """Return what `_rows` does of places that the network computes, times `step`.

    A remainder makes places that are counted from the end such from the start.
    """
    count = len(shape)
    table = reading.reshape(places, (prod(places.shape[:-1]), count), name=f"{name}.each")
    sizes = np.array([shape], places.dtype)
    steps = np.array([[prod(shape[axis + 1 :]) * step for axis in range(count)]], places.dtype)
    whole = [table, reading.constant(f"{name}.sizes", sizes)]
    table = reading.op("mod", whole, name=f"{name}.whole")
    if np.any(steps != 1):
        scaled = [table, reading.constant(f"{name}.steps", steps)]
        table = reading.op("mul", scaled, name=f"{name}.scaled")
    if count == 1:
        return reading.reshape(table, table.shape[:1], name=f"{name}.rows")
    over = Reduce("sum", (1,), keepdims=False)
    return reading.op("reduce", [table], over, name=f"{name}.rows")


def _one_hot(reading: Reading, node: Node) -> Value:
    """Read a comparison with all places, which chooses one of two values."""
    x, (depth,) = node.input(0), known_ints(node.input(1), "depth")
    off, on = known(node.input(2), "values")
    axis = axis_of(node.attribute("axis", -1), x.rank + 1)
    column = reading.reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]), name=f"{node.name}.column")
    around = [depth if place == axis else 1 for place in range(x.rank + 1)]
    places = np.arange(depth, dtype=x.dtype).reshape(around)
    row = reading.constant(f"{node.name}.places", places)
    below = reading.constant(f"{node.name}.below", places - depth)
    same = [
        reading.op("compare", [column, other], Compare("equal"), name=f"{node.name}.is{n}")
        for n, other in enumerate((row, below))
    ]
    dtype = node.input(2).dtype
    values = [
        reading.constant(f"{node.name}.{what}", np.full((1,) * (x.rank + 1), value, dtype))
        for what, value in (("on", on), ("off", off))
    ]
    negative = reading.op("where", [same[1], *values], name=f"{node.name}.negative")
    return reading.op("where", [same[0], values[0], negative], name=node.name)


def _cumsum(reading: Reading, node: Node) -> Value:
    """Read running sums as a product with a triangle of ones."""
    x = node.input(0)
    axis = axis_of(int(known(node.input(1), "axis").item()), x.rank)
    size = x.shape[axis]
    ones = np.tril(np.ones((size, size)), -1 if node.attribute("exclusive", 0) else 0)
    if node.attribute("reverse", 0):
        ones = ones[::-1, ::-1]
    if x.array is not None:
        summed = np.moveaxis(np.moveaxis(x.array, axis, -1) @ ones.T, -1, axis)
        return reading.constant(node.name, summed.astype(x.dtype))
    order = (*(a for a in range(x.rank) if a != axis), axis)
    real = reading.cast(x, FLOAT, name=f"{node.name}.real")
    last = reading.transpose(real, order, name=f"{node.name}.last")
    rows = reading.ranked(last, max(last.rank, 2), name=node.name)
    made = reading.layer("dense", rows, Dense(size), ones, np.zeros(size), name=node.name)
    made = reading.reshape(made, last.shape, name=f"{node.name}.shape")
    back = [order.index(a) for a in range(x.rank)]
    made = reading.transpose(made, back, name=f"{node.name}.back")
    return reading.cast(made, x.dtype, name=f"{node.name}.whole")


def _is_nan(reading: Reading, node: Node) -> Value:
    x = node.input(0)
    return reading.op("compare", [x, x], Compare("notequal"), name=node.name)


def _eye(reading: Reading, node: Node) -> Value:
    rows, columns = node.input(0).shape
    dtype = CAST_TO.get(node.attribute("dtype", 0), node.input(0).dtype)
    return reading.constant(node.name, np.eye(rows, columns, node.attribute("k", 0), dtype))


PLACES: Mapping[str, Callable[[Reading, Node], Any]] = {
    "GatherND": _gather_nd,
    "GatherElements": _gather_elements,
    "ScatterND": _scatter_nd,
    "OneHot": _one_hot,
    "CumSum": _cumsum,
    "IsNaN": _is_nan,
    "EyeLike": _eye,
}
