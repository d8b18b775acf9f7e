"""No single target: the area that a candidate dominates, for searches that want the whole front.

The score is the area between the candidate and a reference point of accuracy 0 and twice the
target latency, as a share of that rectangle. Its maximum is one point of the front; a strategy
that needs the front itself (NSGA-II) reads the two estimates and not the score. How far a search
has come is told by `pipeline.search.pareto.hypervolume` of all its candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.search.objective._reading import check_target, need, possible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.search.api import Estimate

REFERENCE_RATIO = 2.0
"""Latency of the reference point, in targets: what is slower adds nothing."""


@dataclass(frozen=True, slots=True)
class ParetoArea:
    """The share of the reference rectangle that a candidate dominates by itself, 0..1.

    Raises:
        ConfigError: on construction, a target not above 0.
    """

    target_ms: float

    def __post_init__(self) -> None:
        check_target(self.target_ms)

    @property
    def reference(self) -> tuple[float, float]:
        """(accuracy, latency in ms) of the reference point, for `hypervolume`."""
        return (0.0, REFERENCE_RATIO * self.target_ms)

    def score(self, estimates: Mapping[str, Estimate]) -> float:
        """Return the share; below 0, by how much it is too slow, for what dominates nothing."""
        accuracy, latency = need(estimates, ("accuracy", "latency_ms"), "Pareto")
        if not possible(accuracy.value, latency.value):
            return -math.inf
        room = 1.0 - latency.value / self.reference[1]
        return accuracy.value * room if room > 0 else room
