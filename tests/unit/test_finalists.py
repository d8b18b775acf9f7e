"""Who wins among the finalists."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.evaluate.finalists import Finalist, rank
from pipeline.search.api import Estimate
from pipeline.search.confirm import Confirmed


def finalist(index: int, accuracy: float, latency_ms: float, stderr_ms: float = 0.001) -> Finalist:
    nothing: Any = SimpleNamespace()
    measured = Estimate(latency_ms, stderr_ms, source="measured")
    return Finalist(Confirmed(index, nothing, measured), nothing, nothing, accuracy)


@pytest.mark.parametrize(
    ("finalists", "order"),
    [
        ([(0.97, 0.3), (0.98, 0.5), (0.96, 0.2)], [1, 0, 2]),
        ([(0.98, 0.5), (0.98, 0.3)], [1, 0]),  # as accurate: the faster one
        ([(0.99, 0.99), (0.98, 0.5), (0.97, 0.4)], [1, 2, 0]),  # the first only just keeps to it
        ([(0.99, 0.99), (0.98, 0.985)], [0, 1]),  # both do
    ],
)
def test_the_most_accurate_wins_with_something_to_spare(
    finalists: list[tuple[float, float]], order: list[int]
) -> None:
    made = [finalist(index, *figures) for index, figures in enumerate(finalists)]
    assert [f.index for f in rank(made, 1.0)] == order


def test_a_wide_interval_is_close_too() -> None:
    sure, unsure = finalist(0, 0.97, 0.9), finalist(1, 0.98, 0.9, 0.05)
    assert [f.index for f in rank([unsure, sure], 1.0)] == [0, 1]
