"""The Gaussian process and its acquisition, from first principles."""

from __future__ import annotations

import math

import numpy as np
import pytest

from device_agents.api import Failure
from device_agents.errors import ConfigError
from pipeline.search import strategy as strategies
from pipeline.search.api import Estimate, Trial
from pipeline.search.strategy._gaussian_process import GaussianProcess, Kernel
from pipeline.search.strategy.constrained_gp import ConstrainedGPOptions, expected_improvement
from tests.search_problems import Cells, additive

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 4))
Y = np.sin(X[:, 0]) + X[:, 1] * X[:, 2]
KERNEL = Kernel(0.6, 0.9, 0.01, float((X**2).sum(1).mean()))


def test_the_kernel_is_the_formula_pair_by_pair() -> None:
    a, b = X[:3], X[3:5]
    for i, x in enumerate(a):
        for j, z in enumerate(b):
            local = math.exp(-float(((x - z) ** 2).sum()) / (2 * 0.9**2 * KERNEL.scale))
            quadratic = ((1 + float(x @ z) / KERNEL.scale) / 2) ** 2
            assert KERNEL(a, b)[i, j] == pytest.approx(0.6 * local + 0.4 * quadratic)
    assert KERNEL.diagonal(X) == pytest.approx(np.diag(KERNEL(X, X)))


def test_the_posterior_is_the_textbooks() -> None:
    at = RNG.normal(size=(5, 4))
    mean, sd = GaussianProcess(X, Y, KERNEL).predict(at)
    targets = (Y - Y.mean()) / (Y.std() + 1e-6)
    inverse = np.linalg.inv(KERNEL(X, X) + 0.01 * np.eye(12))
    across = KERNEL(X, at)
    amplitude = (targets @ inverse @ targets + 1) / 13
    variance = amplitude * (KERNEL.diagonal(at) - np.diag(across.T @ inverse @ across))
    assert mean == pytest.approx(Y.mean() + (Y.std() + 1e-6) * across.T @ inverse @ targets)
    assert sd == pytest.approx((Y.std() + 1e-6) * np.sqrt(variance))


def test_the_chosen_kernel_is_the_likeliest_of_the_grid() -> None:
    best = GaussianProcess.fitted(X, Y)
    for other in (
        KERNEL,
        Kernel(0.0, 2.0, 0.1, KERNEL.scale),
        Kernel(1.0, 0.5, 0.02, KERNEL.scale),
    ):
        if other.mixture != 0.6:
            assert best.log_likelihood >= GaussianProcess(X, Y, other).log_likelihood


def test_more_points_make_it_surer_and_known_points_are_near_their_values() -> None:
    few, many = GaussianProcess(X[:6], Y[:6], KERNEL), GaussianProcess(X, Y, KERNEL)
    mean, sd = many.predict(X)
    assert np.abs(mean - Y).max() < 0.5
    at = RNG.normal(size=(20, 4))
    # In units of each one's own amplitude: a posterior variance never grows with points.
    own = [p.predict(at)[1] / (p._sd * math.sqrt(p._amplitude)) for p in (few, many)]
    assert (own[1] <= own[0] + 1e-9).all()
    assert sd.max() < many.predict(at)[1].max()


def test_expected_improvement_is_the_mean_of_what_is_gained() -> None:
    for mean, sd, best in ((0.0, 1.0, 0.5), (2.0, 0.3, 1.0), (-1.0, 2.0, 1.0)):
        drawn = np.random.default_rng(1).normal(mean, sd, 400_000)
        found = expected_improvement(np.array([mean]), np.array([sd]), best)[0]
        assert found == pytest.approx(np.maximum(drawn - best, 0).mean(), rel=0.02)


SPACE = Cells(depth=5, options=4)
WORTH = additive(SPACE, 7)
COST = additive(SPACE, 8)


def trial(spec: object) -> Trial:
    """Return accuracy 0.5 to 0.99 and a latency around 10 ms, both additive in the decisions."""
    accuracy = 0.75 + 0.1 * math.tanh(WORTH(spec))  # type: ignore[arg-type]
    latency_ms = 10.0 * math.exp(0.5 * COST(spec))  # type: ignore[arg-type]
    estimates = {
        "accuracy": Estimate(accuracy, 0.0, "trained"),
        "latency_ms": Estimate(latency_ms, 0.0, "measured"),
    }
    return Trial(spec, estimates, accuracy)  # type: ignore[arg-type]


def search(limit_ms: float, seed: int, budget: int = 60) -> list[Trial]:
    strategy = strategies.create(
        "constrained_gp", SPACE, np.random.default_rng(seed), latency_limit_ms=limit_ms
    )
    done: list[Trial] = []
    while len(done) < budget:
        told = [trial(spec) for spec in strategy.ask(5)]
        strategy.tell(told)
        done += told
    return done


def best_within(trials: list[Trial], limit_ms: float) -> float:
    return max(
        (t.score for t in trials if t.estimates["latency_ms"].value <= limit_ms), default=0.0
    )


def test_it_finds_the_best_within_the_limit_where_random_search_does_not() -> None:
    every = [
        trial(SPACE.decode(tuple(np.unravel_index(i, (4,) * 5))))  # type: ignore[arg-type]
        for i in range(4**5)
    ]
    limit_ms = float(np.quantile([t.estimates["latency_ms"].value for t in every], 0.3))
    optimum = best_within(every, limit_ms)
    found = [best_within(search(limit_ms, seed), limit_ms) for seed in range(5)]
    random = [
        best_within(
            [every[i] for i in np.random.default_rng(seed).permutation(4**5)[:60]], limit_ms
        )
        for seed in range(40)
    ]
    assert np.mean(found) > np.mean(random)
    assert np.mean([f == optimum for f in found]) >= 0.8


def test_after_the_start_it_proposes_mostly_networks_within_the_limit() -> None:
    limit_ms = 7.0
    trials = search(limit_ms, 0)
    within = [t.estimates["latency_ms"].value <= limit_ms for t in trials]
    assert np.mean(within[20:]) > 1.5 * np.mean(within[:20])


def test_nothing_is_proposed_twice_while_there_is_something_new() -> None:
    asked = [t.spec for t in search(10.0, 3, budget=100)]
    assert len(set(asked)) == len(asked)


def test_all_failing_is_survived_with_a_limit() -> None:
    strategy = strategies.create(
        "constrained_gp", SPACE, np.random.default_rng(0), latency_limit_ms=5.0
    )
    for _ in range(6):
        strategy.tell([Trial(spec, failure=Failure("out of memory")) for spec in strategy.ask(8)])
    assert len(strategy.ask(4)) == 4


@pytest.mark.parametrize(
    "wrong",
    [{"latency_limit_ms": 0.0}, {"latency_limit_ms": math.inf}, {"initial": 1}, {"pool": 0}],
)
def test_wrong_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"constrained GP, {next(iter(wrong))}: "):
        ConstrainedGPOptions(**wrong)  # type: ignore[arg-type]


def test_a_search_tells_its_limit_to_the_strategies_that_take_one() -> None:
    assert strategies.limits("constrained-gp", 2.5) == {"latency_limit_ms": 2.5}
    assert strategies.limits("random_search", 2.5) == {}
