from __future__ import annotations

import pytest

from device_agents.errors import ConfigError
from pipeline.search import objective as objectives
from pipeline.search.api import Estimate
from pipeline.search.objective import MnasNetObjective

SOFT, HARD = MnasNetObjective(80.0), MnasNetObjective.hard(80.0)


@pytest.mark.parametrize(
    ("objective", "latency_ms", "reward"),
    [
        (SOFT, 40.0, 0.5249),
        (SOFT, 80.0, 0.5),
        (SOFT, 160.0, 0.4763),
        (HARD, 40.0, 0.5),
        (HARD, 80.0, 0.5),
        (HARD, 160.0, 0.25),
    ],
)
def test_values_of_the_paper_s_formula(
    objective: MnasNetObjective, latency_ms: float, reward: float
) -> None:
    assert objective.reward(0.5, latency_ms) == pytest.approx(reward, abs=5e-5)


def test_doubling_the_latency_is_worth_five_percent_of_accuracy() -> None:
    assert SOFT.reward(0.5 * 1.05, 100.0) == pytest.approx(SOFT.reward(0.5, 50.0), rel=1e-3)


def test_score_reads_the_two_estimates() -> None:
    estimates = {
        "accuracy": Estimate(0.5, 0.01, "trained"),
        "latency_ms": Estimate(160.0, 1.0, "measured"),
    }
    assert SOFT.score(estimates) == SOFT.reward(0.5, 160.0)
    assert HARD.score(estimates) == HARD.reward(0.5, 160.0) - 1.0 == -0.75


@pytest.mark.parametrize("exponent", [-1.0, -0.07, 0.0])
def test_nothing_over_a_hard_limit_scores_as_much_as_anything_within_it(exponent: float) -> None:
    hard = objectives.create("hard", 80.0, exponent=exponent)

    def score(accuracy: float, latency_ms: float) -> float:
        known = {"accuracy": accuracy, "latency_ms": latency_ms}
        return hard.score({name: Estimate(v, 0.0, "measured") for name, v in known.items()})

    within = [score(accuracy, ms) for accuracy in (0.0, 0.3, 0.908) for ms in (1.0, 80.0)]
    over = [score(accuracy, ms) for accuracy in (0.5, 0.912, 1.0) for ms in (80.001, 80.24, 400.0)]
    assert max(over) <= 0.0 <= min(within)
    assert max(over) < score(0.001, 80.0)
    # Outside it the paper's order stands: nearer and more accurate is better.
    assert score(0.6, 100.0) > score(0.5, 100.0) >= score(0.5, 120.0)


def test_an_exponent_that_rewards_slowness_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"beta is 0\.07.*paper uses -0\.07"):
        MnasNetObjective(80.0, beta=0.07)
