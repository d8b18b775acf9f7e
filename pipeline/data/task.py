"""What counts as good: a network's outputs held against truths, or against other outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor


class Task(Protocol):
    """What a data set asks of a network. Pure, and without torch but for the two losses.

    N samples everywhere; outputs (N, …) float32 as the network gives them, truths (N, …) as the
    data set holds them, answers (N, …) what outputs say. Shares are 0..1.
    """

    def answers(self, outputs: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Return what outputs say of each sample, in the terms of truths; -1: nothing."""

    def right(
        self, answers: npt.NDArray[np.int64], truth: npt.NDArray[Any]
    ) -> npt.NDArray[np.bool_]:
        """Return whether each answer is right, (N,): what two networks are paired by."""

    def score(self, outputs: npt.NDArray[np.float32], truth: npt.NDArray[Any]) -> float:
        """Return how good outputs are; the share of right answers where there are such."""

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
