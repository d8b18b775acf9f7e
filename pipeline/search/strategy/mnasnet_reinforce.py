"""MnasNet's controller trained with REINFORCE: one plain policy-gradient step a batch.

Williams, "Simple Statistical Gradient-Following Algorithms" (1992): the gradient of the expected
reward is the mean of (R - b) grad log p, with a baseline b that does not depend on the batch. It
is the form of ProxylessNAS's second algorithm and of NASNet's first; MnasNet itself took PPO,
which makes more of each trial (`mnasnet_ppo`).
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
class MnasNetReinforceOptions(ControllerOptions):
    """Options of `MnasNetReinforce`: those of every controller."""

    learning_rate: float = 0.02

    title: ClassVar[str] = "MnasNet REINFORCE"


class MnasNetReinforce(Controller[Spec]):
    """Ascends the expected reward, one step a batch; see the module."""

    Options = MnasNetReinforceOptions

    def __init__(
        self,
        space: SearchSpace[Spec],
        rng: np.random.Generator,
        options: MnasNetReinforceOptions = MnasNetReinforceOptions(),
    ) -> None:
        super().__init__(space, rng, options)
        self.options = options

    def update(self, tokens: Tokens, before: Floats, advantage: Floats) -> None:
        """Take one step along the policy gradient; what the policy was does not enter it."""
        del before
        now = self.policy.evaluate(tokens)
        d_log_prob = np.broadcast_to(-advantage[:, None] / tokens.size, tokens.shape)
        d_entropy = np.full(tokens.shape, -self.options.entropy_bonus / tokens.size)
        self.adam.update(self.policy.parameters, self.policy.gradients(now, d_log_prob, d_entropy))
