"""Which chains of passes are tried and which is taken, of outcomes that are known."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.number_format import DYNAMIC8, FLOAT16, FLOAT32, STATIC8
from pipeline.compress.choosing import (
    Chain,
    Figures,
    Goal,
    Tried,
    choose,
    fastest_format,
    find_front,
    propose_formats,
    propose_pruning,
)

ALL = (FLOAT32, FLOAT16, DYNAMIC8, STATIC8)


def tried(words: str, latency_ms: float, lost: float, size: int = 1000, refused: str = "") -> Tried:
    near = (0.99 * latency_ms, 1.01 * latency_ms)
    figures = Figures(latency_ms, near, "valid", size, lost)
    return Tried(Chain(tuple(words.split()), "why"), figures, refused)


WHOLE = tried("", 10.0, 0.0, 4000)
HALF = tried("quantize:float16", 10.0, 0.0, 2000)
DYNAMIC = tried("quantize:dynamic8", 9.0, 0.1)
STATIC = tried("quantize:static8", 5.0, 0.4)
FORMATS = (WHOLE, HALF, DYNAMIC, STATIC)


def test_number_formats_are_tried_as_the_file_and_the_samples_allow() -> None:
    chains, skipped = propose_formats(ALL, calibrates=True)
    assert [chain.name for chain in chains] == [
        *("as it came", "quantize:float16", "quantize:dynamic8", "quantize:static8"),
    ]
    assert [chain.number_format for chain in chains] == [None, FLOAT16, DYNAMIC8, STATIC8]
    assert not skipped
    chains, skipped = propose_formats((FLOAT32, STATIC8), calibrates=False)
    assert [chain.words for chain in chains] == [()]
    assert [(one.name, one.why.split(";")[0]) for one in skipped] == [
        ("quantize:float16", "the file format does not hold it"),
        ("quantize:dynamic8", "the file format does not hold it"),
        ("quantize:static8", "it needs samples to calibrate on"),
    ]


@pytest.mark.parametrize(
    ("goal", "found", "trains", "chains", "skipped"),
    [
        # A format alone does it.
        (Goal(6.0, None), FORMATS, False, [], "quantize:static8 alone meets the target"),
        (Goal(20.0, None), FORMATS, True, [], "as it came alone meets the target"),
        (Goal(6.0, 0.5), FORMATS, False, [], "loses at most 0.5 points"),
        # None is fast enough: the fastest one is joined with pruning.
        (Goal(3.0, None), FORMATS, False, ["prune", "prune quantize:static8"], ""),
        (
            *(Goal(3.0, None), FORMATS, True),
            *(["prune finetune", "prune finetune quantize:static8"], ""),
        ),
        # It is fast enough and loses too much: pruning it would lose more.
        (
            *(Goal(6.0, None), (*FORMATS[:3], tried("quantize:static8", 5.0, 1.5)), False),
            *(["prune"], "alone meets the target, and pruning would add"),
        ),
        # The fastest that may be taken is another one, or none.
        (Goal(3.0, 0.2), FORMATS, False, ["prune", "prune quantize:dynamic8"], ""),
        (Goal(3.0, None), FORMATS[:2], False, ["prune"], "none shows to be faster"),
        (
            *(Goal(3.0, None), (WHOLE, tried("quantize:static8", 5.0, 0.0, refused="no")), False),
            *(["prune"], "none shows to be faster"),
        ),
        # Nothing says how far.
        (Goal(None, None), FORMATS, False, [], "without --target-ms"),
    ],
)
def test_pruning_is_tried_where_no_number_format_is_enough(
    *, goal: Goal, found: tuple[Tried, ...], trains: bool, chains: list[str], skipped: str
) -> None:
    proposed, left = propose_pruning(found, goal, trains=trains)
    assert [chain.name for chain in proposed] == chains
    assert skipped in "".join(one.why for one in left)
    assert bool(left) == bool(skipped)
    assert all(chain.why for chain in proposed)


def test_a_difference_that_may_be_chance_is_no_reason_for_a_number_format() -> None:
    near = tried("quantize:static8", 9.75, 0.0)
    assert fastest_format((WHOLE, near), Goal(3.0, None)) is None
    assert near.figures is not None
    surely = replace(near, figures=replace(near.figures, ci95_ms=(9.74, 9.76)))
    assert fastest_format((WHOLE, surely), Goal(3.0, None)) is surely


def test_what_meets_the_target_and_loses_least_is_taken_then_the_fastest() -> None:
    exact, gains = tried("prune", 3.0, 0.4), tried("prune quantize:static8", 2.0, -0.3)
    assert choose((WHOLE, STATIC, exact), Goal(6.0, None)).taken is exact
    # What is gained on a few samples is chance: it counts as nothing lost.
    even = tried("quantize:dynamic8", 1.0, 0.0)
    assert choose((WHOLE, gains, even), Goal(6.0, None)).taken is even
    assert choose((WHOLE, STATIC), Goal(20.0, None)).taken is WHOLE


def test_without_a_target_the_fastest_that_loses_little_is_taken() -> None:
    much = tried("quantize:static8", 1.0, 1.2)
    assert choose((WHOLE, DYNAMIC, much), Goal(None, None)).taken is DYNAMIC
    assert choose((WHOLE, DYNAMIC, much), Goal(None, 2.0)).taken is much
    assert choose((WHOLE, DYNAMIC, much), Goal(None, 0.0)).taken is WHOLE
    # What a measurement hardly tells apart is told by what it loses, and then by its size.
    near = tried("quantize:float16", 10.1, 0.0, 2000)
    assert choose((WHOLE, near), Goal(None, None)).taken is near
    lossy = tried("quantize:float16", 9.9, 0.5, 2000)
    assert choose((WHOLE, lossy), Goal(None, None)).taken is WHOLE


@pytest.mark.parametrize(
    ("goal", "found", "words"),
    [
        (Goal(1.0, None), FORMATS, "the closest is quantize:static8 with 5 ms"),
        (Goal(1.0, 0.2), FORMATS, "the closest is quantize:dynamic8 with 9 ms"),
        (Goal(20.0, 0.2), (STATIC,), "the one that loses least is quantize:static8"),
        (Goal(1.0, None), (replace(STATIC, refused="no"),), "none of them gave a file"),
        (Goal(1.0, None), (Tried(STATIC.chain, None, "no"),), "none of them gave a file"),
        (Goal(9.0, None), (tried("prune", 2.0, math.nan),), "the closest is prune"),
    ],
)
def test_where_none_can_be_taken_the_closest_is_named(
    goal: Goal, found: tuple[Tried, ...], words: str
) -> None:
    chosen = choose(found, goal)
    assert chosen.taken is None
    assert words in chosen.why


def test_why_a_chain_is_not_taken_is_said() -> None:
    assert "5 ms, more than 3" in Goal(3.0, None).refusal(STATIC)
    assert "0.40 points, more than 0.2" in Goal(9.0, 0.2).refusal(STATIC)
    assert "0.40 points, more than 0.2" in Goal(None, 0.2).refusal(STATIC)
    assert Goal(9.0, None).refusal(replace(STATIC, refused="it is wrong")) == "it is wrong"
    assert Goal(9.0, None).refusal(tried("prune", 1.0, math.nan))
    assert not Goal(9.0, None).refusal(STATIC)


outcomes = st.lists(
    st.builds(
        tried,
        st.sampled_from(["", "prune", "quantize:static8", "prune quantize:static8"]),
        st.sampled_from([1.0, 2.0, 3.0, 5.0]),
        st.sampled_from([-0.5, 0.0, 0.5, 2.0, math.nan]),
        st.sampled_from([100, 200, 300]),
        st.sampled_from(["", "", "", "refused"]),
    ),
    min_size=1,
    max_size=8,
)
goals = st.builds(
    Goal, st.sampled_from([None, 0.5, 2.0, 4.0]), st.sampled_from([None, 0.0, 0.5, 3.0])
)


@given(outcomes, goals)
def test_what_is_taken_meets_what_was_asked_and_nothing_that_does_is_better(
    found: list[Tried], goal: Goal
) -> None:
    taken = choose(found, goal).taken
    able = [one for one in found if not goal.refusal(one) and one.figures is not None]
    assert (taken is None) == (not able)
    if taken is None or taken.figures is None:
        return
    figures = taken.figures
    assert goal.target_ms is None or figures.latency_ms <= goal.target_ms
    assert goal.max_drop is None or figures.lost_points <= goal.max_drop
    for one in able:
        assert one.figures is not None
        costs = (one.figures.cost, one.figures.latency_ms)
        mine = (figures.cost, figures.latency_ms)
        if goal.target_ms is None:  # latencies that are drawn are told apart
            costs = (one.figures.latency_ms, one.figures.cost)
            mine = (figures.latency_ms, figures.cost)
        assert mine <= costs


@given(outcomes)
def test_the_front_is_what_nothing_dominates(found: list[Tried]) -> None:
    front = find_front(found)
    there = [one for one in found if not one.refused]

    def axes(one: Tried) -> tuple[float, float, int]:
        assert one.figures is not None
        lost = math.inf if math.isnan(one.figures.lost_points) else one.figures.cost
        return one.figures.latency_ms, lost, one.figures.bytes

    for one, other in product(there, front):
        worse = [a >= b for a, b in zip(axes(other), axes(one), strict=True)]
        assert not all(worse) or axes(one) == axes(other)
    for one in there:  # whatever is left out has one on the front that is as good in all
        assert one in front or any(
            all(a <= b for a, b in zip(axes(other), axes(one), strict=True)) for other in front
        )
