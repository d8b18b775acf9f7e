"""MnasNet's reinforcement learning: an LSTM controller trained with PPO on measured rewards.

Tan et al. 2019, section 4.2: sample networks from the controller, evaluate them, update the
controller to raise the expected reward by proximal policy optimisation (Schulman et al. 2017).
The paper gives no hyper-parameters and its search code was never published; what stands in for
them here is set for hundreds of trials, not for the paper's 8 000.

Where this differs from a textbook PPO:

- Each decision of a network is an action with the network's advantage, so probability ratios are
  clipped per decision.
- The reward enters by its rank among the last `window` rewards, scaled to unit variance, so
  neither its unit nor an outlier matters; a moving-average baseline is subtracted before the batch
  enters it. A failed candidate (a score that is not finite) ranks below all others.
- Networks already asked for are drawn again, a few times at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

import numpy as np

from device_agents.errors import ConfigError
from pipeline.search.api import Spec
from pipeline.search.strategy._policy import Adam, Floats, Policy, Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.search.api import SearchSpace, Trial


@dataclass(frozen=True, slots=True)
class MnasNetPPOOptions:
    """Options of `MnasNetPPO`.

    Attributes:
        batch: trials per update, at least 2; fewer at a time are collected.
        epochs: passes over a batch per update.
        clip: change of a probability ratio beyond which nothing more is gained.
        learning_rate: of Adam.
        entropy_bonus: weight of the mean entropy (nats) of the decisions.
        window: how many of the last rewards, the batch among them, a reward is ranked in.
        baseline_decay: share of the old value that each batch leaves in the baseline.
        tries: draws per network to find one not asked for before; then a repeat is handed out.
        hidden: state of the LSTM.
        embedding: width of a token's embedding.
    """

    batch: int = 10
    epochs: int = 3
    clip: float = 0.2
    learning_rate: float = 0.01
    entropy_bonus: float = 0.1
    window: int = 50
    baseline_decay: float = 0.8
    tries: int = 10
    hidden: int = 64
    embedding: int = 32

    def __post_init__(self) -> None:
        lowest = {"batch": 2, "epochs": 1, "window": 2, "tries": 1, "hidden": 1, "embedding": 1}
        lowest |= {"entropy_bonus": 0, "baseline_decay": 0}
        for name, low in lowest.items():
            if not getattr(self, name) >= low:
                raise ConfigError(f"MnasNet PPO, {name}: {getattr(self, name)} is below {low}")
        for name in ("clip", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"MnasNet PPO, {name}: {getattr(self, name)} is not above 0")
        if not self.baseline_decay < 1:
            raise ConfigError(f"MnasNet PPO, baseline_decay: {self.baseline_decay} is not below 1")


@dataclass(frozen=True, slots=True)
class _Sample(Generic[Spec]):
    """A network with the tokens that the controller wrote and their log-probabilities then."""

    spec: Spec
    tokens: Tokens  # (D,)
    log_prob: Floats  # (D,)


class MnasNetPPO(Generic[Spec]):
    """Ask: sample the controller. Tell: collect a batch, then update the controller."""

    Options = MnasNetPPOOptions

    def __init__(
        self,
        space: SearchSpace[Spec],
        rng: np.random.Generator,
        options: MnasNetPPOOptions = MnasNetPPOOptions(),
    ) -> None:
        self.space, self.rng, self.options = space, rng, options
        self.policy = Policy(
            space.cardinalities, rng, hidden=options.hidden, embedding=options.embedding
        )
        self._adam = Adam(options.learning_rate)
        self._recent: list[float] = []
        self._baseline: float | None = None
        self._asked: list[_Sample[Spec]] = []
        self._told: list[tuple[_Sample[Spec], float]] = []
        self._seen: set[Spec] = set()

    def ask(self, n: int) -> Sequence[Spec]:
        """Return n networks sampled from the controller, new ones as far as `tries` finds any.

        Raises:
            ValueError: the trials of the last `ask` were not told.
        """
        if self._asked:
            raise ValueError(f"tell the {len(self._asked)} trials asked for before asking again")
        self._asked = [self._draw() for _ in range(n)]
        return [sample.spec for sample in self._asked]

    def tell(self, trials: Sequence[Trial[Spec]]) -> None:
        """Learn from the trials of the last `ask`, in order; some may be left out.

        Raises:
            ValueError: one was not asked for, or they are out of order.
        """
        waiting = iter(self._asked)
        for trial in trials:
            sample = next((sample for sample in waiting if sample.spec == trial.spec), None)
            if sample is None:
                raise ValueError(f"told {str(trial.spec)[:100]}, which is not next of those asked")
            self._told.append((sample, float(trial.score)))
        self._asked = []
        while len(self._told) >= self.options.batch:
            self._update(self._told[: self.options.batch])
            del self._told[: self.options.batch]

    def _draw(self) -> _Sample[Spec]:
        for _ in range(self.options.tries):
            tokens, log_prob = self.policy.sample(self.rng, 1)
            spec = self.space.decode(tuple(tokens[0].tolist()))
            if spec not in self._seen:
                break
        self._seen.add(spec)
        return _Sample(spec, tokens[0], log_prob[0])

    def _update(self, batch: Sequence[tuple[_Sample[Spec], float]]) -> None:
        """Ascend the clipped surrogate objective, Schulman et al. 2017, equation 7."""
        o = self.options
        tokens = np.stack([sample.tokens for sample, _ in batch])  # (B, D)
        before = np.stack([sample.log_prob for sample, _ in batch])  # (B, D)
        advantage = self._advantages(np.array([score for _, score in batch]))[:, None]  # (B, 1)
        for _ in range(o.epochs):
            now = self.policy.evaluate(tokens)
            ratio = np.exp(now.log_prob - before)
            # The minimum in the objective: nothing is gained by moving further past the clip.
            moving = np.where(advantage > 0, ratio < 1 + o.clip, ratio > 1 - o.clip)
            d_log_prob = -(moving * ratio * advantage) / tokens.size
            d_entropy = np.full(tokens.shape, -o.entropy_bonus / tokens.size)
            self._adam.update(
                self.policy.parameters, self.policy.gradients(now, d_log_prob, d_entropy)
            )

    def _advantages(self, scores: Floats) -> Floats:
        """Return the ranks of a batch's rewards (B,) less the baseline, in standard deviations."""
        rewards = np.where(np.isfinite(scores), scores, -np.inf)
        self._recent = [*self._recent, *rewards.tolist()][-max(self.options.window, len(rewards)) :]
        recent = np.array(self._recent)
        below = (recent < rewards[:, None]).mean(axis=1)
        ties = (recent == rewards[:, None]).mean(axis=1)
        # Ranks are uniform on 0..1, whose standard deviation is 1 / sqrt(12).
        ranks: Floats = (below + 0.5 * ties - 0.5) * math.sqrt(12)
        mean = float(ranks.mean())
        baseline = mean if self._baseline is None else self._baseline
        keep = self.options.baseline_decay
        self._baseline = keep * baseline + (1 - keep) * mean
        return ranks - baseline
