"""What a run came to: when a target is met, missed, not told, or nothing was learnt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents.api import BenchProtocol, Measurement, SensorReading
from pipeline.data.tasks.classification import Classification
from pipeline.evaluate.verdict import Contender, judge
from pipeline.recipe.sections import TargetSection

if TYPE_CHECKING:
    from pipeline.store.result import Comparison

TIMED = Measurement(
    device="board", device_digest="", model_sha256="", reference_sha256=None, agent_sha256="",
    runtime="tflite", runtime_version="1", threads=1, cpus=(), protocol=BenchProtocol.thorough(),
    started_at="", samples_ns=(), reference_samples_ns=(), process_medians_ms=(), median_ms=0.48,
    ci95_ms=(0.47, 0.49), p90_ms=0.5, ratio=0.6, ratio_ci95=(0.58, 0.62),
    reference_median_ms=0.8, partitions=1, before=SensorReading(), after=SensorReading(),
    verdict="valid", reasons=(), busy_ns=0, timed_ns=0, warmup_ns=0, load_ns=0, peak_rss_bytes=0,
)  # fmt: skip


def contender(name: str, images: int, wrong: range, before_export: float = 0.99) -> Contender:
    right = np.ones(images, bool)
    right[list(wrong)] = False
    return Contender(name, right, 0.95, before_export)


def judged(
    images: int = 2500,
    winner: range = range(0),
    baseline: range | str = range(0),
    timed: Measurement = TIMED,
    guessing: float = 0.1,
    **target: float,
) -> Comparison:
    """Judge a run in which winner and baseline name the images of these ranges wrongly."""
    section = TargetSection("mobilenet-v2", **{"latency_ratio": 0.9, **target})  # type: ignore[arg-type]
    other = baseline if isinstance(baseline, str) else contender("mnv2 x1", images, baseline)
    return judge(section, contender("the winner", images, winner), other, timed, guessing=guessing)


@pytest.mark.parametrize(
    ("target", "met"),
    [
        ({"latency_ratio": 0.62}, True),
        ({"latency_ratio": 0.61}, False),  # the interval reaches over it
        ({"latency_ms": 0.49}, True),
        ({"latency_ms": 0.485}, False),
        ({"latency_ms": 0.49, "latency_ratio": 0.1}, True),  # milliseconds stand in for the ratio
    ],
)
def test_the_upper_end_of_the_latency_is_within_the_limit(
    target: dict[str, float],
    met: bool,  # noqa: FBT001
) -> None:
    found = judged(accuracy_tolerance=0.01, **target)
    assert found.met is met
    assert f"target {'met' if met else 'missed'}" in found.sentence


def test_a_target_in_milliseconds_is_stated_in_milliseconds() -> None:
    found = judged(latency_ms=0.6, accuracy_tolerance=0.01)
    assert "(at most 0.6 ms, within 1 points)" in found.sentence
    assert found.target_ms == 0.6
    assert found.winner_ci95_ms == (0.47, 0.49)
    assert found.target_ratio == pytest.approx(0.6 / 0.8)
    assert judged(latency_ratio=0.7).target_ratio == 0.7
    assert judged(latency_ratio=0.7).target_ms is None


@pytest.mark.parametrize(
    ("images", "winner", "baseline", "outcome"),
    [
        # The first quickstart: two images of 359, half a point asked. Neither met nor missed,
        (359, range(4), range(2), "not told apart"),
        # nor if the two agree on every image: 359 images do not show so small a difference.
        (359, range(2), range(2), "not told apart"),
        (2500, range(50), range(50), "met"),
        (2500, range(50), range(47), "met"),
        (2500, range(50), range(35), "not told apart"),
        (2500, range(100), range(40), "missed"),
        # As many more mistakes, but on different images: the pairs say less.
        (2500, range(50), range(1000, 1047), "not told apart"),
        (2500, range(0), range(1000, 1030), "met"),
    ],
)
def test_accuracy_is_judged_by_the_paired_interval(
    images: int, winner: range, baseline: range, outcome: str
) -> None:
    found = judged(images, winner, baseline, accuracy_tolerance=0.005)
    assert found.outcome == outcome
    assert f"{images:,} test images" in found.sentence
    low, high = found.accuracy_gain_ci95 or (0.0, 0.0)
    assert f"95 % interval {100 * low:+.2f} to {100 * high:+.2f})" in found.sentence
    assert ("cannot be told from" in found.sentence) == (outcome == "not told apart")


def test_what_would_tell_is_said() -> None:
    found = judged(359, range(2), range(2), accuracy_tolerance=0.005)
    assert "(at most 0.9, within 0.5 points) cannot be told from 359 images" in found.sentence
    assert "about 1,600 would, if the difference stays" in found.sentence


def test_slow_is_missed_whatever_the_accuracy_is() -> None:
    found = judged(359, range(4), range(2), latency_ratio=0.5, accuracy_tolerance=0.005)
    assert found.outcome == "missed"


@pytest.mark.parametrize(
    ("images", "right", "classes", "learnt"),
    [
        (400, 100, 4, False),  # 25 % of four classes
        (400, 115, 4, False),  # 28.75 %: its interval still reaches to 25 %
        (400, 125, 4, True),
        (60, 20, 4, False),  # a third of few images
        (8, 8, 2, True),
    ],
)
def test_a_network_at_chance_has_learnt_nothing(
    images: int, right: int, classes: int, *, learnt: bool
) -> None:
    guessing = Classification().guessing(np.arange(images) % classes)
    same = range(right, images)
    found = judged(images, same, same, guessing=guessing, accuracy_tolerance=1.0)
    assert (found.outcome == "learnt nothing") == (not learnt)
    if not learnt:
        assert "the winner and mnv2 x1 cannot be told from guessing" in found.sentence
        assert "right for 25.00%), so nothing is compared and nothing deployed" in found.sentence


def test_guessing_the_commonest_of_uneven_classes_is_chance_too() -> None:
    guessing = Classification().guessing(np.array([0] * 270 + [1] * 30))
    assert guessing == 0.9
    found = judged(300, range(25), range(10), guessing=guessing, accuracy_tolerance=1.0)
    assert found.outcome == "learnt nothing"  # 91.7 % where 90 % need no network
    assert "the winner cannot be told from guessing" in found.sentence


def test_a_baseline_at_chance_is_no_baseline() -> None:
    found = judged(400, range(4), range(100, 400), guessing=0.25, accuracy_tolerance=1.0)
    assert found.outcome == "learnt nothing"
    assert ": mnv2 x1 cannot be told from guessing" in found.sentence


def test_a_weak_baseline_is_named_as_the_reason() -> None:
    found = judged(2500, range(50), range(400), accuracy_tolerance=0.005)
    assert found.met
    (caution,) = found.cautions
    assert "The baseline is weak, which may be why the target looks met: mnv2 x1 has" in caution
    assert "quantisation took 15.00 of them (99.00 % before)" in caution.replace("%", " %")
    assert "train.epochs" in caution
    assert judged(2500, range(50), range(55), accuracy_tolerance=0.005).cautions == ()
    # A tolerance that allows any loss does not make any baseline a match.
    assert judged(2500, range(50), range(400), accuracy_tolerance=1.0).cautions
    assert judged(2500, range(50), range(80), accuracy_tolerance=0.05).cautions == ()


def test_without_a_baseline_the_winner_keeps_its_figures() -> None:
    alone = replace(TIMED, ratio=None, ratio_ci95=None, reference_median_ms=None)
    why = "no width of mobilenet-v2 could be used (its file is wrong); choose another"
    for target in ({}, {"latency_ms": 0.6}):
        found = judged(400, range(4), why, alone, **target)
        assert found.outcome == "no comparison"
        assert (found.winner_ms, found.winner_accuracy_test) == (0.48, 0.99)
        assert found.ratio is found.baseline_ms is found.baseline_accuracy_test is None
        assert f"no comparison, for {why}" in found.sentence
    assert judged(400, range(300), why, alone, guessing=0.25).outcome == "learnt nothing"


def test_a_doubtful_measurement_is_said_to_be_one() -> None:
    busy = replace(TIMED, verdict="suspect", reasons=("the machine was busy",))
    found = judged(timed=busy, accuracy_tolerance=0.01)
    assert "interleaved, suspect: the machine was busy)" in found.sentence
    assert (found.verdict, found.reasons) == ("suspect", ("the machine was busy",))
    alone = replace(busy, ratio=None, ratio_ci95=None)
    assert "ms (suspect: the machine was busy) at" in judged(400, range(4), "x", alone).sentence
