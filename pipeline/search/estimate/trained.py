"""Accuracy by proxy training: a few epochs from scratch, then the validation split.

MnasNet's own proxy task (five epochs for each sampled network); docs/decisions says why it is
preferred to a weight-sharing supernet here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.api import Failure
from pipeline.search.api import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from models.spec import ArchSpec


@dataclass(frozen=True, slots=True)
class TrainedAccuracy:
    """Estimator of ``accuracy`` (0..1).

    Attributes:
        train: trains a spec briefly and returns its validation accuracy, from memory if it has
            been trained before.
        images: number of validation images, for the standard error.
    """

    train: Callable[[ArchSpec], float | Failure]
    images: int
    metric: str = "accuracy"

    def estimate(self, specs: Sequence[ArchSpec]) -> list[Estimate | Failure]:
        """Return each spec's accuracy with its binomial standard error, or why there is none."""
        return [self._one(spec) for spec in specs]

    def _one(self, spec: ArchSpec) -> Estimate | Failure:
        accuracy = self.train(spec)
        if isinstance(accuracy, Failure):
            return accuracy
        return count_accuracy(accuracy, self.images, "trained")


def count_accuracy(accuracy: float, images: int, source: str) -> Estimate:
    """Return an accuracy (0..1) counted on so many images, with its binomial standard error."""
    stderr = math.sqrt(max(accuracy * (1 - accuracy), 1e-9) / images)
    return Estimate(accuracy, stderr, source=source)
