from __future__ import annotations

import math

import numpy as np
import pytest

from device_agents.api import Failure
from device_agents.errors import ConfigError
from pipeline.search.api import Estimate, Trial
from pipeline.search.strategy._ranking import check_limit, rank
from pipeline.search.strategy.nsga2 import crowding, fronts


def _trial(accuracy: float | None, latency_ms: float | None, score: float = 0.0) -> Trial[str]:
    given = {"accuracy": accuracy, "latency_ms": latency_ms}
    estimates = {k: Estimate(v, 0.0, "counted") for k, v in given.items() if v is not None}
    return Trial("x", estimates, score)


def test_under_a_limit_what_keeps_it_is_first_then_what_is_nearest_to_it() -> None:
    best, good = _trial(0.9, 10.0), _trial(0.8, 1.0)
    near, far = _trial(0.99, 10.1), _trial(0.999, 20.0)
    failed = Trial("x", failure=Failure("out of memory"))
    order = [failed, far, near, good, best]
    assert sorted(order, key=lambda t: rank(t, 10.0)) == order


def test_without_a_limit_the_score_alone_counts() -> None:
    slow, fast = _trial(0.9, 90.0, score=2.0), _trial(0.95, 1.0, score=1.0)
    assert rank(slow, None) > rank(fast, None)


def test_a_limit_without_estimates_ranks_by_score() -> None:
    assert rank(_trial(None, None, 2.0), 10.0) > rank(_trial(None, None, 1.0), 10.0)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_what_is_no_number_is_a_failure(broken: float) -> None:
    assert rank(_trial(broken, 5.0), 10.0) == rank(Trial("x"), 10.0) == (0, 0.0)


@pytest.mark.parametrize("unknown", [math.nan, math.inf])
def test_a_latency_that_is_no_number_keeps_no_limit(unknown: float) -> None:
    assert rank(_trial(0.9, unknown, 1.0), 10.0) == (0, 0.0)
    assert rank(_trial(0.9, unknown, 1.0), None) == (2, 1.0)


def test_a_limit_must_be_above_zero() -> None:
    with pytest.raises(ConfigError, match="this, latency_limit_ms: -1 is not above 0"):
        check_limit("this", -1)


def test_fronts_are_those_found_by_comparing_all_pairs() -> None:
    goals = np.random.default_rng(0).integers(0, 6, (40, 2)).astype(float)
    left, expected = list(range(40)), []
    while left:
        front = [
            i
            for i in left
            if not any((goals[j] <= goals[i]).all() and (goals[j] < goals[i]).any() for j in left)
        ]
        expected.append(front)
        left = [i for i in left if i not in front]
    assert fronts(goals) == expected
    assert len(expected) > 2


def test_crowding_is_the_perimeter_of_the_neighbours_box_and_endless_at_the_ends() -> None:
    goals = np.array([[0.0, 8.0], [1.0, 6.0], [4.0, 1.0], [8.0, 0.0]])
    # Spans 8 and 8: the second point has neighbours 0 and 4 apart, 8 and 1 apart.
    np.testing.assert_allclose(crowding(goals), [np.inf, 4 / 8 + 7 / 8, 7 / 8 + 6 / 8, np.inf])


def test_points_that_are_equal_are_not_crowded_apart() -> None:
    assert crowding(np.ones((3, 2)))[1] == 0
