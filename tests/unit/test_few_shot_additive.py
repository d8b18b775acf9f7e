"""Costs fitted to whole networks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from device_agents.errors import ConfigError
from scripts._additive import AdditiveModel

Floats = npt.NDArray[np.float64]


def networks(n: int, seed: int) -> tuple[Floats, Floats]:
    """Return one-hot choices of 5 decisions of 3 options, and exact latencies."""
    chosen = np.eye(3)[np.random.default_rng(seed).integers(0, 3, (n, 5))].reshape(n, 15)
    return chosen, 5.0 + chosen @ np.arange(15.0)


def test_exact_sums_are_found() -> None:
    chosen, latency_ms = networks(80, seed=0)
    unseen, truth = networks(50, seed=1)
    assert AdditiveModel.fit(chosen, latency_ms).predict(unseen) == pytest.approx(truth, rel=1e-3)


def test_networks_timed_far_too_long_do_not_count() -> None:
    chosen, latency_ms = networks(200, seed=0)
    rng = np.random.default_rng(2)
    busy = latency_ms * (1.0 + 0.01 * rng.normal(size=200))
    busy[rng.choice(200, 15, replace=False)] *= 3.0
    unseen, truth = networks(50, seed=1)
    plain = np.linalg.lstsq(chosen, busy)[0]
    error = np.abs(AdditiveModel.fit(chosen, busy).predict(unseen) / truth - 1.0).mean()
    assert error < 0.01 < np.abs(unseen @ plain / truth - 1.0).mean()


def test_least_squares_stands_where_it_is_right() -> None:
    """Normal errors, of one size for small networks and large."""
    chosen, latency_ms = networks(400, seed=4)
    noisy = latency_ms + 2.0 * np.random.default_rng(5).normal(size=400)
    unseen, truth = networks(200, seed=1)
    plain = np.linalg.lstsq(np.hstack([np.ones((400, 1)), chosen]), noisy)[0]
    published = np.hstack([np.ones((200, 1)), unseen]) @ plain
    assert AdditiveModel.fit(chosen, noisy).predict(unseen) == pytest.approx(published, rel=1e-4)
    assert truth == pytest.approx(published, rel=0.1)


def test_interval_covers_networks_that_were_not_fitted() -> None:
    rng = np.random.default_rng(3)
    chosen, latency_ms = networks(300, seed=0)
    unseen, truth = networks(1000, seed=1)
    model = AdditiveModel.fit(chosen, latency_ms * np.exp(0.05 * rng.normal(size=300)))
    low, high = model.interval_ms(unseen)
    truth = truth * np.exp(0.05 * rng.normal(size=1000))
    assert 0.86 <= float(((low <= truth) & (truth <= high)).mean()) <= 0.94


def test_bad_input_is_named() -> None:
    chosen, latency_ms = networks(8, seed=0)
    with pytest.raises(ConfigError, match="8 networks cannot tell 15 choices apart"):
        AdditiveModel.fit(chosen, latency_ms)
    with pytest.raises(ConfigError, match="no time above 0"):
        AdditiveModel.fit(chosen, latency_ms * 0.0)
    with pytest.raises(ConfigError, match="one latency per network"):
        AdditiveModel.fit(chosen, latency_ms[:5])
