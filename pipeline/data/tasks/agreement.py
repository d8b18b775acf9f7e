"""Agreement, where there are no labels: how much of a reference's outputs a file reproduces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from pipeline.data.api import Truths

_CLOSE = 0.99
"""Of a reference's power: an error of 20 dB less, which a usual int8 network stays below."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Outputs (N, …) of any meaning; truths are the outputs (N, …) of the reference.

    A sample's agreement is 1 less the power of the error over that of the reference, 0 at least.
    """

    truths: Truths = "none"
    metric: str = "agreement"

    def words(self, score: float) -> str:
        """Return a score as it is shown."""
        return f"{score:.2%}"

    def answers(self, outputs: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return outputs as they are."""
        return outputs.astype(np.float32)

    def right(self, answers: npt.NDArray[Any], truth: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return which samples (N,) agree to 20 dB."""
        close: npt.NDArray[np.bool_] = _shares(answers, truth) >= _CLOSE
        return close

    def score(self, outputs: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
        """Return the mean agreement with the reference's outputs, 0..1."""
        return float(_shares(outputs, truth).mean())

    def agreement(self, outputs: npt.NDArray[Any], reference: npt.NDArray[Any]) -> float:
        """Return the same."""
        return self.score(outputs, reference)

    def guessing(self, truth: npt.NDArray[Any]) -> float:
        """Return what always giving the mean of the reference's outputs reaches."""
        return self.score(np.broadcast_to(truth.mean(0, keepdims=True), truth.shape), truth)

    def loss(self, outputs: Tensor, truth: Tensor, *, label_smoothing: float = 0.0) -> Tensor:  # noqa: ARG002
        """Return the mean square of the error."""
        from torch.nn import functional

        return functional.mse_loss(outputs, truth.to(outputs.dtype))

    def imitation_loss(self, outputs: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean square of the difference from a teacher's outputs."""
        return self.loss(outputs, teacher)


def _shares(outputs: npt.NDArray[Any], reference: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the agreement (N,) of each sample; 0 where an output is no finite number."""
    if outputs.shape != reference.shape:
        raise ConfigError(
            f"outputs of shape {outputs.shape} cannot agree with a reference's of {reference.shape}"
        )
    ours = outputs.reshape(len(outputs), -1).astype(np.float64)
    theirs = reference.reshape(len(reference), -1).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        noise, power = np.square(ours - theirs).sum(1), np.square(theirs).sum(1)
    lost = np.divide(noise, power, out=(noise > 0).astype(np.float64), where=power > 0)
    return np.where(np.isfinite(noise), np.clip(1 - lost, 0, 1), 0.0)
