"""Widths under a budget of time, against every combination there is."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.compress.allocation import PARTS, Choice, allocate

CHOICES = st.builds(
    Choice,
    st.integers(1, 512),
    st.floats(-5, 1).map(lambda value: round(value, 3)),
    st.floats(0, 100),
)
GROUPS = st.lists(st.lists(CHOICES, min_size=1, max_size=4), min_size=1, max_size=4)


@given(GROUPS, st.floats(-15, 5))
def test_no_combination_within_the_budget_keeps_more(
    groups: list[list[Choice]], budget_ms: float
) -> None:
    found = allocate(groups, budget_ms)
    assert all(one in group for one, group in zip(found.choices, groups, strict=True))
    least_ms = sum(min(choice.cost_ms for choice in group) for group in groups)
    if least_ms > budget_ms:
        assert found.cost_ms == pytest.approx(least_ms)
        return
    assert found.cost_ms <= budget_ms + 1e-9
    assert found.slack_ms == pytest.approx(len(groups) * (budget_ms - least_ms) / PARTS)
    # Rounding gives away at most the slack: nothing that costs that much less keeps more.
    fits = [
        sum(choice.kept for choice in one)
        for one in product(*groups)
        if sum(choice.cost_ms for choice in one) <= budget_ms - found.slack_ms - 1e-9
    ]
    assert found.kept >= max(fits, default=0) - 1e-9


def test_costs_of_whole_parts_lose_nothing_to_rounding() -> None:
    group = [Choice(1, -1.0, 1.0), Choice(2, -0.9, 2.0), Choice(3, 0.0, 3.0)]
    found = allocate([group] * 3, -1.8, parts=12)  # 0.1 each
    assert sorted(choice.width for choice in found.choices) == [2, 2, 3]
    assert found.cost_ms == pytest.approx(-1.8)


def test_of_choices_that_keep_as_much_the_cheaper_is_taken() -> None:
    group = [Choice(16, 0.0, 5.0), Choice(8, -1.0, 5.0)]
    assert allocate([group], 0.0).choices == (group[1],)


def test_what_does_not_fit_is_the_cheapest_there_is() -> None:
    groups = [[Choice(8, -1.0, 1.0), Choice(16, 0.0, 2.0)]] * 2
    found = allocate(groups, -3.0)
    assert found.cost_ms == -2.0
    assert [choice.width for choice in found.choices] == [8, 8]
