from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.search.pareto import hypervolume, pareto_front
from tests.spec_strategies import REPLAY

# Few values, so that ties on one axis and on both are common.
POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 6)), max_size=25)


def _dominates(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] >= b[0] and a[1] <= b[1] and a != b


@REPLAY
@given(POINTS)
def test_front_is_what_nothing_dominates(points: list[tuple[int, int]]) -> None:
    front = pareto_front([a for a, _ in points], [t for _, t in points]).tolist()
    on_front = {p for p in points if not any(_dominates(q, p) for q in points)}
    assert {points[i] for i in front} == on_front
    assert front == sorted((points.index(p) for p in on_front), key=lambda i: points[i][1])


@REPLAY
@given(POINTS)
def test_hypervolume_is_the_number_of_dominated_unit_squares(
    points: list[tuple[int, int]],
) -> None:
    # Reference (2, 5): accuracy squares above 2 up to 6, latency squares from 1 up to 5.
    squares = sum(
        any(accuracy >= high and latency <= low for accuracy, latency in points)
        for high in range(3, 7)
        for low in range(1, 5)
    )
    area = hypervolume([a for a, _ in points], [t for _, t in points], reference=(2.0, 5.0))
    assert area == pytest.approx(squares)


def test_of_equal_points_the_first_is_kept() -> None:
    assert pareto_front([0.5, 0.7, 0.7, 0.5], [3.0, 4.0, 4.0, 3.0]).tolist() == [0, 1]


def test_nan_is_never_on_the_front() -> None:
    assert pareto_front([np.nan, 0.5, 0.9], [1.0, 2.0, np.nan]).tolist() == [1]


def test_nothing_in_nothing_out() -> None:
    assert pareto_front([], []).tolist() == []
    assert hypervolume([], [], reference=(0.0, 1.0)) == 0.0


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="not equal vectors"):
        pareto_front([0.1, 0.2], [1.0])
