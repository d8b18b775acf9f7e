from __future__ import annotations

import math

import pytest

from device_agents.errors import ConfigError
from pipeline.search import objective as objectives
from pipeline.search.api import Estimate
from pipeline.search.objective import Constrained, MnasNetObjective, ParetoArea, SeveralDevices
from pipeline.search.objective.constrained import probability_within
from pipeline.search.objective.proxyless import add_linear, mul_log
from pipeline.search.objective.several import DeviceTarget, metric
from pipeline.search.pareto import hypervolume


def estimates(accuracy: float, latency_ms: float, stderr: float = 0.0) -> dict[str, Estimate]:
    return {
        "accuracy": Estimate(accuracy, 0.0, "trained"),
        "latency_ms": Estimate(latency_ms, stderr, "measured"),
    }


def test_an_unknown_objective_names_the_known() -> None:
    have = ", ".join(objectives.OBJECTIVES)
    with pytest.raises(ConfigError, match=f"no objective 'sofft' known; have {have}"):
        objectives.create("sofft", 1.0)


def test_the_exponent_is_that_of_the_side_it_belongs_to() -> None:
    soft = objectives.create("soft", 10.0, exponent=-0.5).score
    assert soft(estimates(0.5, 40.0)) == pytest.approx(0.25)
    assert soft(estimates(0.5, 2.5)) == pytest.approx(1.0)
    hard = objectives.create("hard", 10.0, exponent=-0.5).score
    assert hard(estimates(0.5, 40.0)) == pytest.approx(0.25 - 1.0)  # over a limit
    assert hard(estimates(0.5, 2.5)) == 0.5


@pytest.mark.parametrize("name", ["mul-log", "add-linear", "constrained", "pareto"])
def test_an_exponent_where_there_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"exponent is -0.5, .*; {name} has none: leave it out"):
        objectives.create(name, 10.0, exponent=-0.5)


def test_the_elasticity_of_the_logarithm_is_the_paper_s_whatever_the_unit() -> None:
    # b / ln 80 = 0.3 / 4.382: the trade-off of MnasNet's exponent 0.07, at the target.
    step = 1e-6
    elasticity = (mul_log(1 + step) - mul_log(1 - step)) / (2 * step)
    assert elasticity == pytest.approx(0.3 / math.log(80.0), rel=1e-6)
    assert mul_log(1.0) == 1.0
    assert mul_log(1e-9) == 0.0
    in_ms = objectives.create("mul-log", 80.0).score(estimates(0.7, 100.0))
    in_us = objectives.create("mul-log", 80_000.0).score(estimates(0.7, 100_000.0))
    assert in_ms == pytest.approx(in_us)
    # With T = 80 it is the published formula but for the factor a.
    assert in_ms == pytest.approx(math.log(0.7) * (math.log(100) / math.log(80)) ** 0.3)


def test_the_linear_form_adds_a_tenth_for_twice_the_target() -> None:
    assert add_linear(2.0) == pytest.approx(0.1)
    assert add_linear(1.0) == 0.0


def test_a_limit_must_hold_with_the_stated_probability() -> None:
    # P(N(9, 1) <= 10) = 0.841: enough for 0.8 and not for 0.9.
    assert probability_within(Estimate(9.0, 1.0, "table"), 10.0) == pytest.approx(0.8413, abs=1e-4)
    assert Constrained(10.0, 0.8).score(estimates(0.7, 9.0, 1.0)) == 0.7
    assert Constrained(10.0, 0.9).score(estimates(0.7, 9.0, 1.0)) == pytest.approx(
        -0.1587, abs=1e-4
    )
    assert Constrained(10.0).score(estimates(0.2, 10.0)) == 0.2


@pytest.mark.parametrize("stderr", [math.nan, math.inf])
def test_an_error_that_nobody_knows_promises_nothing(stderr: float) -> None:
    assert probability_within(Estimate(9.0, stderr, "predicted"), 10.0) == 0.0
    assert Constrained(10.0).score(estimates(0.9, 9.0, stderr)) == -1.0


def test_outside_the_limit_nearer_is_better_however_accurate() -> None:
    score = Constrained(10.0).score
    ladder = [estimates(0.1, 9.0), estimates(0.99, 10.5, 1.0), estimates(0.99, 11.0, 1.0)]
    ladder += [estimates(0.99, 20.0, 0.01), estimates(0.99, 40.0, 0.01)]
    scores = [score(each) for each in ladder]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == len(scores)


@pytest.mark.parametrize("probability", [0.4, 1.0, math.nan])
def test_a_probability_that_promises_nothing_or_all_is_refused(probability: float) -> None:
    with pytest.raises(ConfigError, match="probability is"):
        Constrained(10.0, probability)


def test_the_pareto_score_is_the_candidate_s_own_hypervolume() -> None:
    area = ParetoArea(10.0)
    whole = 1.0 * area.reference[1]
    alone = hypervolume([0.8], [5.0], reference=area.reference)
    assert area.score(estimates(0.8, 5.0)) == pytest.approx(alone / whole)
    assert area.score(estimates(0.8, 25.0)) < 0


def several(combine: str) -> SeveralDevices:
    targets = (DeviceTarget("pi4", 10.0, 3.0), DeviceTarget("phone", 2.0, 1.0))
    return SeveralDevices(MnasNetObjective.hard(10.0), targets, combine)  # type: ignore[arg-type]


def on_both(pi4_ms: float, phone_ms: float) -> dict[str, Estimate]:
    return {
        "accuracy": Estimate(0.8, 0.0, "trained"),
        metric("pi4"): Estimate(pi4_ms, 0.4, "measured"),
        metric("phone"): Estimate(phone_ms, 0.2, "measured"),
    }


def test_the_worst_device_decides() -> None:
    assert several("worst").score(on_both(5.0, 4.0)) == pytest.approx(0.4 - 1.0)
    folded = several("worst").combine_latencies(on_both(5.0, 4.0))["latency_ms"]
    assert (folded.value, folded.stderr) == pytest.approx((20.0, 1.0))
    assert several("worst").score(on_both(10.0, 2.0)) == 0.8


def test_the_least_sure_device_decides_how_sure_a_limit_on_all_is() -> None:
    """0.95 targets +- 0.001 on one device and 0.94 +- 0.1 on the other: P is that of the other."""
    targets = (DeviceTarget("pi4", 10.0), DeviceTarget("phone", 2.0))
    known = {
        **on_both(9.5, 1.88),
        metric("pi4"): Estimate(9.5, 0.01, "measured"),
    }
    folded = SeveralDevices(Constrained(10.0), targets).combine_latencies(known)["latency_ms"]
    assert folded.value == pytest.approx(9.5)
    least = probability_within(Estimate(1.88, 0.2, "measured"), 2.0)
    assert probability_within(folded, 10.0) == pytest.approx(least)
    assert SeveralDevices(Constrained(10.0), targets).score(known) < 0


def test_weights_let_one_device_pay_for_the_other() -> None:
    folded = several("weighted").combine_latencies(on_both(5.0, 4.0))["latency_ms"]
    assert folded.value == pytest.approx(10.0 * (0.75 * 0.5 + 0.25 * 2.0))
    assert folded.stderr == pytest.approx(10.0 * math.hypot(0.75 * 0.04, 0.25 * 0.1))
    assert several("weighted").score(on_both(5.0, 4.0)) == 0.8


def test_devices_are_given_once_and_all_are_measured() -> None:
    twice = (DeviceTarget("pi4", 1.0), DeviceTarget("pi4", 2.0))
    with pytest.raises(ConfigError, match="give each once"):
        SeveralDevices(MnasNetObjective(1.0), twice)
    with pytest.raises(ConfigError, match="weight of pi4 is 0"):
        SeveralDevices(MnasNetObjective(1.0), (DeviceTarget("pi4", 1.0, 0.0),))
    known = on_both(5.0, 4.0)
    del known[metric("phone")]
    with pytest.raises(ConfigError, match="needs 'latency_ms:phone'"):
        several("worst").score(known)
