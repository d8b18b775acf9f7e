"""What MnasNet's controllers share: they write networks, collect rewards and judge them.

How the policy then moves is the subclass's: proximal policy optimisation or plain REINFORCE.

- The reward enters by its rank among the last `window` rewards, scaled to unit variance, so
  neither its unit nor an outlier matters. A failed candidate (a score that is not finite) ranks
  below all others.
- A moving-average baseline is subtracted before the batch enters it. (The ProxylessNAS code moves
  it first, and by 99 % of the way, so that a batch is judged by little but itself.)
- Networks already asked for are drawn again, a few times at most.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic

import numpy as np

from device_agents.errors import ConfigError
from pipeline.search.api import Spec
from pipeline.search.strategy._policy import Adam, Floats, Policy, Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.search.api import SearchSpace, Trial


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """Options that every controller has.

    Attributes:
        batch: trials per update, at least 2; fewer at a time are collected.
        learning_rate: of Adam.
        entropy_bonus: weight of the mean entropy (nats) of the decisions.
        window: how many of the last rewards, the batch among them, a reward is ranked in.
        baseline_decay: share of the old value that each batch leaves in the baseline.
        tries: draws per network to find one not asked for before; then a repeat is handed out.
        hidden: state of the LSTM.
        embedding: width of a token's embedding.
    """

    batch: int = 10
    learning_rate: float = 0.01
    entropy_bonus: float = 0.1
    window: int = 50
    baseline_decay: float = 0.8
    tries: int = 10
    hidden: int = 64
    embedding: int = 32

    title: ClassVar[str] = "controller"
    lowest: ClassVar[dict[str, float]] = {
        "batch": 2,
        "window": 2,
        "tries": 1,
        "hidden": 1,
        "embedding": 1,
        "entropy_bonus": 0,
        "baseline_decay": 0,
    }
    above_zero: ClassVar[tuple[str, ...]] = ("learning_rate",)

    def __post_init__(self) -> None:
        for name, low in self.lowest.items():
            if not getattr(self, name) >= low:
                raise ConfigError(f"{self.title}, {name}: {getattr(self, name)} is below {low}")
        for name in self.above_zero:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{self.title}, {name}: {getattr(self, name)} is not above 0")
        if not self.baseline_decay < 1:
            raise ConfigError(f"{self.title}, baseline_decay: {self.baseline_decay} is not below 1")


@dataclass(frozen=True, slots=True)
class _Sample(Generic[Spec]):
    """A network with the tokens that the controller wrote and their log-probabilities then."""

    spec: Spec
    tokens: Tokens  # (D,)
    log_prob: Floats  # (D,)


class Controller(ABC, Generic[Spec]):
    """Ask: sample the policy. Tell: collect a batch, then update the policy."""

    def __init__(
        self, space: SearchSpace[Spec], rng: np.random.Generator, options: ControllerOptions
    ) -> None:
        self.space, self.rng = space, rng
        self.policy = Policy(
            space.cardinalities, rng, hidden=options.hidden, embedding=options.embedding
        )
        self.adam = Adam(options.learning_rate)
        self._shared = options
        self._recent: list[float] = []
        self._baseline: float | None = None
        self._asked: list[_Sample[Spec]] = []
        self._told: list[tuple[_Sample[Spec], float]] = []
        self._seen: set[Spec] = set()

    @abstractmethod
    def update(self, tokens: Tokens, before: Floats, advantage: Floats) -> None:
        """Move the policy.

        Args:
            tokens: (B, D), what was taken.
            before: (B, D), its log-probabilities when it was drawn.
            advantage: (B,), how much better than expected it came out.
        """

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
        while len(self._told) >= self._shared.batch:
            batch = self._told[: self._shared.batch]
            del self._told[: self._shared.batch]
            self.update(
                np.stack([sample.tokens for sample, _ in batch]),
                np.stack([sample.log_prob for sample, _ in batch]),
                self.advantages(np.array([score for _, score in batch])),
            )

    def advantages(self, scores: Floats) -> Floats:
        """Return the ranks of a batch's rewards (B,) less the baseline, in standard deviations."""
        rewards = np.where(np.isfinite(scores), scores, -np.inf)
        self._recent = [*self._recent, *rewards.tolist()][-max(self._shared.window, len(rewards)) :]
        recent = np.array(self._recent)
        below = (recent < rewards[:, None]).mean(axis=1)
        ties = (recent == rewards[:, None]).mean(axis=1)
        # Ranks are uniform on 0..1, whose standard deviation is 1 / sqrt(12).
        ranks: Floats = (below + 0.5 * ties - 0.5) * math.sqrt(12)
        mean = float(ranks.mean())
        baseline = mean if self._baseline is None else self._baseline
        keep = self._shared.baseline_decay
        self._baseline = keep * baseline + (1 - keep) * mean
        return ranks - baseline

    def _draw(self) -> _Sample[Spec]:
        for _ in range(self._shared.tries):
            tokens, log_prob = self.policy.sample(self.rng, 1)
            spec = self.space.decode(tuple(tokens[0].tolist()))
            if spec not in self._seen:
                break
        self._seen.add(spec)
        return _Sample(spec, tokens[0], log_prob[0])
