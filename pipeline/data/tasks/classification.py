"""Classification: a sample belongs to one class, and the largest of its outputs names it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from pipeline.data.api import Truths


@dataclass(frozen=True, slots=True)
class Classification:
    """Outputs (N, classes) are logits, truths (N,) the numbers of classes from 0."""

    truths: Truths = "classes"
    metric: str = "accuracy"

    def words(self, score: float) -> str:
        """Return a score as it is shown."""
        return f"{score:.2%}"

    def answers(self, outputs: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Return the class (N,) that each output names; -1 where one is no finite number."""
        named: npt.NDArray[np.int64] = outputs.argmax(1)
        return np.where(np.isfinite(outputs).all(1), named, -1)

    def right(
        self, answers: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Return whether each class (N,) is the true one."""
        same: npt.NDArray[np.bool_] = answers == truth
        return same

    def score(self, outputs: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]) -> float:
        """Return the accuracy, 0..1. Raises ConfigError: truths that are no classes."""
        if truth.ndim != 1 or truth.dtype.kind not in "iu":
            raise ConfigError(
                f"labels {truth.dtype}{list(truth.shape)} are no class for each sample; take "
                "another task (regression, segmentation), or give whole numbers from 0"
            )
        return float(self.right(self.answers(outputs), truth).mean())

    def agreement(
        self, outputs: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]
    ) -> float:
        """Return the share of samples of which both name the same class."""
        ours, theirs = self.answers(outputs), self.answers(reference)
        return float(np.mean((ours == theirs) & (ours >= 0)))

    def guessing(self, truth: npt.NDArray[np.int64]) -> float:
        """Return what always naming the commonest class reaches."""
        return float(np.bincount(truth).max() / len(truth))

    def loss(self, outputs: Tensor, truth: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy."""
        from torch.nn import functional

        return functional.cross_entropy(outputs, truth, label_smoothing=label_smoothing)

    def imitation_loss(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean cross-entropy with a teacher's probabilities (its logits are given)."""
        from torch.nn import functional

        return functional.cross_entropy(outputs, teacher.softmax(1))
