"""What counts as good: a network's outputs held against truths, or against other outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from pipeline.data.api import Truths


class Task(Protocol):
    """What a data set asks of a network. Pure, and without torch but for the two losses.

    N samples everywhere; outputs (N, …) float32 as the network gives them (maps with channels
    last), truths (N, …) as the data set holds them, answers (N, …) what outputs say. Shares are
    0..1. One whose outputs are no finite numbers says nothing, and nothing is right of it.
    """

    @property
    def truths(self) -> Truths:
        """What a data set must hold."""

    @property
    def metric(self) -> str:
        """What the score is called: accuracy, mIoU, MAE."""

    def words(self, score: float) -> str:
        """Return a score as it is shown, with its unit if it has one."""

    def answers(self, outputs: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        """Return what outputs say of each sample, in the terms of truths; -1: no class."""

    def right(self, answers: npt.NDArray[Any], truth: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return whether each answer is right, (N,): what two networks are paired by."""

    def score(self, outputs: npt.NDArray[np.float32], truth: npt.NDArray[Any]) -> float:
        """Return how good outputs are, more being better; for classes the share of right ones."""

    def agreement(
        self, outputs: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]
    ) -> float:
        """Return how far outputs say the same as reference outputs of the same samples."""

    def guessing(self, truth: npt.NDArray[Any]) -> float:
        """Return the score of the best answer that looks at no sample."""

    def loss(self, outputs: Tensor, truth: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Return what training makes small: the mean over a batch, a number with a gradient."""

    def imitation_loss(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """Return how far outputs are from a teacher's of the same batch, as `loss` does."""


def score_outputs(task: Task, outputs: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """Return the score of a file's outputs (N, 1, …); maps with channels first are turned.

    Raises:
        ConfigError: the outputs are none of the task.
    """
    one = outputs[:, 0] if outputs.ndim > 1 and outputs.shape[1] == 1 else outputs
    maps = truth.ndim == 3 and one.ndim == 4
    if task.truths == "masks" and maps and one.shape[1:3] != truth.shape[1:]:
        channels_first = one.shape[2:] == truth.shape[1:] or one.shape[1] < one.shape[3]
        one = np.moveaxis(one, 1, -1) if channels_first else one
    if task.truths == "none":
        return task.score(one, truth.reshape(one.shape))
    if task.truths == "classes":
        one = one.reshape(len(one), -1)
    return task.score(one, truth)
