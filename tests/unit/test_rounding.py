"""Steps that latencies were recorded in, told from the values alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.search.rounding import least_above, step_of, variance_of


def drawn(count: int, seed: int = 0) -> np.ndarray:
    """Return latencies around 20 ms, no two alike."""
    return np.random.default_rng(seed).lognormal(3.0, 0.4, count)


@pytest.mark.parametrize("step", [1.0, 0.5, 0.1, 0.25, 4.0, 1.0 / 1.024, 0.01])
@pytest.mark.parametrize("unit", [1.0, 1e-3, 1e3])
@pytest.mark.parametrize("count", [5, 20, 2000])
def test_a_step_is_found_whatever_its_size_and_unit(step: float, unit: float, count: int) -> None:
    kept = (np.rint(drawn(count) / step) * step * unit).astype(np.float32).astype(np.float64)
    found = step_of(kept) / (step * unit)
    # Few values may all be multiples of two or three steps.
    assert found == pytest.approx(round(found), rel=1e-5)
    assert 1 <= round(found) <= (3 if count == 5 else 1)


def test_what_was_not_rounded_has_no_step_but_by_a_rare_coincidence() -> None:
    for count, at_most in ((3, 3), (5, 1), (10, 0), (500, 0)):
        found = [step_of(drawn(count, seed)) > 0 for seed in range(200)]
        assert sum(found) <= at_most
    assert step_of(drawn(15_000).astype(np.float32).astype(np.float64)) == 0.0


def test_values_that_are_all_equal_have_the_step_that_hides_most() -> None:
    assert step_of(np.full(6, 3.0)) == pytest.approx(3.0)
    assert step_of(np.array([4.0, 5.0, 5.0, 4.0])) == 1.0


@pytest.mark.parametrize("values", [[], [7.0], [20.0, 21.0], [math.nan, 0.0, -1.0, math.inf]])
def test_too_few_values_say_nothing(values: list[float]) -> None:
    assert step_of(np.array(values)) == 0.0


def test_what_is_no_latency_is_left_out() -> None:
    assert step_of(np.array([math.nan, 12.0, 0.0, 13.0, 15.0, 20.0, math.inf])) == 1.0


def test_a_limit_in_steps_holds_up_to_where_values_are_rounded_to_it() -> None:
    assert least_above(14.0, 1.0) == 14.5
    assert least_above(14.3, 1.0) == 14.5
    assert least_above(0.3, 0.1) == pytest.approx(0.35)  # 0.3 is 2.9999… steps of 0.1
    assert least_above(14.3, 0.0) == 14.3
    assert least_above(math.inf, 1.0) == math.inf


def test_rounding_has_the_variance_of_what_it_takes_away() -> None:
    values = np.random.default_rng(3).uniform(0.0, 1000.0, 20_000)
    assert variance_of(4.0) == pytest.approx((values - np.rint(values / 4) * 4).var(), rel=0.03)
