"""Regression: numbers for each sample, and how far off they are: the mean absolute error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from pipeline.data.api import Truths


@dataclass(frozen=True, slots=True)
class Regression:
    """Outputs and truths are numbers (N, k), or (N,) for one of each sample.

    The score is minus the mean absolute error, so that more is better here too.
    """

    truths: Truths = "numbers"
    metric: str = "MAE"

    def words(self, score: float) -> str:
        """Return a score as it is shown: the mean absolute error."""
        return f"{abs(score):.4g}"

    def answers(self, outputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return the numbers (N, k) of each sample."""
        return _rows(outputs).astype(np.float32)

    def right(self, answers: npt.NDArray[Any], truth: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return which samples (N,) are off by no more than the best constant is on average."""
        near: npt.NDArray[np.bool_] = _errors(answers, truth) <= -self.guessing(truth)
        return near

    def score(self, outputs: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
        """Return minus the mean absolute error; minus infinity if an output is no number."""
        return -float(_errors(outputs, truth).mean())

    def agreement(self, outputs: npt.NDArray[Any], reference: npt.NDArray[Any]) -> float:
        """Return 1 less the mean difference as a share of how much the reference varies, 0..1."""
        varies = -self.guessing(reference)
        differ = float(_errors(outputs, reference).mean())
        if varies == 0:
            return float(differ == 0)
        return max(0.0, 1 - differ / varies)

    def guessing(self, truth: npt.NDArray[Any]) -> float:
        """Return what always giving the medians of the truths reaches."""
        rows = _rows(truth).astype(np.float64)
        return -float(np.abs(rows - np.median(rows, axis=0)).mean())

    def loss(self, outputs: Tensor, truth: Tensor, *, label_smoothing: float = 0.0) -> Tensor:  # noqa: ARG002
        """Return the mean Huber loss, whose gradient is that of the absolute error far off."""
        from torch.nn import functional

        return functional.smooth_l1_loss(outputs.flatten(1), truth.reshape(len(truth), -1).float())

    def imitation_loss(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean Huber loss with a teacher's outputs."""
        return self.loss(outputs, teacher)


def _rows(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.reshape(len(values), -1)


def _errors(outputs: npt.NDArray[Any], truth: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the mean absolute error of each sample (N,); infinite where one is no number."""
    ours, theirs = _rows(outputs).astype(np.float64), _rows(truth).astype(np.float64)
    if ours.shape != theirs.shape:
        raise ConfigError(
            f"the task regression needs {theirs.shape[1]} numbers for each sample, as the labels "
            f"have; the outputs are {outputs.shape}"
        )
    with np.errstate(invalid="ignore"):
        errors: npt.NDArray[np.float64] = np.abs(ours - theirs).mean(1)
    return np.where(np.isfinite(errors), errors, np.inf)
