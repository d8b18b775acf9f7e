"""What raw times say: medians, intervals, paired ratios. Pure functions; randomness is passed in.

The unit of analysis is the process, not the invoke: a repeat in a new process differs several
times more than iterations within one, so an interval from one process alone is too narrow.
"""

from __future__ import annotations

import math
from statistics import fmean, median, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

Interval = tuple[float, float]
# One timed block: 0 for the model or 1 for the reference, and the nanoseconds of its invokes.
Block = tuple[int, "Sequence[int]"]

BOOTSTRAP_PROCESSES = 5
_RESAMPLES = 2000


def quantile(values: Sequence[float], share: float) -> float:
    """Return the quantile by linear interpolation; `values` need not be sorted."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def robust_spread(values: Sequence[float]) -> float:
    """Return the coefficient of variation from quartiles: one outlier does not move it."""
    width = quantile(values, 0.75) - quantile(values, 0.25)
    return width / 1.349 / median(values)


def middle_mean(values: Sequence[float]) -> float:
    """Return the mean of the middle half of the values."""
    ordered = sorted(values)
    cut = len(ordered) // 4
    return fmean(ordered[cut : len(ordered) - cut])


def variation(values: Sequence[float]) -> float:
    """Return the coefficient of variation: the sample deviation as a share of the mean."""
    return stdev(values) / fmean(values) if len(values) > 1 else 0.0


def order_interval(values: Sequence[float]) -> Interval:
    """Return the 95 % interval of the median from order statistics (normal approximation)."""
    ordered = sorted(values)
    half = 0.98 * math.sqrt(len(ordered))
    middle = (len(ordered) - 1) / 2.0
    low = max(0, math.floor(middle - half))
    high = min(len(ordered) - 1, math.ceil(middle + half))
    return ordered[low], ordered[high]


def bootstrap_interval(values: Sequence[float], rng: random.Random) -> Interval:
    """Return the 95 % percentile-bootstrap interval of the median of `values`."""
    resampled = sorted(median(rng.choices(values, k=len(values))) for _ in range(_RESAMPLES))
    return quantile(resampled, 0.025), quantile(resampled, 0.975)


def interval(by_process: Sequence[Sequence[float]], rng: random.Random) -> Interval:
    """Return the 95 % interval of the median of process medians.

    From 5 processes on by bootstrap over processes. With fewer the range of the process medians,
    widened to the interval within all samples.
    """
    medians = [median(values) for values in by_process]
    if len(medians) >= BOOTSTRAP_PROCESSES:
        return bootstrap_interval(medians, rng)
    low, high = order_interval([value for values in by_process for value in values])
    return min(low, *medians), max(high, *medians)


def log_ratios(blocks: Sequence[Block]) -> list[float]:
    """Return ln(model / reference) of every complete round of four blocks (A B B A or B A A B).

    Each round's value is from the medians of its two blocks of either; a linear drift cancels.
    """
    ratios = []
    for start in range(0, len(blocks) - 3, 4):
        ratio = 0.0
        for subject, samples in blocks[start : start + 4]:
            ratio += (0.5 if subject == 0 else -0.5) * math.log(max(1.0, median(samples)))
        ratios.append(ratio)
    return ratios


def ratio_with_interval(
    processes: Sequence[Sequence[Block]], rng: random.Random
) -> tuple[float, Interval] | None:
    """Return model / reference and its 95 % interval; None without a reference."""
    by_process = [ratios for blocks in processes if (ratios := log_ratios(_paired(blocks)))]
    if not by_process:
        return None
    centre = median([median(ratios) for ratios in by_process])
    low, high = interval(by_process, rng)
    return math.exp(centre), (math.exp(min(low, centre)), math.exp(max(high, centre)))


def process_figures(processes: Sequence[Sequence[Block]]) -> list[float]:
    """Return each process's deciding figure: its median ratio, else its median in nanoseconds."""
    ratios = [median(found) for run in processes if (found := log_ratios(_paired(run)))]
    if ratios:
        return [math.exp(value) for value in ratios]
    return [median([ns for _, samples in run for ns in samples]) for run in processes]


def _paired(blocks: Sequence[Block]) -> Sequence[Block]:
    return blocks if any(subject == 1 for subject, _ in blocks) else ()


def half_width(centre: float, bounds: Interval) -> float:
    """Return half the interval's width as a share of its centre."""
    return (bounds[1] - bounds[0]) / 2.0 / centre


def at_least(centre: float, bounds: Interval, share: float) -> Interval:
    """Return the interval, not narrower than this share of the centre to either side."""
    return min(bounds[0], centre * (1.0 - share)), max(bounds[1], centre * (1.0 + share))


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the median slope over all pairs of (x, y), as Theil and Sen do; 0 for one point."""
    slopes = [
        (after[1] - before[1]) / (after[0] - before[0])
        for position, before in enumerate(points)
        for after in points[position + 1 :]
        if after[0] != before[0]
    ]
    return median(slopes) if slopes else 0.0
