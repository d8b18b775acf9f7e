"""Regularised evolution: the oldest of the population dies, not the worst.

Real et al., "Regularized Evolution for Image Classifier Architecture Search" (2019), algorithm 1:
draw `sample` members of the population, mutate the best of them in one decision, add the child,
drop the oldest member. Ageing keeps one lucky evaluation from ruling for ever.

Where the paper is silent: a child that was evaluated before is mutated again, `tries` times at
most; then the repeat is handed out. Failed candidates are members like others, with a score of
minus infinity. Children of one `ask` are bred from one population.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from device_agents.errors import ConfigError
from pipeline.search.api import Spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from pipeline.search.api import SearchSpace, Trial


@dataclass(frozen=True, slots=True)
class RegularisedEvolutionOptions:
    """Options of `RegularisedEvolution`; the paper's own are 100 and 25, for 20 000 trials.

    Attributes:
        population: members kept, and random networks before the first child.
        sample: members drawn to be parent, at most `population`.
        tries: mutations to find a network that was not evaluated before.
    """

    population: int = 20
    sample: int = 5
    tries: int = 20

    def __post_init__(self) -> None:
        for name, low in (("population", 2), ("sample", 1), ("tries", 1)):
            if getattr(self, name) < low:
                raise ConfigError(
                    f"regularised evolution, {name}: {getattr(self, name)} is below {low}"
                )
        if self.sample > self.population:
            raise ConfigError(
                f"regularised evolution, sample: {self.sample} is more than the population of "
                f"{self.population}"
            )


class RegularisedEvolution(Generic[Spec]):
    """Ageing tournament evolution; see the module."""

    Options = RegularisedEvolutionOptions

    def __init__(
        self,
        space: SearchSpace[Spec],
        rng: np.random.Generator,
        options: RegularisedEvolutionOptions = RegularisedEvolutionOptions(),
    ) -> None:
        self.space, self.rng, self.options = space, rng, options
        self._population: deque[tuple[float, Spec]] = deque(maxlen=options.population)
        self._seen: set[Spec] = set()

    def ask(self, n: int) -> Sequence[Spec]:
        """Return n networks: random ones until the population is full, then children."""
        missing = self.options.population - len(self._population)
        first = not self._population
        asked = [self._fresh(random=first or i < missing) for i in range(n)]
        self._seen.update(asked)
        return asked

    def tell(self, trials: Sequence[Trial[Spec]]) -> None:
        """Add the trials to the population; the oldest leave it."""
        for trial in trials:
            score = trial.score if math.isfinite(trial.score) else -math.inf
            self._population.append((score, trial.spec))

    def _fresh(self, *, random: bool) -> Spec:
        parent = None if random else self._parent()
        spec = parent
        for _ in range(self.options.tries):
            spec = (
                self.space.sample(self.rng)
                if parent is None
                else self.space.mutate(parent, self.rng)
            )
            if spec not in self._seen:
                break
        return spec if spec is not None else self.space.sample(self.rng)

    def _parent(self) -> Spec:
        count = min(self.options.sample, len(self._population))
        drawn = self.rng.choice(len(self._population), count, replace=False)
        return max((self._population[i] for i in drawn), key=lambda member: member[0])[1]
