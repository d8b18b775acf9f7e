"""NSGA-II: evolve the whole front of accuracy against latency, not one best network.

Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II" (2002). A generation is
parents and children together; the next parents are its non-dominated fronts, the first front
first, and of the front that no longer fits those in the least crowded places. Parents are chosen
by binary tournament, crossed evenly, and each of D decisions is drawn anew with probability 1/D, at
least one. A network that was handed out again is one member, not two.

The objectives are the accuracy (up) and the latency (down) of the trials. With `latency_limit_ms`
constraint domination holds (section VI of the paper): what is within the limit dominates what is
not, and outside it only the latency counts. A trial without both estimates has its score as its
only objective; a failed one is dominated by all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

import numpy as np

from device_agents.errors import ConfigError
from pipeline.search.api import Spec
from pipeline.search.strategy._genes import Breeder, Litter
from pipeline.search.strategy._ranking import FAILED, check_limit, latency_ms, rank

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import numpy.typing as npt

    from pipeline.search.api import SearchSpace, Trial
    from pipeline.search.strategy._genes import Genes
    from pipeline.search.strategy._ranking import Rank

    Floats = npt.NDArray[np.float64]

_WITHIN = 2  # of a Rank


@dataclass(frozen=True, slots=True)
class NSGA2Options:
    """Options of `NSGA2`.

    Attributes:
        latency_limit_ms: networks above it are dominated by all within it; None: no limit. A
            recipe's search sets it to its target unless it is given.
        population: parents kept, and random networks to begin with.
        crossover: probability that a child has two parents.
        tries: children bred to find one that was not evaluated before.
    """

    latency_limit_ms: float | None = None
    population: int = 20
    crossover: float = 0.9
    tries: int = 20

    def __post_init__(self) -> None:
        for name, low in (("population", 4), ("tries", 1)):
            if getattr(self, name) < low:
                raise ConfigError(f"NSGA-II, {name}: {getattr(self, name)} is below {low}")
        if not 0 <= self.crossover <= 1:
            raise ConfigError(f"NSGA-II, crossover: {self.crossover} is not from 0 to 1")
        check_limit("NSGA-II", self.latency_limit_ms)


@dataclass(frozen=True, slots=True)
class _Member:
    """A told network: where it stands, and its objectives, both of which are to be small."""

    spec: Hashable
    genes: Genes
    place: Rank
    goals: tuple[float, float]


class NSGA2(Generic[Spec]):
    """Elitist multi-objective evolution; see the module."""

    Options = NSGA2Options

    def __init__(
        self,
        space: SearchSpace[Spec],
        rng: np.random.Generator,
        options: NSGA2Options = NSGA2Options(),
    ) -> None:
        self.space, self.rng, self.options = space, rng, options
        self._breeder = Breeder(space, rng)
        self._litter = Litter(self._breeder, options.tries)
        self._parents: list[_Member] = []
        self._children: list[_Member] = []

    def ask(self, n: int) -> Sequence[Spec]:
        """Return n networks: random ones first, then children of the last generation."""
        return self._litter.ask(n, self._breed)

    def tell(self, trials: Sequence[Trial[Spec]]) -> None:
        """Add the trials to the generation; when it is complete, select the next parents."""
        for trial in trials:
            self._children.append(self._member(trial, self._litter.told(trial)))
            if len(self._children) >= self.options.population:
                self._parents = self._selected([*self._parents, *self._children])
                self._children = []

    def _member(self, trial: Trial[Spec], genes: Genes) -> _Member:
        accuracy, latency = trial.estimates.get("accuracy"), latency_ms(trial)
        place = rank(trial, self.options.latency_limit_ms)
        if place[0] != _WITHIN:
            return _Member(trial.spec, genes, place, (-place[1], 0.0))
        if accuracy is None or not np.isfinite([accuracy.value, latency]).all():
            return _Member(trial.spec, genes, place, (-trial.score, 0.0))
        return _Member(trial.spec, genes, place, (-accuracy.value, latency))

    def _selected(self, everyone: list[_Member]) -> list[_Member]:
        """Return the next parents, best first: by front, within a front by crowding."""
        chosen: list[_Member] = []
        different = list({member.spec: member for member in everyone}.values())
        for members in _by_place(different):
            for front in fronts(np.array([m.goals for m in members])):
                distance = crowding(np.array([members[i].goals for i in front]))
                chosen += [members[front[i]] for i in np.argsort(-distance, kind="stable")]
        return chosen[: self.options.population]

    def _breed(self) -> Genes:
        if not self._parents:
            return self._breeder.sample()
        first, second = self._tournament(), self._tournament()
        if self.rng.random() < self.options.crossover:
            first = self._breeder.cross([first, second])
        return self._breeder.redraw(first, 1.0 / len(first))

    def _tournament(self) -> Genes:
        """Return the better of two parents drawn; they stand in their order."""
        return self._parents[int(self.rng.integers(len(self._parents), size=2).min())].genes


def fronts(goals: Floats) -> list[list[int]]:
    """Return the indices of the non-dominated fronts of goals (n, m), all to be small."""
    no_worse = (goals[:, None] <= goals[None]).all(axis=2)
    better = (goals[:, None] < goals[None]).any(axis=2)
    dominates = no_worse & better  # [i, j]: i dominates j
    left = np.ones(len(goals), dtype=bool)
    found = []
    while left.any():
        front = left & ~(dominates & left[:, None]).any(axis=0)
        found.append(np.flatnonzero(front).tolist())
        left &= ~front
    return found


def crowding(goals: Floats) -> Floats:
    """Return the crowding distance of each point of a front (n, m); infinite at its ends."""
    distance = np.zeros(len(goals))
    for column in goals.T:
        order = np.argsort(column, kind="stable")
        spread = column[order[-1]] - column[order[0]]
        distance[order[[0, -1]]] = np.inf
        if spread > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / spread
    return distance


def _by_place(everyone: list[_Member]) -> list[list[_Member]]:
    """Return those within the limit, those outside and those that failed."""
    tiers: dict[float, list[_Member]] = {2: [], 1: [], FAILED[0]: []}
    for member in everyone:
        tiers[member.place[0]].append(member)
    return [members for members in tiers.values() if members]
