"""A table of costs fitted to whole networks: latency as a sum of one cost per choice.

Ordinary least squares on one-hot choices is what is published; one network that a busy phone timed
at three times its latency then moves every cost. Here the errors are relative and Student's t with
four degrees of freedom, fitted by reweighting (Lange, Little and Taylor, "Robust statistical
modeling using the t distribution", 1989). The interval is that of the leave-one-out errors of the
networks fitted, which asks nothing of their distribution.
"""

from __future__ import annotations

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
        share = x / latency_ms[:, None]  # relative errors: share @ w is to be 1
        weights = np.ones(len(x))
        for _ in range(_ROUNDS):
            precision = np.linalg.inv(share.T @ (weights[:, None] * share) + _RIDGE * _scale(share))
            costs = precision @ (share.T @ weights)
            left = 1.0 - share @ costs
            spread = float((weights * left**2).mean()) + 1e-18
            weights = (_FREEDOM + 1.0) / (_FREEDOM + left**2 / spread)
        leverage = np.minimum(weights * ((share @ precision) * share).sum(1), 0.99)
        predicted = 1.0 - left / (1.0 - leverage)
        return cls(float(costs[0]), costs[1:], np.sort(1.0 / predicted))

    def predict(self, chosen: Floats) -> Floats:
        """Return the latencies of networks in milliseconds, (n,)."""
        values: Floats = self.constant_ms + chosen @ self.costs_ms
        return values

    def interval_ms(self, chosen: Floats, level: float = 0.9) -> tuple[Floats, Floats]:
        """Return the central interval that holds a measurement with this probability."""
        low, high = np.quantile(self.errors, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
        predicted = self.predict(chosen)
        return predicted * low, predicted * high


def _scale(share: Floats) -> Floats:
    values: Floats = np.eye(share.shape[1]) * float((share**2).sum(0).mean())
    return values
