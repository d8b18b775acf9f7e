"""Local search: move to the first neighbour that is better, begin anew where none is.

White et al., "Exploring the Loss Landscape in Neural Architecture Search" (2021), in its
first-improvement form: the neighbours of a network differ from it in one decision and are visited
in random order. Networks evaluated before cost nothing: their scores are remembered. After a local
optimum the search begins again at a random network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from device_agents.errors import ConfigError
from pipeline.search.api import Spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from pipeline.search.api import SearchSpace, Trial


@dataclass(frozen=True, slots=True)
class LocalSearchOptions:
    """Options of `LocalSearch`.

    Attributes:
        tries: draws to find a start that was not evaluated before; then a repeat is handed out.
    """

    tries: int = 100

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise ConfigError(f"local search, tries: {self.tries} is not above 0")


class LocalSearch(Generic[Spec]):
    """First-improvement hill climbing with restarts; see the module."""

    Options = LocalSearchOptions

    def __init__(
        self,
        space: SearchSpace[Spec],
        rng: np.random.Generator,
        options: LocalSearchOptions = LocalSearchOptions(),
    ) -> None:
        self.space, self.rng, self.options = space, rng, options
        self._scores: dict[Spec, float] = {}
        self._here: Spec | None = None
        self._ahead: list[Spec] = []

    def ask(self, n: int) -> Sequence[Spec]:
        """Return n networks: neighbours not evaluated yet, or starts where there are none."""
        self._climb()
        asked = [spec for spec in self._ahead if spec not in self._scores][:n]
        while len(asked) < n:
            asked.append(self._start(asked))
        return asked

    def tell(self, trials: Sequence[Trial[Spec]]) -> None:
        """Remember the scores; a failed candidate has minus infinity."""
        for trial in trials:
            self._scores[trial.spec] = trial.score if math.isfinite(trial.score) else -math.inf
        if self._here is None and trials:
            self._move(max((t.spec for t in trials), key=self._scores.__getitem__))

    def _climb(self) -> None:
        """Move over neighbours whose scores are known; ends at one to evaluate or an optimum.

        Each move raises the score, so it ends.
        """
        while self._here is not None:
            here = self._scores[self._here]
            while self._ahead and self._scores.get(self._ahead[0], math.inf) <= here:
                del self._ahead[0]
            if not self._ahead:
                self._here = None
            elif self._ahead[0] in self._scores:
                self._move(self._ahead[0])
            else:
                return

    def _move(self, spec: Spec) -> None:
        self._here = spec
        chosen = self.space.choices(spec)
        neighbours = {
            self.space.decode((*chosen[:i], option, *chosen[i + 1 :])): None
            for i, count in enumerate(self.space.cardinalities)
            for option in range(count)
            if option != chosen[i]
        }
        neighbours.pop(spec, None)
        ahead = list(neighbours)
        self._ahead = [ahead[i] for i in self.rng.permutation(len(ahead))]

    def _start(self, asked: Sequence[Spec]) -> Spec:
        spec = self.space.sample(self.rng)
        for _ in range(self.options.tries - 1):
            if spec not in self._scores and spec not in asked:
                break
            spec = self.space.sample(self.rng)
        return spec
