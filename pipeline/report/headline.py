"""The verdict in words: how much faster, at what accuracy, target met or not and how far."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pipeline.report.markup import TIMES, finite, interval, number, percent, unit

if TYPE_CHECKING:
    from pipeline.result import Comparison, RunResult

_Z95 = 1.959964


def speed_sentence(result: RunResult) -> str:
    """Return the headline: winner against baseline in speed and test accuracy, and where."""
    comparison = result.comparison
    where = f"{result.baseline_name} on {result.device.get('name', 'the device')}"
    accuracy = (
        f"{percent(comparison.winner_accuracy_test)} against "
        f"{percent(comparison.baseline_accuracy_test)} test accuracy"
    )
    return f"{_speed(comparison)} {where}, at {accuracy}"


def _speed(comparison: Comparison) -> str:
    ratio, bounds = comparison.ratio, comparison.ratio_ci95
    if finite(ratio) is None or ratio <= 0:
        return "No measured speed against"
    if bounds[0] <= 1 <= bounds[1]:
        return "No measurable difference in speed from"
    if ratio < 1:
        return f"{number(1 / ratio)}{TIMES} faster than"
    return f"{number(ratio)}{TIMES} slower than"


def speed_up_interval(comparison: Comparison) -> str:
    """Return the 95 % interval of the speed-up: that of the ratio, inverted."""
    low, high = comparison.ratio_ci95
    if finite(low) is None or finite(high) is None or min(low, high) <= 0:
        return interval(None)
    return interval((1 / high, 1 / low), 3)


def target_sentence(comparison: Comparison) -> str:
    """Return how the measured ratio, or milliseconds, stands to what was asked, in numbers."""
    bounds: tuple[float, float] | None
    if comparison.target_ms is None:
        found, asked = finite(comparison.ratio), finite(comparison.target_ratio)
        bounds, words = comparison.ratio_ci95, f"{number(found)} of the baseline's time"
    else:
        found, asked = finite(comparison.winner_ms), finite(comparison.target_ms)
        bounds, words = comparison.winner_ci95_ms, unit(found, "ms")
    if found is None or asked is None or asked <= 0:
        return "The latency cannot be compared with the target."
    share = found / asked - 1
    how_far = (
        f"{percent(-share, 1)} below the limit"
        if share <= 0
        else f"{percent(share, 1)} above the limit"
    )
    limit = number(asked) if comparison.target_ms is None else unit(asked, "ms")
    text = (
        f"The winner takes {words}, 95 % interval {interval(bounds, 3)}; at most {limit} was "
        f"asked: {how_far}."
    )
    if share <= 0 and not comparison.met:
        text += (
            " The target is met when the upper end of the interval is within the limit and the "
            f"test accuracy within the tolerance; it differs by {accuracy_gap(comparison)}."
        )
    return text


def accuracy_gap(comparison: Comparison) -> str:
    """Return the winner's test accuracy minus the baseline's."""
    return _points(comparison.winner_accuracy_test, comparison.baseline_accuracy_test)


def _points(a: float, b: float) -> str:
    if finite(a) is None or finite(b) is None:
        return number(None)
    sign = "+" if a >= b else "\N{MINUS SIGN}"
    return f"{sign}{100 * abs(a - b):.2f} points"


def wilson(share: float, n: int) -> tuple[float, float] | None:
    """Return the 95 % score interval of a share of `n` images (Wilson 1927), or None."""
    if finite(share) is None or n < 1 or not 0 <= share <= 1:
        return None
    centre = share + _Z95**2 / (2 * n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + _Z95**2 / (4 * n * n))
    scale = 1 + _Z95**2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
