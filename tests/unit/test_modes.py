"""Two kinds of times are told from one kind with whatever tail; and how often that errs."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from device_agents.measure.modes import two_modes

if TYPE_CHECKING:
    from collections.abc import Callable

    Draw = Callable[[Random], float]


def tight(rng: Random) -> float:
    return rng.lognormvariate(0.0, 0.005)


def delayed(share: float, mean: float) -> Draw:
    """Scheduling: some are delayed by what is left of somebody's time slice."""
    return lambda rng: tight(rng) + (rng.expovariate(1.0 / mean) if rng.random() < share else 0.0)


ONE_KIND: dict[str, Draw] = {
    "quiet": tight,
    "noisy": lambda rng: rng.lognormvariate(0.0, 0.1),
    "very noisy": lambda rng: rng.lognormvariate(0.0, 0.4),
    "even": lambda rng: rng.uniform(1.0, 1.5),
    "tail": lambda rng: 1.0 + rng.expovariate(5.0),
    "heavy tail": lambda rng: rng.paretovariate(3.0),
    "2 % delayed": delayed(0.02, 3.0),
    "5 % delayed": delayed(0.05, 1.0),
    "10 % delayed": delayed(0.10, 0.5),
    "20 % delayed": delayed(0.20, 1.0),
    "40 % delayed": delayed(0.40, 0.3),
}


@pytest.mark.parametrize("kind", ONE_KIND)
def test_one_kind_of_invokes_has_no_second_mode(kind: str) -> None:
    rng, draw = Random(11), ONE_KIND[kind]
    alarms = sum(two_modes([draw(rng) for _ in range(300)], 0.03) is not None for _ in range(60))
    assert alarms <= 1


@pytest.mark.parametrize("count", [5, 8, 12, 20])
@pytest.mark.parametrize("kind", ["quiet", "noisy", "even", "tail"])
def test_one_kind_of_processes_has_no_second_mode(kind: str, count: int) -> None:
    rng, draw = Random(12), ONE_KIND[kind]
    alarms = sum(two_modes([draw(rng) for _ in range(count)], 0.03) is not None for _ in range(300))
    assert alarms <= 6


@pytest.mark.parametrize("spread", [0.005, 0.02])
@pytest.mark.parametrize(("share", "factor"), [(0.2, 2.4), (0.3, 1.3), (0.5, 1.5), (0.8, 2.0)])
def test_slow_invokes_are_seen_beside_spikes(share: float, factor: float, spread: float) -> None:
    rng = Random(13)
    for _ in range(20):
        values = []
        for _ in range(300):
            slow = factor if rng.random() < share else 1.0
            spike = rng.expovariate(0.3) if rng.random() < 0.02 else 0.0
            values.append(12.5 * slow * rng.lognormvariate(0.0, spread) * (1.0 + spike))
        found = two_modes(values, 0.03)
        assert found is not None
        assert found.slow_share == pytest.approx(share, abs=0.13)
        assert found.factor == pytest.approx(factor, rel=0.03)


@pytest.mark.parametrize("count", [100, 9_000, 40_000])
def test_every_fifth_invoke_is_seen_however_many_there_are(count: int) -> None:
    rng = Random(14)
    values = [tight(rng) * (2.4 if number % 5 == 0 else 1.0) for number in range(count)]
    found = two_modes(values, 0.03)
    assert found is not None
    assert found.slow_share == pytest.approx(0.2, abs=0.01)


def test_few_processes_of_two_speeds_are_seen() -> None:
    found = two_modes([10.0, 10.1, 24.1, 10.05, 23.9], 0.03)
    assert found is not None
    assert (found.slow_share, round(found.factor, 1)) == (0.4, 2.4)
    # Three are too few: one of them may have been disturbed.
    assert two_modes([10.0, 24.1, 23.9], 0.03) is None
    assert two_modes([10.0, 10.1, 10.05, 10.1, 24.0], 0.03) is None


def test_a_difference_that_is_allowed_and_equal_values_are_no_modes() -> None:
    values = [100.0, 100.1, 104.0, 104.1] * 5
    assert two_modes(values, 0.03) is not None
    assert two_modes(values, 0.10) is None
    assert two_modes([7.0] * 50, 0.03) is None
    assert two_modes([], 0.03) is None
