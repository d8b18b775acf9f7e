"""Segmentation: every pixel belongs to a class; the mean over classes of intersection over union.

Long, Shelhamer and Darrell, "Fully convolutional networks for semantic segmentation" (CVPR 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.errors import ConfigError
from pipeline.data.api import IGNORED

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from pipeline.data.api import Truths

_HALF = 0.5
"""Of a sigmoid, and of the intersection over union of an image that counts as right."""


@dataclass(frozen=True, slots=True)
class Segmentation:
    """Outputs (N, H, W, classes) are logits, truths (N, H, W) numbers of classes from 0.

    Outputs of one channel tell the foreground, class 1, from the background: where they exceed a
    half if they are shares, 0 if they are logits. Whole numbers (N, H, W) are classes already.
    Outputs smaller than the truths are enlarged, each pixel to a square. Pixels of the class 255
    do not count.
    """

    truths: Truths = "masks"
    metric: str = "mIoU"

    def words(self, score: float) -> str:
        """Return a score as it is shown."""
        return f"{score:.2%}"

    def answers(self, outputs: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the class (N, H, W) of each pixel; -1 where an output is no finite number."""
        if outputs.dtype.kind in "iub":
            classes = outputs[..., 0] if outputs.ndim == 4 and outputs.shape[-1] == 1 else outputs
            return classes.astype(np.int64)
        if outputs.ndim != 4:
            raise ConfigError(
                f"the task segmentation needs a map of each class, (N, H, W, classes); the outputs "
                f"are {outputs.shape}; choose another data.task"
            )
        finite = np.isfinite(outputs).all(-1)
        if outputs.shape[-1] == 1:
            shares = bool(finite.any()) and 0 <= np.nanmin(outputs) <= np.nanmax(outputs) <= 1
            named = (outputs[..., 0] > (_HALF if shares else 0)).astype(np.int64)
        else:
            named = outputs.argmax(-1)
        return np.where(finite, named, -1)

    def right(
        self, answers: npt.NDArray[np.int64], truth: npt.NDArray[Any]
    ) -> npt.NDArray[np.bool_]:
        """Return of which images (N,) the mean intersection over union is a half at least."""
        pairs = zip(_enlarged(answers, truth), truth, strict=True)
        return np.array([_mean_iou(_confusion(a, t)) >= _HALF for a, t in pairs], np.bool_)

    def score(self, outputs: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
        """Return the mean intersection over union, 0..1, of the classes that occur."""
        return _mean_iou(_confusion(_enlarged(self.answers(outputs), truth), truth))

    def agreement(self, outputs: npt.NDArray[Any], reference: npt.NDArray[Any]) -> float:
        """Return the share of pixels of which both name the same class."""
        ours, theirs = self.answers(outputs), self.answers(reference)
        return float(np.mean((ours == theirs) & (ours >= 0)))

    def guessing(self, truth: npt.NDArray[Any]) -> float:
        """Return what always naming the best single class reaches."""
        present = [int(c) for c in np.unique(truth) if c != IGNORED]
        constants = (_confusion(np.full_like(truth, c), truth) for c in present)
        return max(map(_mean_iou, constants), default=0.0)

    def loss(self, outputs: Tensor, truth: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
        """Return the mean cross-entropy of the pixels that count."""
        from torch.nn import functional

        return functional.cross_entropy(
            outputs.movedim(-1, 1), truth, ignore_index=IGNORED, label_smoothing=label_smoothing
        )

    def imitation_loss(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean cross-entropy with a teacher's probabilities (its logits are given)."""
        from torch.nn import functional

        return functional.cross_entropy(outputs.movedim(-1, 1), teacher.movedim(-1, 1).softmax(1))


def _enlarged(answers: npt.NDArray[np.int64], truth: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return answers at the size of truths, by the nearest pixel."""
    rows, columns = (
        np.arange(wanted) * have // wanted
        for wanted, have in zip(truth.shape[1:], answers.shape[1:], strict=True)
    )
    return answers[:, rows][:, :, columns]


def _confusion(answers: npt.NDArray[Any], truth: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return how many pixels of a true class (row) are given a class (column; the last: none)."""
    counted = truth != IGNORED
    said, true = answers[counted].ravel(), truth[counted].ravel()
    classes = int(max(said.max(initial=0), true.max(initial=0))) + 1
    said = np.where(said < 0, classes, said)
    pairs = np.bincount(true * (classes + 1) + said, minlength=classes * (classes + 1))
    return pairs.reshape(classes, classes + 1)


def _mean_iou(confusion: npt.NDArray[np.int64]) -> float:
    """Return the mean over the classes that are named or true; 0 if no pixel counts."""
    both = np.diagonal(confusion).astype(np.float64)
    either = confusion.sum(1) + confusion[:, :-1].sum(0) - both
    occur = either > 0
    return float((both[occur] / either[occur]).mean()) if occur.any() else 0.0
