"""Latencies that were recorded in steps, such as whole milliseconds, recognised from their values.

A benchmark that prints whole milliseconds, a clock that ticks every 4 ms, a tool that rounds to a
tenth: nothing but the values says so, and a model that takes them as they are is too sure. The step
is the largest number that every value is a multiple of, if that is too much of a coincidence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_DIVISORS = np.arange(1, 65)
_OFF = 0.005  # of a step: how far from a multiple a value may be
_INEXACT = 2.0**-23  # relative error of a value kept as float32
_COINCIDENCE = 1e-3
_TIE = 1e-3  # chance of two equal values where there is no step, generously
_FINEST = 1e-4  # steps below this share of the typical value make no difference


def step_of(values: Floats) -> float:
    """Return the step that values, (n,), were rounded to, in their unit; 0 where none is seen.

    Values that are no number above 0 are left out. Few values can look as if the step was a
    multiple of the true one, as 20, 22 and 24 do; if all are equal, it is the value itself.
    """
    usable = values[np.isfinite(values) & (values > 0)]
    different = np.unique(usable)
    if len(usable) < 2:
        return 0.0
    gaps = np.diff(different)
    gap = float(gaps.min(initial=different[0]))
    steps = gap / _DIVISORS[gap / _DIVISORS > _FINEST * np.median(usable)]
    # The least gap is as inexact as the values that it lies between; all of them together know
    # better: first by the gaps, whose counts are small and sure, then by the values.
    inexact = _INEXACT * different[-1] / gap
    counts = np.cumsum(np.rint(gaps / steps[:, None]), axis=1)  # from the least value, (steps, n-1)
    better = (counts @ (different[1:] - different[0])) / np.maximum((counts**2).sum(1), 1.0)
    steps = better.clip((1.0 - inexact) * steps, (1.0 + inexact) * steps)
    counts = np.rint(different[0] / steps)[:, None] + np.pad(counts, ((0, 0), (1, 0)))
    better = (counts @ different) / np.maximum((counts**2).sum(1), 1.0)
    steps = better.clip((1.0 - inexact) * steps, (1.0 + inexact) * steps)
    multiples = (np.abs(different / steps[:, None] - counts) < _OFF).all(1)
    if not multiples.any():
        return 0.0
    first = int(multiples.argmax())
    chance = _DIVISORS[first] * (2.0 * _OFF) ** (len(different) - 1)
    chance *= _TIE ** (len(usable) - len(different))
    return float(steps[first]) if chance < _COINCIDENCE else 0.0


def variance_of(step: float) -> float:
    """Return the variance that rounding to multiples of `step` adds."""
    return step**2 / 12.0


def least_above(limit: float, step: float) -> float:
    """Return up to where values are recorded as at most `limit`, if rounded to the nearest step."""
    if step <= 0.0 or not np.isfinite(limit):
        return limit
    return float((np.floor(limit / step + _OFF) + 0.5) * step)
