"""Sparse constants: where their values stand, as TACO's formats say it (Kjolstad et al. 2017).

A tensor of rank n with k blocked axes is walked along n + k levels in the order of
`traversal order`; levels n and above are the positions in a block. A dense level has all of its
positions; of a sparse one segments (from, to) are listed for each position of the level before,
and the positions in them.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents.model_files.flatbuffer import DamagedError

if TYPE_CHECKING:
    from device_agents.model_files.flatbuffer import Reader

Array = npt.NDArray[Any]

_VECTORS = {1: "<i4", 2: "<u2", 3: "<u1"}
"""Type of a list of positions -> numpy's."""


def densify(reader: Reader, table: int, values: Array, shape: tuple[int, ...]) -> Array:
    """Return a sparse tensor with its zeros.

    Args:
        reader: of the file.
        table: its `SparsityParameters`.
        values: those that are stored.
        shape: of the dense tensor.

    Raises:
        DamagedError: the table does not describe such a tensor.
    """
    order = reader.numbers(table, 0, "i32") or ()
    blocked = reader.numbers(table, 1, "i32") or ()
    levels = reader.tables(table, 2)
    rank = len(shape)
    if sorted(order) != list(range(rank + len(blocked))) or len(levels) != len(order):
        raise DamagedError(f"a sparse tensor of shape {shape} has levels in the order {order}")
    if len(set(blocked)) != len(blocked) or not set(blocked) <= set(range(rank)):
        raise DamagedError(f"a sparse tensor of shape {shape} has blocks along {blocked}")
    sizes = [0] * len(order)
    # At each level: the positions of all entries so far, one array for each level walked.
    walked: list[Array] = []
    count = 1
    for level, axis in zip(levels, order, strict=True):
        dense = reader.number(level, 0, "i8") == 0
        parents, positions = (
            _dense_level(reader, level, count, prod(shape))
            if dense
            else _sparse_level(reader, level, count, prod(shape))
        )
        if dense:
            sizes[axis] = reader.number(level, 1, "i32")
        walked = [places[parents] for places in walked] + [positions]
        count = len(positions)
    if count != values.size:
        raise DamagedError(f"a sparse tensor names {count} places for {values.size} values")
    places = dict(zip(order, walked, strict=True))
    index = []
    for axis, size in enumerate(shape):
        at = places[axis].astype(np.int64)
        if axis in blocked:
            inner = rank + blocked.index(axis)
            at = at * sizes[inner] + places[inner]
        if at.size and not 0 <= at.min() <= at.max() < size:
            raise DamagedError(f"a sparse tensor of shape {shape} has a value outside of it")
        index.append(at)
    whole = np.zeros(prod(shape), values.dtype).reshape(shape)
    whole[tuple(index)] = values
    return whole


def _dense_level(reader: Reader, level: int, count: int, most: int) -> tuple[Array, Array]:
    """Return (parent of each entry, its position): all positions below each parent."""
    size = reader.number(level, 1, "i32")
    if size < 0 or count * size > most:
        raise DamagedError(f"a sparse tensor has more places than its {most} values need")
    return np.repeat(np.arange(count), size), np.tile(np.arange(size), count)


def _sparse_level(reader: Reader, level: int, count: int, most: int) -> tuple[Array, Array]:
    """As `_dense_level`, from the lists of segments and positions."""
    segments, positions = _list(reader, level, 2), _list(reader, level, 4)
    whole = len(segments) == count + 1 and segments[0] == 0 and segments[-1] == len(positions)
    if not whole or (np.diff(segments) < 0).any() or len(positions) > most:
        raise DamagedError("a sparse tensor has segments that do not list its positions")
    return np.repeat(np.arange(count), np.diff(segments)), positions


def _list(reader: Reader, level: int, number: int) -> Array:
    """Return a list of whole numbers; the field before says of which width they are."""
    dtype = _VECTORS.get(reader.number(level, number, "u8"))
    table = reader.table(level, number + 1)
    if dtype is None or table is None:
        raise DamagedError("a sparse tensor lacks a list of its positions")
    start, count = reader.span(table, 0, np.dtype(dtype).itemsize)
    return np.frombuffer(reader.content, dtype, count, start).astype(np.int64)
