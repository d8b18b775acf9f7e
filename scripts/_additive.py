"""A table of costs fitted to whole networks: latency as a sum of one cost per choice.

Ordinary least squares on one-hot choices is what is published; one network that a busy phone timed
at three times its latency then moves every cost. On such devices errors that are relative and
Student's t with four degrees of freedom, fitted by reweighting (Lange, Little and Taylor, "Robust
statistical modeling using the t distribution", 1989), are far better; on a quiet one least squares
may be a little. So least squares stands unless the other's leave-one-out error is clearly smaller.
The interval is that of the leave-one-out errors, which asks nothing of their distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_FREEDOM = 4.0
_ROUNDS = 30
_RIDGE = 1e-6
_SETTLED = 1e-5
_WORTH = 0.03  # how much smaller the robust error must be; on one quiet GPU 2 % did not last


@dataclass(frozen=True, slots=True)
class AdditiveModel:
    """Costs per choice.

    Attributes:
        constant_ms: what every network takes.
        costs_ms: of each column of the one-hot choices, (q,); their split within one decision is
            arbitrary, differences are not.
        errors: measured over predicted, of each network fitted as if it had been left out, sorted.
    """

    constant_ms: float
    costs_ms: Floats
    errors: Floats

    @classmethod
    def fit(cls, chosen: Floats, latency_ms: Floats) -> AdditiveModel:
        """Fit networks, one-hot choices (n, q) and latencies (n,).

        Raises:
            ConfigError: fewer networks than choices tell apart, or a latency not above 0,
                or not one latency per network.
        """
        if chosen.ndim != 2 or latency_ms.shape != (len(chosen),):
            raise ConfigError(
                f"additive latency: {latency_ms.shape} latencies for choices {chosen.shape}; "
                "give one row of choices and one latency per network"
            )
        if not (np.isfinite(latency_ms).all() and (latency_ms > 0).all()):
            raise ConfigError("additive latency: a latency is no time above 0; leave it out")
        x = np.hstack([np.ones((len(chosen), 1)), chosen])
        if len(x) <= np.linalg.matrix_rank(x):
            raise ConfigError(
                f"additive latency: {len(x)} networks cannot tell {chosen.shape[1]} choices apart; "
                "measure more networks, or build a table of single ops"
            )
        fitted = _fit(x, latency_ms, np.full(len(x), latency_ms.mean()), math.inf)
        robust = _fit(x, latency_ms, latency_ms, _FREEDOM)
        if _error(robust[1], latency_ms) < (1.0 - _WORTH) * _error(fitted[1], latency_ms):
            fitted = robust
        costs, left_out = fitted
        return cls(float(costs[0]), costs[1:], np.sort(latency_ms / left_out))

    def predict(self, chosen: Floats) -> Floats:
        """Return the latencies of networks in milliseconds, (n,)."""
        values: Floats = self.constant_ms + chosen @ self.costs_ms
        return values

    def interval_ms(self, chosen: Floats, level: float = 0.9) -> tuple[Floats, Floats]:
        """Return the central interval that holds a measurement with this probability."""
        low, high = np.quantile(self.errors, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
        predicted = self.predict(chosen)
        return predicted * low, predicted * high


def _fit(x: Floats, latency_ms: Floats, unit_ms: Floats, freedom: float) -> tuple[Floats, Floats]:
    """Return costs and what each network is predicted at if it is left out, both in ms.

    Args:
        x: constant and choices, (n, 1 + q).
        latency_ms: (n,).
        unit_ms: what each network's error is counted in, (n,).
        freedom: of Student's t; infinite: least squares.
    """
    share, target = x / unit_ms[:, None], latency_ms / unit_ms
    ridge = _RIDGE * np.eye(x.shape[1]) * float((share**2).sum(0).mean())
    weights, before = np.ones(len(x)), np.zeros(len(x))
    for _ in range(_ROUNDS):
        precision = np.linalg.inv(share.T @ (weights[:, None] * share) + ridge)
        costs = precision @ (share.T @ (weights * target))
        left = target - share @ costs
        if math.isinf(freedom) or np.abs(left - before).max() < _SETTLED:
            break
        before = left
        spread = float((weights * left**2).mean()) + 1e-18
        weights = (freedom + 1.0) / (freedom + left**2 / spread)
    leverage = np.minimum(weights * ((share @ precision) * share).sum(1), 0.99)
    predicted: Floats = unit_ms * (target - left / (1.0 - leverage))
    return costs, predicted


def _error(predicted_ms: Floats, latency_ms: Floats) -> float:
    """Return the mean relative error."""
    return float((np.abs(predicted_ms - latency_ms) / latency_ms).mean())
