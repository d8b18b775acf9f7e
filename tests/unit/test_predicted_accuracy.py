"""The accuracy predictor on functions that are known, and its word on how sure it is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from device_agents.api import Failure
from device_agents.errors import ConfigError
from pipeline.search.estimate.predicted import PredictedAccuracy
from pipeline.search.estimate.supernet import SupernetAccuracy
from pipeline.search.space.ofa_mobilenet_v3 import OfaMobileNetV3Space

SPACE = OfaMobileNetV3Space(input=(32, 32, 1), classes=4, resolutions=(24, 28, 32))
NOISE = 0.004


def truth(spec) -> float:  # noqa: ANN001
    """Return an accuracy that saturates in the features, each with a weight of its own."""
    features = SPACE.features(spec)
    weights = np.random.default_rng(5).gamma(1.0, 0.02, len(features))
    return float(0.6 + 0.35 * np.tanh(features @ weights))


@pytest.fixture(scope="module")
def fitted() -> PredictedAccuracy:
    rng = np.random.default_rng(0)
    specs = [SPACE.sample(rng) for _ in range(200)]
    observed = [truth(spec) + NOISE * rng.standard_normal() for spec in specs]
    return PredictedAccuracy.fit(SPACE.features, specs, observed, rng=rng)


def test_it_predicts_what_it_has_not_seen_and_knows_how_well(fitted: PredictedAccuracy) -> None:
    rng = np.random.default_rng(1)
    specs = [SPACE.sample(rng) for _ in range(200)]
    estimates = fitted.estimate(specs)
    values = np.array([estimate.value for estimate in estimates])
    errors = values - [truth(spec) for spec in specs]
    assert spearmanr(values, values - errors).statistic > 0.85
    assert np.sqrt(np.mean(errors**2)) < 0.01
    assert {estimate.source for estimate in estimates} == {"predicted"}
    observed = [truth(spec) + NOISE * rng.standard_normal() for spec in specs]
    inside = np.abs(values - observed) < 1.96 * np.array([e.stderr for e in estimates])
    assert 0.9 <= inside.mean() <= 0.99


def test_what_the_features_do_not_explain_is_part_of_the_error() -> None:
    rng = np.random.default_rng(6)
    specs = [SPACE.sample(rng) for _ in range(300)]
    exact = [truth(spec) + 0.01 * np.sin(1e3 * truth(spec)) for spec in specs]  # no noise at all
    found = PredictedAccuracy.fit(SPACE.features, specs[:150], exact[:150], rng=rng)
    estimates = found.estimate(specs[150:])
    errors = np.array([e.value for e in estimates]) - exact[150:]
    assert 0.9 <= np.mean(np.abs(errors) < 1.96 * np.array([e.stderr for e in estimates])) <= 0.99


def test_the_hold_out_figures_are_those_of_new_samples(fitted: PredictedAccuracy) -> None:
    rng = np.random.default_rng(2)
    specs = [SPACE.sample(rng) for _ in range(300)]
    observed = np.array([truth(spec) + NOISE * rng.standard_normal() for spec in specs])
    values = np.array([estimate.value for estimate in fitted.estimate(specs)])
    fresh = np.sqrt(np.mean((values - observed) ** 2))
    assert fitted.samples == 200
    assert fitted.holdout_rmse == pytest.approx(fresh, rel=0.25)
    assert fitted.holdout_spearman == pytest.approx(spearmanr(values, observed).statistic, abs=0.1)


def test_pure_noise_gives_the_mean_and_wide_errors() -> None:
    rng = np.random.default_rng(3)
    specs = [SPACE.sample(rng) for _ in range(60)]
    observed = 0.8 + 0.02 * rng.standard_normal(60)
    found = PredictedAccuracy.fit(SPACE.features, specs, observed.tolist(), rng=rng)
    assert found.holdout_rmse > 0.015
    assert abs(found.holdout_spearman) < 0.5
    fresh = [SPACE.sample(rng) for _ in range(5)]
    assert [e.value for e in found.estimate(fresh)] == pytest.approx([0.8] * 5, abs=0.03)


def test_equal_accuracies_are_no_fault() -> None:
    rng = np.random.default_rng(4)
    specs = [SPACE.sample(rng) for _ in range(20)]
    found = PredictedAccuracy.fit(SPACE.features, specs, [1.0] * 20, rng=rng)
    assert found.holdout_spearman == 0
    assert [e.value for e in found.estimate(specs[:2])] == pytest.approx([1.0, 1.0], abs=1e-3)
    assert found.estimate([]) == []


@pytest.mark.parametrize("bad", [[0.5] * 19, [0.5] * 19 + [float("nan")]])
def test_too_few_samples_are_refused(bad: list[float]) -> None:
    rng = np.random.default_rng(0)
    specs = [SPACE.sample(rng) for _ in bad]
    with pytest.raises(ConfigError, match=r"needs 20 .* given 19; raise search\.supernet"):
        PredictedAccuracy.fit(SPACE.features, specs, bad, rng=rng)


def test_an_accuracy_that_is_no_number_is_named() -> None:
    rng = np.random.default_rng(0)
    specs = [SPACE.sample(rng) for _ in range(25)]
    bad = [0.5] * 24 + [float("nan")]
    with pytest.raises(ConfigError) as error:
        PredictedAccuracy.fit(SPACE.features, specs, bad, rng=rng)
    assert str(specs[24]) in str(error.value)
    assert "is not a number" in str(error.value)


def test_a_supernet_estimate_has_its_binomial_error_and_passes_failures_on() -> None:
    specs = [SPACE.sample(np.random.default_rng(seed)) for seed in range(2)]
    failure = Failure("no numbers")
    estimator = SupernetAccuracy(lambda spec: 0.8 if spec == specs[0] else failure, images=100)
    good, bad = estimator.estimate(specs)
    assert (good.value, good.source) == (0.8, "supernet")
    assert good.stderr == pytest.approx(0.04)
    assert bad is failure
