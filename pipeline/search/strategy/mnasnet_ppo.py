"""MnasNet's reinforcement learning: an LSTM controller trained with PPO on measured rewards.

Tan et al. 2019, section 4.2: sample networks from the controller, evaluate them, update the
controller to raise the expected reward by proximal policy optimisation (Schulman et al. 2017).
The paper gives no hyper-parameters and its search code was never published; what stands in for
them here is set for hundreds of trials, not for the paper's 8 000.

Where this differs from a textbook PPO: each decision of a network is an action with the network's
advantage, so probability ratios are clipped per decision; and rewards enter by their ranks, see
`_controller`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pipeline.search.api import Spec
from pipeline.search.strategy._controller import Controller, ControllerOptions

if TYPE_CHECKING:
    from pipeline.search.api import SearchSpace
    from pipeline.search.strategy._policy import Floats, Tokens


@dataclass(frozen=True, slots=True)
class MnasNetPPOOptions(ControllerOptions):
    """Options of `MnasNetPPO`: those of every controller, and two more.

    Attributes:
        epochs: passes over a batch per update.
        clip: change of a probability ratio beyond which nothing more is gained.
    """

    epochs: int = 3
    clip: float = 0.2

    title: ClassVar[str] = "MnasNet PPO"
    lowest: ClassVar[dict[str, float]] = {**ControllerOptions.lowest, "epochs": 1}
    above_zero: ClassVar[tuple[str, ...]] = ("clip", "learning_rate")


class MnasNetPPO(Controller[Spec]):
    """Ascends the clipped surrogate of each batch; see the module."""

    Options = MnasNetPPOOptions

    def __init__(
        self,
        space: SearchSpace[Spec],
        rng: np.random.Generator,
        options: MnasNetPPOOptions = MnasNetPPOOptions(),
    ) -> None:
        super().__init__(space, rng, options)
        self.options = options

    def update(self, tokens: Tokens, before: Floats, advantage: Floats) -> None:
        """Ascend the clipped surrogate objective, Schulman et al. 2017, equation 7."""
        o = self.options
        for _ in range(o.epochs):
            now = self.policy.evaluate(tokens)
            d_log_prob = -surrogate_slope(now.log_prob, before, advantage[:, None], o.clip)
            d_entropy = np.full(tokens.shape, -o.entropy_bonus / tokens.size)
            self.adam.update(
                self.policy.parameters,
                self.policy.gradients(now, d_log_prob / tokens.size, d_entropy),
            )


def surrogate_slope(now: Floats, before: Floats, advantage: Floats, clip: float) -> Floats:
    """Return the derivative of min(r A, clip(r, 1 - clip, 1 + clip) A) by `now`, the new log r.

    All (B, D), or broadcast to it; r = exp(now - before). Where the minimum is the clipped
    branch nothing is gained by moving further, and the derivative is 0.
    """
    ratio = np.exp(now - before)
    moving = np.where(advantage > 0, ratio < 1 + clip, ratio > 1 - clip)
    slope: Floats = moving * ratio * advantage
    return slope
