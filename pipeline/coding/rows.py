"""Rows of a tensor put into classes that share a code: channels differ in how wide they spread.

With a scale for the whole tensor the codes of a narrow channel stay near zero, and one table for
all wastes bits on each. Rows are clustered as by k-means; the distance is the bits that a row costs
in the code of a class.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.agent.packed.rans import MOST_CLASSES
from pipeline.coding.lanes import MOST_LENGTH, wanted_lanes
from pipeline.coding.rans import LANE_BYTES

if TYPE_CHECKING:
    import numpy.typing as npt

    from pipeline.coding.distributions import Bytes

_CLASSES = (2, 4, 8, MOST_CLASSES)
_ROUNDS = 4
_FEWEST_ROWS = 8
_FEWEST_BYTES = 4096
_MOST_ROWS = 1 << 13  # counts of all rows are held at once
_PAYS = 0.995
"""Of the bytes of one code for all: what is hardly smaller would only be slower."""

_TABLE_BYTES = 1.1  # of a symbol of a class


class Order(IntEnum):
    """How rows lie, by its number in a packed file."""

    FIRST_AXIS = 0
    LAST_AXIS = 1


@dataclass(frozen=True, slots=True)
class Classed:
    """Rows in classes, cut into cells that lanes can share.

    Attributes:
        of_row: the class of each row, (rows,).
        cells_of_row: how many cells each is cut into.
        cells: (cells, symbols of a cell), in the order of a packed file.
        of_cell: the class of each, (cells,).
        counts: of symbols by class, (classes, 256).
    """

    of_row: Bytes
    cells_of_row: int
    cells: Bytes
    of_cell: Bytes
    counts: npt.NDArray[np.int64]


def class_rows(data: Bytes, dims: tuple[int, ...], order: Order) -> Classed | None:
    """Return a tensor's rows in classes; None: that does not pay.

    Args:
        data: a tensor of `dims`, a byte for each element, or bytes that the first of them divides.
        dims: of the tensor.
        order: which axis its rows are of.
    """
    count = (dims[0] if order is Order.FIRST_AXIS else dims[-1]) if len(dims) > 1 else 0
    if not _FEWEST_ROWS <= count <= _MOST_ROWS or len(data) % count or len(data) < _FEWEST_BYTES:
        return None
    if order is Order.FIRST_AXIS:
        rows = data.reshape(count, -1)
    elif len(data) == math.prod(dims):
        rows = data.reshape(-1, count).T
    else:
        return None
    at = 256 * np.arange(count)[:, None]
    counts = np.bincount((rows + at).reshape(-1), minlength=256 * count).reshape(count, 256)
    best, of_row = _PAYS * _bytes(counts.sum(axis=0)[None]), None
    each = _entropies(counts)
    if each @ counts.sum(axis=1) / 8 > best:
        # Not even a code for every row would pay, its table for nothing.
        return None
    narrowest_first = np.argsort(each, kind="stable")
    for classes in _CLASSES:
        found = _cluster(counts, narrowest_first, classes)
        size = _bytes(_together(counts, found)) + count * np.log2(classes) / 8
        if size < best:
            best, of_row = size, found.astype(np.uint8)
    if of_row is None:
        return None
    return _cut(rows, of_row, _together(counts, of_row), order, best)


def _cut(
    rows: Bytes, of_row: Bytes, counts: npt.NDArray[np.int64], order: Order, size: float
) -> Classed | None:
    """Cut rows into cells enough for the lanes of a stream of `size` bytes; None: they are odd."""
    count, length = rows.shape
    lanes = wanted_lanes(rows.size, coded_bytes=size, lane_bytes=LANE_BYTES)
    most = range(-(-lanes // count), 0, -1)
    pieces = next(n for n in most if length % n == 0)
    if length // pieces > MOST_LENGTH:
        return None
    if order is Order.FIRST_AXIS:
        return Classed(
            of_row, pieces, rows.reshape(count * pieces, -1), np.repeat(of_row, pieces), counts
        )
    cells = rows.reshape(count, pieces, -1).transpose(1, 0, 2).reshape(count * pieces, -1)
    return Classed(of_row, pieces, cells, np.tile(of_row, pieces), counts)


def _entropies(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the entropy of each row of counts, none empty."""
    shares = counts / counts.sum(axis=1, keepdims=True)
    logarithms = np.log2(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.asarray(-(shares * logarithms).sum(axis=1), np.float64)


def _cluster(
    counts: npt.NDArray[np.int64], order: npt.NDArray[np.intp], classes: int
) -> npt.NDArray[np.intp]:
    """Return the class of each row, from 0 on without gaps; at first, equal parts of an order."""
    of_row = np.empty(len(counts), np.intp)
    of_row[order] = np.arange(len(counts)) * classes // len(counts)
    for _ in range(_ROUNDS):
        codes = np.stack([counts[of_row == one].sum(axis=0) for one in range(classes)])
        # A symbol that a class lacks is dear, not impossible.
        shares = codes + 0.01
        cost = -counts @ np.log2(shares / shares.sum(axis=1, keepdims=True)).T
        nearest = cost.argmin(axis=1)
        if (nearest == of_row).all():
            break
        of_row = nearest
    return np.unique(of_row, return_inverse=True)[1]


def _together(counts: npt.NDArray[np.int64], of_row: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return counts by class, (classes, 256)."""
    return np.stack([counts[of_row == one].sum(axis=0) for one in range(int(of_row.max()) + 1)])


def _bytes(counts: npt.NDArray[np.int64]) -> float:
    """Return about what symbols counted by class are coded in, tables counted."""
    coded = counts.sum(axis=1) @ _entropies(counts) / 8
    return float(coded + _TABLE_BYTES * np.count_nonzero(counts))
