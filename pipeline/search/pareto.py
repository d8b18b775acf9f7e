"""The Pareto front of accuracy (up) against latency (down), and the area it dominates.

Points are two arrays of equal length, (n,): accuracies in any unit and latencies in milliseconds.
A point with a NaN on either axis is dominated by every other and never on the front.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


def pareto_front(accuracy: npt.ArrayLike, latency_ms: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """Return the indices of the points that no other dominates, by rising latency.

    A point dominates another if it is no worse on both axes and better on one. Of points equal on
    both axes only the first is kept, so latency and accuracy both rise strictly along the front.

    Raises:
        ValueError: the arrays are not two vectors of one length.
    """
    acc, lat = _points(accuracy, latency_ms)
    valid = np.flatnonzero(~(np.isnan(acc) | np.isnan(lat)))
    # Stable: fastest first, at equal latency the most accurate, among equals the first given.
    order = valid[np.lexsort((-acc[valid], lat[valid]))]
    front: list[int] = []
    best = -math.inf
    for index in order.tolist():
        if acc[index] > best or not front:
            front.append(index)
            best = float(acc[index])
    return np.array(front, dtype=np.intp)


def hypervolume(
    accuracy: npt.ArrayLike, latency_ms: npt.ArrayLike, *, reference: tuple[float, float]
) -> float:
    """Return the area between the front and the `reference` point (accuracy, latency in ms).

    Points that do not beat the reference on both axes add nothing. The unit is that of the
    accuracies times milliseconds.
    """
    acc, lat = _points(accuracy, latency_ms)
    floor, ceiling_ms = reference
    area, level = 0.0, floor
    for index in pareto_front(acc, lat).tolist():
        if acc[index] > level and lat[index] < ceiling_ms:
            area += (float(acc[index]) - level) * (ceiling_ms - float(lat[index]))
            level = float(acc[index])
    return area


def _points(
    accuracy: npt.ArrayLike, latency_ms: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    acc, lat = np.asarray(accuracy, np.float64), np.asarray(latency_ms, np.float64)
    if acc.ndim != 1 or acc.shape != lat.shape:
        raise ValueError(f"accuracy {acc.shape} and latency {lat.shape} are not equal vectors")
    return acc, lat
