"""The few-shot latency model, from first principles."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.integrate import quad
from scipy.stats import gamma, norm

from device_agents.errors import ConfigError
from pipeline.search.estimate import _latency_prior, few_shot
from pipeline.search.estimate.few_shot import (
    Features,
    FewShotLatency,
    FewShotModel,
    KnownDevice,
    LatencyPrior,
    choose,
)

Floats = npt.NDArray[np.float64]
COSTS_MS = np.array([3.0, 1.0, 0.5])


def networks(n: int, seed: int, fine: int = 4) -> Features:
    rng = np.random.default_rng(seed)
    return Features(rng.integers(0, 6, (n, 3)) + 1.0, rng.integers(0, 2, (n, fine)) * 1.0)


def latencies(features: Features, costs_ms: Floats, noise: float, seed: int) -> Floats:
    exact: Floats = 10.0 + features.coarse @ costs_ms
    scale: Floats = noise * np.median(exact) * np.random.default_rng(seed).normal(size=len(exact))
    return exact + scale


def make_known_devices(count: int, noise: float = 0.02) -> list[KnownDevice]:
    rng = np.random.default_rng(9)
    found = []
    for i in range(count):
        features = networks(200, seed=100 + i)
        costs = COSTS_MS * rng.uniform(0.5, 1.5, 3)
        found.append(KnownDevice(f"d{i}", features, latencies(features, costs, noise, i)))
    return found


def rank(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


def test_posterior_is_that_of_bayesian_linear_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_shot, "_AMPLITUDES", (2.0,))
    monkeypatch.setattr(few_shot, "_NOISES", (0.05,))
    prior = LatencyPrior.learnt(make_known_devices(4))
    seen, unseen = networks(8, seed=1), networks(5, seed=2)
    measured = latencies(seen, COSTS_MS, 0.01, 3)
    model = FewShotModel(prior, seen, measured)
    (part,) = model._components

    # In the space of factors: z ~ N(0, 2 I) and a constant ~ N(0, 1).
    phi = np.hstack([prior.basis(seen), np.ones((8, 1))])
    at = np.hstack([prior.basis(unseen), np.ones((5, 1))])
    before = np.diag([2.0] * (phi.shape[1] - 1) + [1.0])
    noise = np.diag(np.diag(part.root @ part.root.T - phi @ before @ phi.T))
    covariance = np.linalg.inv(np.linalg.inv(before) + phi.T @ np.linalg.inv(noise) @ phi)
    left = measured / np.median(measured) - prior.mean(seen)
    mean = prior.mean(unseen) + at @ covariance @ phi.T @ np.linalg.inv(noise) @ left
    variance = np.diag(at @ covariance @ at.T) + (few_shot._NORMAL_FOR_T * 0.05) ** 2

    predicted = model.predict(unseen)
    assert predicted.mean_ms == pytest.approx(mean * np.median(measured), rel=1e-6)
    stated = np.sqrt(variance) * np.median(measured)
    assert predicted.sd_ms == pytest.approx(model.stretch * stated, rel=1e-6)

    # Each measurement predicted from the others, with the noises that were inferred.
    cases = np.eye(8, dtype=bool)
    every = phi @ before @ phi.T + noise
    scores = []
    for out in cases:
        gain = np.linalg.solve(every[~out][:, ~out], every[~out][:, out])[:, 0]
        sd = math.sqrt(every[out, out][0] - gain @ every[~out][:, out][:, 0])
        scores.append((left[out][0] - gain @ left[~out]) / sd)
    square = (1.0 + 8**-0.5) * (1.0 + np.square(scores).sum()) / 9.0
    assert model.stretch == pytest.approx(min(1.0, math.sqrt(square)))
    assert model.stretch < 1.0


def test_a_device_more_regular_than_the_known_ones_has_narrower_intervals() -> None:
    prior = LatencyPrior.learnt(make_known_devices(6, 0.1))
    seen, unseen = networks(20, seed=1), networks(200, seed=2)
    model = FewShotModel(prior, seen, latencies(seen, COSTS_MS, 0.002, 3))
    assert model.stretch < 0.8
    low, high = model.predict(unseen).interval_ms()
    truth = latencies(unseen, COSTS_MS, 0.002, 4)
    assert ((low <= truth) & (truth <= high)).mean() >= 0.8


@pytest.mark.parametrize("latency", [5.0, 5.2, 9.0])
def test_evidence_is_a_near_bound_of_the_integral(latency: float) -> None:
    """Of one measurement the evidence can be integrated over its precision."""
    prior = LatencyPrior.counted(networks(50, seed=0))
    model = FewShotModel(prior, networks(1, seed=4), np.array([5.0]))
    left = np.array([(latency - 5.0) / 5.0])
    part = model._component(1.0, 0.05, left, np.zeros(1))
    spread = float(model._basis[0] @ model._basis[0]) + 1.0

    def density(precision: float) -> float:
        sd = math.sqrt(spread + 0.05**2 / precision)
        return float(norm.pdf(left[0], scale=sd) * gamma.pdf(precision, 2, scale=0.5))

    usual, sd = prior.log_noise
    bound = part.score + 0.5 * ((math.log(0.05) - usual) / sd) ** 2 - 0.5 * math.log(2 * math.pi)
    exact = math.log(quad(density, 0, np.inf)[0])
    assert bound <= exact + 1e-9
    assert bound == pytest.approx(exact, abs=0.15)  # the family is factorised


@pytest.mark.parametrize("noise", [0.03, 0.1])
def test_intervals_cover_as_often_as_they_say(noise: float) -> None:
    prior = LatencyPrior.learnt(make_known_devices(6, noise))
    inside = []
    for seed in range(8):
        seen, unseen = networks(15, seed=seed), networks(200, seed=50 + seed)
        model = FewShotModel(prior, seen, latencies(seen, COSTS_MS, noise, seed))
        low, high = model.predict(unseen).interval_ms()
        truth = latencies(unseen, COSTS_MS, noise, 70 + seed)
        inside.append(float(((low <= truth) & (truth <= high)).mean()))
    assert 0.85 <= np.mean(inside) <= 0.99


@pytest.mark.parametrize("unit", [1.0, 1e-3])
def test_intervals_know_of_steps_that_latencies_come_in(
    unit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quiet device whose clock ticks every 8 ms, a third of a typical latency."""
    prior = LatencyPrior.learnt(make_known_devices(6, 0.005))

    def coverage() -> float:
        inside = []
        for seed in range(6):
            seen, unseen = networks(15, seed=seed), networks(200, seed=50 + seed)
            ticks = [np.rint(latencies(f, COSTS_MS, 0.0, 0) / 8.0) * 8.0 for f in (seen, unseen)]
            model = FewShotModel(prior, seen, ticks[0] * unit)
            low, high = model.predict(unseen).interval_ms()
            inside.append(((low <= ticks[1] * unit) & (ticks[1] * unit <= high)).mean())
        return float(np.mean(inside))

    known = coverage()
    assert 0.85 <= known <= 0.98
    monkeypatch.setattr(few_shot, "step_of", lambda _: 0.0)
    assert coverage() < known - 0.03


def test_quantiles_invert_the_probability() -> None:
    seen = networks(10, seed=1)
    model = FewShotModel(LatencyPrior.counted(seen), seen, latencies(seen, COSTS_MS, 0.05, 2))
    predicted = model.predict(networks(6, seed=3))
    for probability in (0.05, 0.5, 0.95):
        assert predicted.probability_below(predicted.quantile_ms(probability)) == pytest.approx(
            probability, abs=1e-4
        )


def test_one_slow_measurement_does_not_turn_the_ranking() -> None:
    prior = LatencyPrior.counted(networks(100, seed=0))
    seen, unseen = networks(15, seed=1), networks(100, seed=2)
    measured, truth = latencies(seen, COSTS_MS, 0.02, 3), latencies(unseen, COSTS_MS, 0.0, 0)
    smallest = int(measured.argmin())
    measured[smallest] *= 4.0
    predicted = FewShotModel(prior, seen, measured).predict(unseen).mean_ms
    assert rank(predicted, truth) > 0.9


def test_a_known_error_of_a_measurement_makes_it_count_less() -> None:
    prior = LatencyPrior.counted(networks(100, seed=0))
    seen = networks(6, seed=1)
    measured = latencies(seen, COSTS_MS, 0.0, 3)
    measured[0] *= 1.3
    stderr = np.zeros(6)
    stderr[0] = measured[0]
    blind, told = (
        FewShotModel(prior, seen, measured, errors).predict(seen).mean_ms[0]
        for errors in (None, stderr)
    )
    assert abs(told - measured[0] / 1.3) < abs(blind - measured[0] / 1.3)


def test_known_devices_that_agree_need_one_measurement() -> None:
    features = networks(300, seed=5)
    devices = [
        KnownDevice(f"x{factor}", features, factor * latencies(features, COSTS_MS, 0.0, 0))
        for factor in (1.0, 2.0, 7.0)
    ]
    prior = LatencyPrior.learnt(devices)
    truth = 4.0 * latencies(features, COSTS_MS, 0.0, 0)
    typical = int(np.abs(truth - np.median(truth)).argmin())
    predicted = FewShotModel(prior, features[typical : typical + 1], truth[typical : typical + 1])
    assert predicted.predict(features).mean_ms == pytest.approx(truth, rel=0.02)


def test_without_known_devices_more_cost_is_more_latency() -> None:
    pool = networks(100, seed=0)
    alike = FewShotModel(LatencyPrior.counted(pool), pool[:3], np.full(3, 20.0))
    small, large = np.ones((1, 3)), np.full((1, 3), 6.0)
    ends = Features(np.vstack([small, large]), np.zeros((2, 4)))
    low, high = alike.predict(ends).mean_ms
    assert low < high


def test_a_constant_cost_carries_nothing() -> None:
    pool = networks(50, seed=0)
    coarse = np.hstack([pool.coarse, np.full((50, 1), 7.0), np.zeros((50, 1))])
    prior = LatencyPrior.counted(Features(coarse, pool.fine))
    assert prior.weights[3:5] == pytest.approx(0.0)
    assert prior.mean(Features(coarse, pool.fine)) == pytest.approx(
        LatencyPrior.counted(pool).mean(pool)
    )


def posterior_variance(prior: LatencyPrior, pool: Features, rows: list[int]) -> float:
    basis = np.hstack([prior.basis(pool), np.ones((len(pool), 1))])
    covariance = basis @ basis.T
    seen = covariance[np.ix_(rows, rows)] + few_shot._CHOICE_NOISE_VARIANCE * np.eye(len(rows))
    across = covariance[:, rows]
    return float(np.diag(covariance - across @ np.linalg.solve(seen, across.T)).mean())


def test_choice_leaves_less_variance_than_chance_and_starts_with_the_best() -> None:
    prior, pool = LatencyPrior.learnt(make_known_devices(4)), networks(60, seed=3, fine=4)
    picked = choose(prior, pool, 6)
    assert len(set(picked)) == 6
    left = posterior_variance(prior, pool, picked)
    for seed in range(20):
        random = np.random.default_rng(seed).choice(60, 6, replace=False).tolist()
        assert left < posterior_variance(prior, pool, random)
    first = min(range(60), key=lambda row: posterior_variance(prior, pool, [row]))
    assert picked[0] == first


def test_choice_of_more_than_there_is_takes_all() -> None:
    pool = networks(5, seed=0)
    assert sorted(choose(LatencyPrior.counted(pool), pool, 9)) == list(range(5))


def test_ridge_error_is_that_of_leaving_each_out() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 4)), rng.normal(size=12)
    _, error, _ = _latency_prior._ridge(x, y, np.array([0.7]))

    def missed(i: int) -> float:
        rest = np.arange(12) != i
        centre, level = x[rest].mean(0), y[rest].mean()
        a = x[rest] - centre
        weights = np.linalg.solve(a.T @ a + 0.7 * np.eye(4), a.T @ (y[rest] - level))
        return float(y[i] - level - (x[i] - centre) @ weights)

    assert error == pytest.approx(math.sqrt(np.mean([missed(i) ** 2 for i in range(12)])), rel=1e-9)


def test_estimator_gives_milliseconds_and_their_deviation() -> None:
    pool = networks(40, seed=0)
    model = FewShotModel(LatencyPrior.counted(pool), pool[:10], np.linspace(20.0, 30.0, 10))
    estimator = FewShotLatency[int](model, lambda rows: pool[np.array(rows)])
    assert estimator.estimate([]) == []
    estimates = estimator.estimate([11, 12])
    predicted = model.predict(pool[11:13])
    assert [e.value for e in estimates] == pytest.approx(predicted.mean_ms.tolist())  # type: ignore[union-attr]
    assert [e.stderr for e in estimates] == pytest.approx(predicted.sd_ms.tolist())  # type: ignore[union-attr]


def test_a_network_far_smaller_than_all_measured_takes_some_time() -> None:
    seen = Features(np.array([[10.0], [11.0], [12.0]]), np.zeros((3, 0)))
    model = FewShotModel(LatencyPrior.counted(seen), seen, np.array([1.0, 6.0, 11.0]))
    far = Features(np.array([[1.0]]), np.zeros((1, 0)))
    assert model.predict(far).mean_ms < 0.0
    (estimate,) = FewShotLatency[int](model, lambda _: far).estimate([0])
    assert estimate.value == pytest.approx(0.06)  # type: ignore[union-attr]


def test_bad_input_is_named() -> None:
    pool = networks(5, seed=0)
    prior = LatencyPrior.counted(pool)
    with pytest.raises(ConfigError, match="no known device"):
        LatencyPrior.learnt([])
    with pytest.raises(ConfigError, match="'pi' has a latency that is no time above 0"):
        KnownDevice("pi", pool, np.array([1.0, 2.0, np.nan, 3.0, 4.0]))
    with pytest.raises(ConfigError, match=r"'pi'.*one latency per network"):
        KnownDevice("pi", pool, np.ones(4))
    with pytest.raises(ConfigError, match="of one network at least"):
        FewShotModel(prior, pool[:0], np.ones(0))
    with pytest.raises(ConfigError, match="no time above 0"):
        FewShotModel(prior, pool, np.array([1.0, 0.0, 1.0, 1.0, 1.0]))
    with pytest.raises(ConfigError, match="2 coarse and 4 fine columns, where the prior has 3"):
        prior.mean(Features(pool.coarse[:, :2], pool.fine))
    with pytest.raises(ConfigError, match="one row per network"):
        Features(pool.coarse, pool.fine[:2])
    with pytest.raises(ConfigError, match="a counted cost is below 0"):
        Features(-pool.coarse, pool.fine)
    with pytest.raises(ConfigError, match="a value is not finite"):
        Features(pool.coarse, pool.fine * np.nan)
    with pytest.raises(ConfigError, match=r"different numbers.*'a': \(3, 4\), 'b': \(2, 4\)"):
        LatencyPrior.learnt(
            [
                KnownDevice("a", pool, np.ones(5)),
                KnownDevice("b", Features(pool.coarse[:, :2], pool.fine), np.ones(5)),
            ]
        )
    with pytest.raises(ConfigError, match="no network to scale"):
        LatencyPrior.counted(pool[:0])
    for stderr in (np.ones(4), np.full(5, np.nan), np.full(5, -1.0)):
        with pytest.raises(ConfigError, match=r"standard errors .* for 5 latencies"):
            FewShotModel(prior, pool, np.ones(5), stderr)
    with pytest.raises(ConfigError, match=r"probability is 5.* between 0 and 1"):
        FewShotModel(prior, pool, np.ones(5)).predict(pool).quantile_ms(5.0)
