"""The Gaussian process and its acquisition, from first principles."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from device_agents.api import Failure
from device_agents.errors import ConfigError
from pipeline.search import strategy as strategies
from pipeline.search.api import Estimate, Trial
from pipeline.search.strategy import constrained_gp
from pipeline.search.strategy._gaussian_process import (
    GaussianProcess,
    Kernel,
    likeliest_kernel,
    log_likelihood,
)
from pipeline.search.strategy.constrained_gp import (
    ConstrainedGP,
    ConstrainedGPOptions,
    expected_improvement,
)
from tests.search_problems import Cells, additive

if TYPE_CHECKING:
    import numpy.typing as npt

    from models.spec import ArchSpec
    from pipeline.search.strategy._gaussian_process import Prediction

    Floats = npt.NDArray[np.float64]

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 4))
Y = np.sin(X[:, 0]) + X[:, 1] * X[:, 2]
AT = RNG.normal(size=(5, 4))
KERNEL = Kernel(0.6, 0.9, 0.01, float((X**2).sum(1).mean()))
GRID = [(w, length, noise) for w in (0.0, 0.7) for length in (0.8, 2.0) for noise in (0.003, 0.1)]


def test_the_kernel_is_the_formula_pair_by_pair() -> None:
    a, b = X[:3], X[3:5]
    for i, x in enumerate(a):
        for j, z in enumerate(b):
            local = math.exp(-float(((x - z) ** 2).sum()) / (2 * 0.9**2 * KERNEL.scale))
            quadratic = ((1 + float(x @ z) / KERNEL.scale) / 2) ** 2
            assert KERNEL(a, b)[i, j] == pytest.approx(0.6 * local + 0.4 * quadratic)
    assert KERNEL.diagonal(X) == pytest.approx(np.diag(KERNEL(X, X)))


def posterior(
    kernel: Kernel, x: Floats, y: Floats, at: Floats
) -> tuple[Floats, Floats, Floats, float]:
    """Return mean, sd, sd with noise and amplitude, by inverting the covariance."""
    targets = (y - y.mean()) / (y.std() + 1e-6)
    inverse = np.linalg.inv(kernel(x, x) + kernel.noise * np.eye(len(x)))
    across = kernel(x, at)
    amplitude = float(targets @ inverse @ targets + 1) / (len(x) + 1)
    variance = amplitude * (kernel.diagonal(at) - np.diag(across.T @ inverse @ across))
    scale = y.std() + 1e-6
    return (
        y.mean() + scale * across.T @ inverse @ targets,
        scale * np.sqrt(variance),
        scale * np.sqrt(variance + amplitude * kernel.noise),
        amplitude,
    )


def process(x: Floats, at: Floats, kernel: Kernel = KERNEL) -> GaussianProcess:
    made = GaussianProcess(kernel, at)
    made.add(x)
    return made


def agree(found: Prediction, expected: tuple[Floats, Floats, Floats, float]) -> None:
    assert found.mean == pytest.approx(expected[0])
    assert found.sd == pytest.approx(expected[1])
    assert found.sd_of_value == pytest.approx(expected[2])


def test_the_posterior_is_the_textbooks() -> None:
    agree(process(X, AT).predict(Y), posterior(KERNEL, X, Y, AT))


def test_points_added_one_by_one_or_in_groups_give_the_posterior_of_all() -> None:
    grown = GaussianProcess(KERNEL, AT)
    for first, last in ((0, 1), (1, 2), (2, 7), (7, 7), (7, 12)):
        grown.add(X[first:last])
        if last:
            agree(grown.predict(Y[:last]), posterior(KERNEL, X[:last], Y[:last], AT))
    assert len(grown) == 12


def test_points_forgotten_leave_no_trace() -> None:
    grown = process(X[:8], AT)
    grown.add(X[8:])
    grown.forget(4)
    agree(grown.predict(Y[:8]), posterior(KERNEL, X[:8], Y[:8], AT))
    grown.add(X[9:11])  # others in their place
    kept = [*range(8), 9, 10]
    agree(grown.predict(Y[kept]), posterior(KERNEL, X[kept], Y[kept], AT))


def test_targets_told_anew_leave_no_trace_of_the_old() -> None:
    grown = process(X[:7], AT)
    grown.predict(Y[:7])
    grown.add(X[7:])
    agree(grown.predict(-2.0 * Y), posterior(KERNEL, X, -2.0 * Y, AT))
    agree(grown.predict(Y), posterior(KERNEL, X, Y, AT))


def test_the_log_likelihood_is_that_of_a_normal_with_the_likeliest_amplitude() -> None:
    covariance = KERNEL(X, X) + 0.01 * np.eye(12)
    standard = (Y - Y.mean()) / (Y.std() + 1e-6)
    # One pseudo-point of 1 in the amplitude; the quadratic form and 2 pi are constants without it.
    amplitude = posterior(KERNEL, X, Y, AT)[3]
    normal = multivariate_normal(np.zeros(12), amplitude * covariance)
    quadratic = -0.5 * standard @ np.linalg.inv(amplitude * covariance) @ standard
    expected = normal.logpdf(standard) - quadratic + 6 * math.log(2 * math.pi)
    assert log_likelihood(KERNEL, X, Y) == pytest.approx(float(expected))


def test_the_chosen_kernel_is_the_likeliest_of_the_grid() -> None:
    best = likeliest_kernel(X, Y, KERNEL.scale)
    found = [log_likelihood(Kernel(*values, KERNEL.scale), X, Y) for values in GRID]
    assert log_likelihood(best, X, Y) >= max(found) > min(found)


def test_a_kernel_chosen_near_another_is_as_likely_as_any_one_change_away() -> None:
    whole = likeliest_kernel(X, Y, KERNEL.scale)
    for length, mixture in ((0.5, 0.0), (2.0, 1.0), (whole.length, whole.mixture)):
        near = replace(whole, length=length, mixture=mixture, noise=0.1)
        found = likeliest_kernel(X, Y, KERNEL.scale, near)
        least = log_likelihood(found, X, Y)
        assert log_likelihood(near, X, Y) <= least <= log_likelihood(whole, X, Y)
        for changed in ({"mixture": 0.3}, {"length": 1.2}, {"noise": 0.02}):
            assert log_likelihood(replace(found, **changed), X, Y) <= least
    assert likeliest_kernel(X, Y, KERNEL.scale, whole) == whole


def test_the_more_trials_the_rarer_kernels_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    choose = constrained_gp.likeliest_kernel

    def counted(points: Floats, *more: Any) -> Kernel:
        chosen.append(len(points))
        return choose(points, *more)

    monkeypatch.setattr(constrained_gp, "likeliest_kernel", counted)
    strategy, rng = gp(10.0), np.random.default_rng(1)
    specs = list(dict.fromkeys(SPACE.sample(rng) for _ in range(250)))[:200]
    for first in range(0, 200, 5):
        strategy.tell([trial(spec) for spec in specs[first : first + 5]])
        strategy.probability_within(specs[:1])
    per_model = chosen[::2]
    assert per_model[:10] == [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
    late = np.diff([count for count in per_model if count > 100])
    assert (late > 10).all()
    assert late.max() <= 0.1 * 200 + 5


def test_where_whole_milliseconds_are_counted_the_limit_holds_up_to_the_half(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Told apart from the same latencies unrounded; the failed one stands at the limit."""
    rng = np.random.default_rng(5)
    specs = [SPACE.sample(rng) for _ in range(300)]
    limit_ms = 10.25

    def whole(spec: ArchSpec) -> Trial:
        found = trial(spec)
        latency = Estimate(float(round(found.estimates["latency_ms"].value)), 0.0, "measured")
        return replace(found, estimates={**found.estimates, "latency_ms": latency})

    within = np.array([whole(s).estimates["latency_ms"].value <= limit_ms for s in specs[40:]])

    def loss() -> float:
        strategy = gp(limit_ms)
        strategy.tell([whole(spec) for spec in specs[:40]])
        strategy.tell([Trial(SPACE.decode((0,) * 5), failure=Failure("out of memory"))])
        stated = strategy.probability_within(specs[40:]).clip(1e-3, 1.0 - 1e-3)
        return float(-np.where(within, np.log(stated), np.log(1.0 - stated)).mean())

    known = loss()
    monkeypatch.setattr(constrained_gp, "step_of", lambda _: 0.0)
    assert known < loss()


def test_more_points_make_it_surer_and_known_points_are_near_their_values() -> None:
    few, many = process(X[:6], X).predict(Y[:6]), process(X, X).predict(Y)
    assert np.abs(many.mean - Y).max() < 0.5
    # In units of each one's own amplitude: a posterior variance never grows with points.
    own = [
        found.sd / ((y.std() + 1e-6) * math.sqrt(posterior(KERNEL, x, y, X)[3]))
        for found, x, y in ((few, X[:6], Y[:6]), (many, X, Y))
    ]
    assert (own[1] <= own[0] + 1e-9).all()


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


def search(limit_ms: float, seed: int, budget: int = 60, **options: int) -> list[Trial]:
    strategy = gp(limit_ms, seed, **options)
    done: list[Trial] = []
    while len(done) < budget:
        told = [trial(spec) for spec in strategy.ask(5)]
        strategy.tell(told)
        done += told
    return done


def gp(limit_ms: float | None, seed: int = 0, **options: int) -> ConstrainedGP[ArchSpec]:
    return ConstrainedGP(
        SPACE, np.random.default_rng(seed), ConstrainedGPOptions(limit_ms, **options)
    )


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


def test_a_space_too_large_to_list_is_searched_by_draws_and_mutations() -> None:
    trials = search(10.0, 0, listed=1023, pool=200)
    random = [trial(SPACE.sample(np.random.default_rng(seed))) for seed in range(60)]
    assert best_within(trials, 10.0) > best_within(random, 10.0)
    assert len({t.spec for t in trials}) == len(trials)


def test_trial_by_trial_it_proposes_what_a_fresh_one_told_everything_does() -> None:
    grown = gp(9.0, refit=1000)
    told: list[Trial] = []
    for _ in range(30):
        told += [trial(spec) for spec in grown.ask(1)]
        grown.tell(told[-1:])
    fresh = gp(9.0, refit=1000)
    fresh.tell(told[:20])
    fresh.ask(1)  # its kernels are those after 20 trials too
    fresh.tell(told[20:])
    # What fresh asked for in the meantime is the 21st of the told, so it is behind in nothing.
    assert grown.ask(3) == fresh.ask(3)


def test_the_probability_to_be_within_is_calibrated_and_needs_a_limit() -> None:
    strategy = gp(10.0)
    with pytest.raises(ConfigError, match="needs a latency_limit_ms and at least one trial"):
        strategy.probability_within([SPACE.sample(np.random.default_rng(0))])
    strategy.tell([trial(spec) for spec in strategy.ask(20)])
    rng = np.random.default_rng(5)
    fresh = [SPACE.sample(rng) for _ in range(300)]
    stated = strategy.probability_within(fresh)
    within = np.array([trial(spec).estimates["latency_ms"].value <= 10.0 for spec in fresh])
    assert ((stated >= 0) & (stated <= 1)).all()
    assert within[stated > 0.9].mean() > 0.85
    assert within[stated < 0.1].mean() < 0.15
    with pytest.raises(ConfigError, match="needs a latency_limit_ms"):
        gp(None).probability_within(fresh)


def test_after_the_start_it_proposes_mostly_networks_within_the_limit() -> None:
    limit_ms = 7.0
    within = np.array(
        [[t.estimates["latency_ms"].value <= limit_ms for t in search(limit_ms, s)] for s in (0, 3)]
    )
    assert within[:, 20:].mean() > 1.5 * within[:, :20].mean()


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
    [
        {"latency_limit_ms": 0.0},
        {"latency_limit_ms": math.inf},
        {"initial": 1},
        {"pool": 0},
        {"listed": -1},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"constrained GP, {next(iter(wrong))}: "):
        ConstrainedGPOptions(**wrong)  # type: ignore[arg-type]


def test_a_search_tells_its_limit_to_the_strategies_that_take_one() -> None:
    assert strategies.limits("constrained-gp", 2.5) == {"latency_limit_ms": 2.5}
    assert strategies.limits("random_search", 2.5) == {}
