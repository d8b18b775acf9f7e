"""The verdict in words: how much faster, at what accuracy, target met or not and how far."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pipeline.data.proportions import wilson
from pipeline.report.markup import DASH, NBSP, TIMES, finite, interval, number, percent, unit

if TYPE_CHECKING:
    from pipeline.store.result import Comparison, RunResult


def speed_sentence(result: RunResult) -> str:
    """Return the headline: winner against baseline in speed and test accuracy, and where."""
    found = result.comparison
    device = result.device.get("name", "the device")
    images = f"{found.test_images:,} test images"
    mine, theirs = percent(found.winner_accuracy_test), percent(found.baseline_accuracy_test)
    if found.outcome == "learnt nothing":
        against = "" if found.baseline_accuracy_test is None else f" against {theirs}"
        return (
            f"Nothing was learnt: {mine}{against} on {images}, where guessing reaches "
            f"{percent(found.guessing_accuracy)}"
        )
    if found.outcome == "no comparison":
        bounds = wilson(found.winner_accuracy_test, found.test_images)
        return (
            f"{unit(found.winner_ms, 'ms')} on {device} at {mine} on {images} "
            f"(95{NBSP}% interval {percents(bounds)}), with nothing to compare it with"
        )
    gain = f" ({found.gain_in_words})".replace(" %", f"{NBSP}%") if found.accuracy_gain_ci95 else ""
    return (
        f"{_speed(found)} {result.baseline_name} on {device}, at {mine} against {theirs} on "
        f"{images}{gain}"
    )


def _speed(comparison: Comparison) -> str:
    ratio, bounds = finite(comparison.ratio), comparison.ratio_ci95
    if ratio is None or bounds is None or ratio <= 0:
        return "No measured speed against"
    if bounds[0] <= 1 <= bounds[1]:
        return "No measurable difference in speed from"
    if ratio < 1:
        return f"{number(1 / ratio)}{TIMES} faster than"
    return f"{number(ratio)}{TIMES} slower than"


def speed_up_interval(comparison: Comparison) -> str:
    """Return the 95 % interval of the speed-up: that of the ratio, inverted."""
    low, high = comparison.ratio_ci95 or (math.nan, math.nan)
    if finite(low) is None or finite(high) is None or min(low, high) <= 0:
        return interval(None)
    return interval((1 / high, 1 / low), 3)


def target_sentence(comparison: Comparison) -> str:
    """Return what was asked, and how the measured ratio, or milliseconds, stands to it."""
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
    return (
        f"The winner takes {words}, 95 % interval {interval(bounds, 3)}; at most {limit} was "
        f"asked: {how_far}. {_accuracy_sentence(comparison)}"
    )


def _accuracy_sentence(comparison: Comparison) -> str:
    asked = f"It may lose {100 * comparison.accuracy_tolerance:g} points of accuracy"
    if comparison.accuracy_gain_ci95 is None:
        return f"{asked}."
    most, least = (-bound for bound in comparison.accuracy_gain_ci95)  # a loss is a gain turned
    if most <= comparison.accuracy_tolerance:
        return f"{asked}, and the interval says that it loses no more."
    if least > comparison.accuracy_tolerance:
        return f"{asked}, and the interval says that it loses more."
    return (
        f"{asked}, and {comparison.test_images:,} images cannot tell whether it loses more: the "
        "interval reaches to both sides."
    )


def percents(bounds: tuple[float, float] | None) -> str:
    """Return an interval of shares as percentages."""
    return DASH if bounds is None else f"{percent(bounds[0])} to {percent(bounds[1])}"
