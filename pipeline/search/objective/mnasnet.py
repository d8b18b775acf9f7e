"""The reward of MnasNet, soft and hard."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from device_agents.errors import ConfigError
from pipeline.search.objective._reading import check_target, need, possible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.search.api import Estimate


@dataclass(frozen=True, slots=True)
class MnasNetObjective:
    """The reward of MnasNet: ACC * (LAT / T) ** w, with w = alpha if LAT <= T else beta.

    Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile" (2019), equations
    2 and 3. The defaults are the paper's soft constraint, alpha = beta = -0.07: doubling the
    latency is worth 5 % more accuracy, relative. `hard` is its hard one, alpha = 0, beta = -1:
    nothing is won below the target, and above it the reward falls like 1 / LAT.

    Attributes:
        target_ms: T, in milliseconds, above 0.
        alpha: exponent at or below the target, not above 0.
        beta: exponent above the target, not above 0.

    Raises:
        ConfigError: on construction, a target not above 0 or an exponent that rewards slowness.
    """

    target_ms: float
    alpha: float = -0.07
    beta: float = -0.07

    def __post_init__(self) -> None:
        check_target(self.target_ms)
        for name, exponent in (("alpha", self.alpha), ("beta", self.beta)):
            if not (math.isfinite(exponent) and exponent <= 0):
                raise ConfigError(
                    f"{name} is {exponent!r}; above 0 it would reward slow networks, "
                    "the paper uses -0.07 (soft), or 0 and -1 (hard)"
                )

    @classmethod
    def hard(cls, target_ms: float) -> Self:
        """Return the paper's hard-constraint form: alpha = 0, beta = -1."""
        return cls(target_ms, alpha=0.0, beta=-1.0)

    def reward(self, accuracy: float, latency_ms: float) -> float:
        """Return the reward of an accuracy (in any unit) at a latency in milliseconds.

        Minus infinity when either cannot be: a NaN accuracy (training diverged), a latency that
        is not finite and above 0.
        """
        if not possible(accuracy, latency_ms):
            return -math.inf
        exponent = self.alpha if latency_ms <= self.target_ms else self.beta
        return float(accuracy * (latency_ms / self.target_ms) ** exponent)

    def score(self, estimates: Mapping[str, Estimate]) -> float:
        """Return the reward of the estimates ``accuracy`` and ``latency_ms``.

        Raises:
            ConfigError: one of the two was not estimated.
        """
        accuracy, latency = need(estimates, ("accuracy", "latency_ms"), "MnasNet")
        return self.reward(accuracy.value, latency.value)
