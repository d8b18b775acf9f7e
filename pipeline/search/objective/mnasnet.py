"""The reward of MnasNet, soft and hard.

The paper's hard form is not hard as a score: an accuracy of 0.912 at 1.003 times the target earns
0.909, more than the best network within it at 0.908. Near the target there are always such
networks, so the best score of a search is one over the limit more often than not. Here `score`
takes 1 off what is over a hard limit: whatever keeps the limit is better than whatever does not,
and outside it the reward still tells the way in.
"""

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
        limit: above the target nothing scores as much as anything at or below it.

    Raises:
        ConfigError: on construction, a target not above 0 or an exponent that rewards slowness.
    """

    target_ms: float
    alpha: float = -0.07
    beta: float = -0.07
    limit: bool = False

    def __post_init__(self) -> None:
        check_target(self.target_ms)
        for name, exponent in (("alpha", self.alpha), ("beta", self.beta)):
            if not (math.isfinite(exponent) and exponent <= 0):
                raise ConfigError(
                    f"{name} is {exponent!r}; above 0 it would reward slow networks, "
                    "the paper uses -0.07 (soft), or 0 and -1 (hard)"
                )

    @classmethod
    def hard(cls, target_ms: float, beta: float = -1.0) -> Self:
        """Return the paper's hard-constraint form: alpha = 0, beta = -1, the target a limit."""
        return cls(target_ms, alpha=0.0, beta=beta, limit=True)

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
        """Return the reward of the estimates ``accuracy`` (0..1) and ``latency_ms``.

        Of what is above a limit it is the reward less 1, which is below 0.

        Raises:
            ConfigError: one of the two was not estimated.
        """
        accuracy, latency = need(estimates, ("accuracy", "latency_ms"), "MnasNet")
        reward = self.reward(accuracy.value, latency.value)
        return reward - 1.0 if self.limit and latency.value > self.target_ms else reward
