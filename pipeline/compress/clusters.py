"""Numbers put into clusters, each of which is one value: k-means in one dimension.

On sorted numbers a cluster is a range, and its mean a difference of running sums; so a round of
Lloyd's algorithm (1982) costs as much for a million numbers as for a hundred, and is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Doubles = npt.NDArray[np.float64]

Start = Literal["linear", "density"]

_MOST_ROUNDS = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """Numbers as places in a table of values.

    Attributes:
        values: of the table, ascending, (at most k,) float32.
        places: of each number, in its shape, uint8.
    """

    values: npt.NDArray[np.float32]
    places: npt.NDArray[np.uint8]

    @property
    def numbers(self) -> npt.NDArray[np.float32]:
        """What the numbers have become."""
        return self.values[self.places]

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """How many numbers have each value."""
        return np.bincount(self.places.reshape(-1), minlength=len(self.values))


def share(numbers: npt.NDArray[np.floating[Any]], most: int, start: Start) -> Shared:
    """Return numbers as at most so many values, of a small squared error.

    What is 0 stays 0: where there are zeros they are a cluster of their own. No more values than
    `most` are kept as they are.

    Args:
        numbers: finite, of any shape, at least one.
        most: values, 2 to 256.
        start: where the search for clusters begins: ``linear``: evenly spaced from the least to the
            largest number, which keeps the few large weights apart and is best for accuracy (Han et
            al. 2016, section 3.2); ``density``: with as many numbers in each.
    """
    flat = numbers.reshape(-1).astype(np.float32)
    ordered = np.sort(flat)
    there = ordered[ordered != 0]
    zeros = len(there) < len(ordered)
    found = _values(there.astype(np.float64), most - zeros, start).astype(np.float32)
    places = _nearest(found, flat)
    if zeros:
        at = int(np.searchsorted(found, 0))
        found = np.insert(found, at, 0)
        places = np.where(flat == 0, at, places + (places >= at))
    return Shared(found, places.astype(np.uint8).reshape(numbers.shape))


def _nearest(values: npt.NDArray[np.float32], numbers: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Return the place of the value nearest to each number; of two as near, the lower."""
    exact = values.astype(np.float64)
    return np.searchsorted((exact[1:] + exact[:-1]) / 2, numbers, side="left")


def _values(ordered: Doubles, count: int, start: Start) -> Doubles:
    """Return the means of at most `count` clusters of numbers in ascending order."""
    if not len(ordered):
        return ordered
    distinct: Doubles = ordered[np.append(True, ordered[1:] != ordered[:-1])]
    if len(distinct) <= count:
        return distinct
    linear = np.linspace(ordered[0], ordered[-1], count)
    running = _Running(ordered)
    if start == "linear":
        return running.settle(linear)
    at = ((np.arange(count) + 0.5) / count * len(ordered)).astype(int)
    found = running.settle(ordered[at])
    # Never worse than the evenly spaced table itself, which a bad start could be.
    better = running.error(found) <= running.error(linear)
    return found if better else running.settle(linear)


class _Running:
    """Numbers in ascending order with their running sums."""

    def __init__(self, ordered: Doubles) -> None:
        self._ordered = ordered
        self._sums = np.append(0.0, np.cumsum(ordered))
        self._squares = np.append(0.0, np.cumsum(np.square(ordered)))

    def settle(self, values: Doubles) -> Doubles:
        """Return the means that Lloyd's algorithm comes to from these values."""
        ends = self._ends(values)
        for _ in range(_MOST_ROUNDS):
            values = self._means(values, ends)
            before, ends = ends, self._ends(values)
            if np.array_equal(before, ends):
                break
        return values

    def error(self, values: Doubles) -> float:
        """Return the sum of the squared distances to the nearest of the values."""
        return float(self._errors(values, self._ends(values)).sum())

    def _ends(self, values: Doubles) -> npt.NDArray[np.intp]:
        """Return where the cluster of each value begins, and the end of the last."""
        inner = np.searchsorted(self._ordered, (values[1:] + values[:-1]) / 2, side="right")
        return np.concatenate([[0], inner, [len(self._ordered)]])

    def _means(self, values: Doubles, ends: npt.NDArray[np.intp]) -> Doubles:
        """Return the means of clusters; an empty one goes where the error is largest."""
        counts = np.diff(ends)
        there = counts > 0
        means = values.copy()
        means[there] = np.diff(self._sums[ends])[there] / counts[there]
        if (empty := np.flatnonzero(~there)).size:
            full = np.flatnonzero(there)
            errors = self._errors(means, ends)[full]
            worst = full[np.argsort(-errors, kind="stable")[: len(empty)]]
            first, last = self._ordered[ends[worst]], self._ordered[ends[worst + 1] - 1]
            # The end of the cluster that lies farther from its mean.
            farther = np.where(means[worst] - first > last - means[worst], first, last)
            means[empty[: len(worst)]] = farther
        return np.sort(means)

    def _errors(self, values: Doubles, ends: npt.NDArray[np.intp]) -> Doubles:
        """Return the squared distances of each cluster from its value, summed."""
        counts = np.diff(ends)
        sums, squares = np.diff(self._sums[ends]), np.diff(self._squares[ends])
        return np.asarray(squares - 2 * values * sums + counts * np.square(values))
