"""Intervals of shares against published ones, and against what they are defined by."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest

from pipeline.data.proportions import Paired, enough, wilson


def test_wilson_interval_is_the_published_one() -> None:
    # Newcombe 1998, table I: 81 of 263, score method without continuity correction.
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(1.0, 20) == pytest.approx((0.8389, 1.0), abs=5e-5)
    assert wilson(0.5, 0) is None
    assert wilson(math.nan, 10) is None


@pytest.mark.parametrize("n", [1, 7, 359, 10_000])
def test_wilson_interval_is_scipys(n: int) -> None:
    for k in {0, 1, n // 3, n - 1, n}:
        expected = binomtest(k, n).proportion_ci(method="wilson")
        assert wilson(k / n, n) == pytest.approx((expected.low, expected.high), abs=1e-8)


def test_the_paired_interval_is_the_published_one() -> None:
    # Data of Bentur et al. 2009, as Fagerland, Lydersen and Laake, "Recommended tests and
    # confidence intervals for paired binomial proportions" (2014), treat them: 1 and 7 of 21.
    assert Paired(21, 1, 7).interval() == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize(("b", "c", "n"), [(1, 7, 21), (40, 20, 160), (36, 26, 2500), (0, 2, 359)])
def test_its_ends_are_where_the_score_test_refuses(b: int, c: int, n: int) -> None:
    """The statistic with the share of the second most likely at each difference, by brute force."""
    for delta in Paired(n, b, c).interval():

        def unlikely(share: float, delta: float = delta) -> float:
            first, same = share + delta, 1 - 2 * share - delta
            parts = ((b, first), (c, share), (n - b - c, same))
            return -sum(k * math.log(max(p, 1e-300)) for k, p in parts if k)

        low, high = max(0.0, -delta), (1 - delta) / 2
        share = minimize_scalar(unlikely, bounds=(low, high), method="bounded",
                                options={"xatol": 1e-12}).x  # fmt: skip
        score = (b - c - n * delta) / math.sqrt(n * (2 * share + delta * (1 - delta)))
        assert abs(score) == pytest.approx(1.96, abs=2e-3)


@pytest.mark.parametrize("n", [40, 359, 5000])
def test_it_excludes_no_difference_exactly_where_mcnemar_does(n: int) -> None:
    for b in range(13):
        for c in range(13):
            low, high = Paired(n, b, c).interval()
            told = b + c > 0 and (b - c) ** 2 / (b + c) > 1.959964**2
            assert (low > 0 or high < 0) == told, (b, c)
            mirrored = Paired(n, c, b).interval()
            assert mirrored == pytest.approx((-high, -low), abs=1e-9)


def test_the_ends_of_what_is_possible() -> None:
    assert Paired(21, 21, 0).interval()[1] == pytest.approx(1.0)
    assert Paired(21, 0, 21).interval()[0] == pytest.approx(-1.0)
    # Two networks that agree on every image are not shown to be equal: 3.84 / (n + 3.84).
    low, high = Paired(359, 0, 0).interval()
    assert (-low, high) == pytest.approx((0.010587, 0.010587), abs=1e-5)


def test_pairs_are_counted_image_by_image() -> None:
    first, second = np.array([1, 1, 0, 0, 1], bool), np.array([1, 0, 0, 1, 0], bool)
    assert Paired.of(first, second) == Paired(5, 2, 1)
    assert Paired.of(first, second).difference == pytest.approx(0.2)
    with pytest.raises(ValueError, match="no pairs"):
        Paired.of(first, second[:3])


def test_so_many_images_would_tell() -> None:
    few = Paired(359, 0, 2)
    needed = enough(few, -0.02)
    assert needed is not None
    scale = needed / 359
    low, _ = Paired(needed, 0, round(2 * scale)).interval()
    assert low == pytest.approx(-0.02, abs=0.004)
    assert enough(Paired(400, 0, 2), -0.005) is None  # it is the limit itself
