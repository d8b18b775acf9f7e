"""Once-for-all's evolution: the best quarter breeds, half by mutation and half by crossover.

Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient Deployment" (2020),
and the authors' code: of a population the best `parents` survive and breed as many children as the
population is large; a mutation draws each decision anew with probability `mutation`, a crossover
takes each decision from one of two parents. (The authors call it regularised evolution; nothing in
it ages.) Defaults are theirs: 100 networks and 500 generations are 50 100 trials.

Mended, against the authors' code:

- Networks above `latency_limit_ms` are told, not drawn again until one is within it, which never
  ends under a limit that no network keeps. They rank behind all that are within, the fastest first.
  A generation ends when `population` of its children are within the limit, as in the paper, or
  when `patience` populations of children were tried.
- Children of the last generation count: a trial is a result as soon as it is told.
- A network that was evaluated before is bred anew, `tries` times at most; then it is handed out,
  and is one member, not two.

Otherwise than there, each decision is drawn anew by itself: a layer's kernel and expansion are two,
theirs are drawn as a pair. A mutation draws at least one, and a child is a mutant by chance, so
that half of them are on average.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from device_agents.errors import ConfigError
from pipeline.search.api import Spec
from pipeline.search.strategy._genes import Breeder, Litter
from pipeline.search.strategy._ranking import Rank, check_limit, rank

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from pipeline.search.api import SearchSpace, Trial
    from pipeline.search.strategy._genes import Genes

_WITHIN = 2  # of a Rank


@dataclass(frozen=True, slots=True)
class OFAEvolutionOptions:
    """Options of `OFAEvolution`; for hundreds of trials a population of 20 is better.

    Attributes:
        latency_limit_ms: networks above it are not wanted; None: the score alone counts. A
            recipe's search sets it to its target unless it is given.
        population: random networks to begin with, and children of a generation.
        parents: share of the population that survives and breeds.
        mutation: probability of each decision to be drawn anew.
        mutated: share of children that are mutants; the others are crossed.
        patience: populations of children after which a generation ends in any case.
        tries: children bred to find one that was not evaluated before.
    """

    latency_limit_ms: float | None = None
    population: int = 100
    parents: float = 0.25
    mutation: float = 0.1
    mutated: float = 0.5
    patience: int = 4
    tries: int = 20

    def __post_init__(self) -> None:
        for name, low in (("population", 4), ("patience", 1), ("tries", 1)):
            if getattr(self, name) < low:
                raise ConfigError(f"OFA evolution, {name}: {getattr(self, name)} is below {low}")
        for name in ("parents", "mutation", "mutated"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(
                    f"OFA evolution, {name}: {getattr(self, name)} is not a share above 0, "
                    "1 at most"
                )
        check_limit("OFA evolution", self.latency_limit_ms)

    @property
    def survivors(self) -> int:
        """Number of parents, at least the two that a crossover needs."""
        return max(2, round(self.parents * self.population))


@dataclass(frozen=True, slots=True)
class _Member(Generic[Spec]):
    spec: Spec
    genes: Genes
    place: Rank


class OFAEvolution(Generic[Spec]):
    """Elitist evolution by truncation selection; see the module."""

    Options = OFAEvolutionOptions

    def __init__(
        self,
        space: SearchSpace[Spec],
        rng: np.random.Generator,
        options: OFAEvolutionOptions = OFAEvolutionOptions(),
    ) -> None:
        self.space, self.rng, self.options = space, rng, options
        self._breeder = Breeder(space, rng)
        self._litter = Litter(self._breeder, options.tries)
        self._parents: list[_Member[Spec]] = []
        self._children: list[_Member[Spec]] = []

    def ask(self, n: int) -> Sequence[Spec]:
        """Return n networks: random ones first, then children of the last generation's best."""
        return self._litter.ask(n, self._breed)

    def tell(self, trials: Sequence[Trial[Spec]]) -> None:
        """Add the trials to the generation; when it is complete its best become parents."""
        for trial in trials:
            place = rank(trial, self.options.latency_limit_ms)
            self._children.append(_Member(trial.spec, self._litter.told(trial), place))
            self._select()

    def _select(self) -> None:
        o = self.options
        within = sum(child.place[0] == _WITHIN for child in self._children)
        if within < o.population and len(self._children) < o.patience * o.population:
            return
        different = {m.spec: m for m in (*self._parents, *self._children)}.values()
        self._parents = sorted(different, key=lambda m: m.place, reverse=True)[: o.survivors]
        self._children = []

    def _breed(self) -> Genes:
        if not self._parents:
            return self._breeder.sample()
        parents = [member.genes for member in self._parents]
        # A space of one point has one parent, which there is nothing to cross with.
        if self.rng.random() < self.options.mutated or len(parents) < 2:
            parent = parents[int(self.rng.integers(len(parents)))]
            return self._breeder.redraw(parent, self.options.mutation)
        return self._breeder.cross(parents)
