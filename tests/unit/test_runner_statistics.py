"""Statistics of the runner on numbers whose answer is known."""

from __future__ import annotations

import math
from random import Random

import pytest

from device_agents.measure import statistics


def seeded(seed: int) -> Random:
    return Random(seed)  # simulated noise


def noisy(rng: Random, centre: float, spread: float, count: int) -> list[int]:
    return [round(centre * rng.lognormvariate(0, spread)) for _ in range(count)]


def test_quantile_interpolates() -> None:
    assert statistics.quantile([3, 1, 2], 0.5) == 2
    assert statistics.quantile([0, 10], 0.9) == pytest.approx(9)
    assert statistics.quantile([5], 0.9) == 5


def test_robust_spread_ignores_one_outlier() -> None:
    values = [100, 101, 99, 100, 102, 98, 100, 100_000]
    assert statistics.robust_spread(values) < 0.03


def test_order_interval_covers_the_median_19_times_in_20() -> None:
    rng = seeded(1)
    hits = 0
    for _ in range(1000):
        low, high = statistics.order_interval(noisy(rng, 1e6, 0.05, 60))
        hits += low <= 1e6 <= high
    assert 930 <= hits <= 990


def test_linear_drift_cancels_in_a_round() -> None:
    times = [1000 * math.exp(0.01 * step) for step in range(8)]
    pattern = [0, 1, 1, 0, 1, 0, 0, 1]
    blocks = [
        (who, [int(t * (2 if who == 0 else 1))]) for who, t in zip(pattern, times, strict=True)
    ]
    for ratio in statistics.log_ratios(blocks):
        assert math.exp(ratio) == pytest.approx(2.0, abs=0.005)


def test_incomplete_round_is_left_out() -> None:
    blocks = [(0, [10]), (1, [10]), (1, [10]), (0, [10]), (0, [99])]
    assert statistics.log_ratios(blocks) == [0.0]


def test_ratio_without_reference_is_none() -> None:
    rng = seeded(0)
    assert statistics.ratio_with_interval([[(0, [1, 2, 3])] * 8], rng) is None


def quads(rng: Random, ratio: float, shift: float) -> list[tuple[int, list[int]]]:
    return [
        (who, noisy(rng, 1e5 * shift * (ratio if who == 0 else 1), 0.01, 9))
        for who in (0, 1, 1, 0) * 6
    ]


@pytest.mark.parametrize(("processes", "least"), [(3, 0.9), (10, 0.85)])
def test_ratio_interval_covers_the_truth(processes: int, least: float) -> None:
    rng = seeded(2)
    hits = 0
    for _ in range(60):
        # Each process has a speed of its own that both models share: the ratio must not feel it.
        runs = [quads(rng, 1.3, rng.lognormvariate(0, 0.05)) for _ in range(processes)]
        found = statistics.ratio_with_interval(runs, rng)
        assert found is not None
        ratio, (low, high) = found
        assert ratio == pytest.approx(1.3, rel=0.02)
        hits += low <= 1.3 <= high
    assert hits >= least * 60


def test_same_seed_same_interval() -> None:
    runs = [quads(seeded(n), 1.0, 1.0) for n in range(6)]
    first = statistics.ratio_with_interval(runs, seeded(5))
    assert first == statistics.ratio_with_interval(runs, seeded(5))


def test_deciding_figures_are_the_ratios_when_there_is_a_reference() -> None:
    plain = [[(0, [10, 11, 12])], [(0, [20, 20, 21])]]
    assert statistics.process_figures(plain) == [11, 20]
    paired = [(0, [20]), (1, [10]), (1, [10]), (0, [20])]
    slower = [(who, [5 * ns for ns in times]) for who, times in paired]
    assert statistics.process_figures([paired, slower]) == pytest.approx([2, 2])
    assert statistics.process_figures([*plain, paired]) == pytest.approx([2])


def test_variation_of_known_values() -> None:
    assert statistics.variation([9.0, 10.0, 11.0]) == pytest.approx(0.1)
    assert statistics.variation([5.0]) == 0.0


def test_slope_ignores_one_outlier() -> None:
    line = [(float(x), 3.0 + 0.5 * x) for x in range(9)]
    assert statistics.slope(line) == pytest.approx(0.5)
    line[4] = (4.0, 500.0)
    assert statistics.slope(line) == pytest.approx(0.5, abs=0.01)
    assert statistics.slope(line[:1]) == 0.0


def test_middle_mean_leaves_the_ends_out() -> None:
    assert statistics.middle_mean([1000, 1, 2, 3]) == 2.5
    assert statistics.middle_mean([7]) == 7


def test_few_processes_give_their_range_at_least() -> None:
    low, high = statistics.interval([[10, 10, 10], [20, 20, 20], [11, 11, 11]], seeded(0))
    assert (low, high) == (10, 20)
