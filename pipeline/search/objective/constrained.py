"""Accuracy under a limit that must hold with a stated probability.

A point prediction cannot keep a limit: re-measured, six of fifteen published picks of one
predictor exceeded theirs. So a candidate counts as within the limit only if its estimate, with its
standard error, says so with the asked probability.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError
from pipeline.search.objective._reading import check_target, need, possible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.search.api import Estimate


def probability_within(latency: Estimate, limit_ms: float) -> float:
    """Return the probability that a latency is at most the limit, its error taken as normal.

    It is 0 where the latency or its error is not finite: then nothing is known.
    """
    if not (math.isfinite(latency.value) and math.isfinite(latency.stderr)):
        return 0.0
    if latency.stderr <= 0:
        return 1.0 if latency.value <= limit_ms else 0.0
    return NormalDist(latency.value, latency.stderr).cdf(limit_ms)


@dataclass(frozen=True, slots=True)
class Constrained:
    """The accuracy where the limit holds with `probability`; below 0 where it does not.

    What does not meet it is ranked by how near it comes, so that a search finds its way in: score
    P - 1 up to the limit, and P less latency over limit beyond it: P falls to 0 there, and the
    excess still tells.

    Raises:
        ConfigError: on construction, a limit not above 0 or a probability not between 0.5 and 1.
    """

    limit_ms: float
    probability: float = 0.9

    def __post_init__(self) -> None:
        check_target(self.limit_ms)
        if not 0.5 <= self.probability < 1:
            raise ConfigError(
                f"probability is {self.probability!r}; give at least 0.5 and less than 1, "
                "the usual one is 0.9"
            )

    def score(self, estimates: Mapping[str, Estimate]) -> float:
        """Return the score of the estimates ``accuracy`` (0..1) and ``latency_ms``."""
        accuracy, latency = need(estimates, ("accuracy", "latency_ms"), "constrained")
        if not possible(accuracy.value, latency.value):
            return -math.inf
        probability = probability_within(latency, self.limit_ms)
        if probability >= self.probability:
            return accuracy.value
        return probability - max(1.0, latency.value / self.limit_ms)
