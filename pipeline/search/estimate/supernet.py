"""Accuracy by weight sharing: the sub-network as it comes out of a trained supernet.

Its batch normalisation is re-calibrated first; what is estimated is the network as it could be
deployed without further training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.api import Failure
from pipeline.search.estimate.trained import count_accuracy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from models.spec import ArchSpec
    from pipeline.search.api import Estimate


@dataclass(frozen=True, slots=True)
class SupernetAccuracy:
    """Estimator of ``accuracy`` (0..1).

    Attributes:
        accuracy: validation accuracy of a sub-network, from memory if it has been asked before.
        images: number of validation images, for the standard error.
    """

    accuracy: Callable[[ArchSpec], float | Failure]
    images: int
    metric: str = "accuracy"

    def estimate(self, specs: Sequence[ArchSpec]) -> list[Estimate | Failure]:
        """Return each spec's accuracy with its binomial standard error, or why there is none."""
        return [self._one(spec) for spec in specs]

    def _one(self, spec: ArchSpec) -> Estimate | Failure:
        found = self.accuracy(spec)
        if isinstance(found, Failure):
            return found
        return count_accuracy(found, self.images, "supernet")
