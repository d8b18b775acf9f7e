"""What evolutions breed: choice vectors as rows of an array, and those that wait to be told.

A genotype keeps the choices that make no difference at present (the kernel of a layer that a
shallow stage leaves out): they come back when the depth does, as in Once-for-all's own code.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

import numpy as np
import numpy.typing as npt

from pipeline.search.api import Spec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.search.api import SearchSpace, Trial

Genes = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Breeder(Generic[Spec]):
    """Draws, mutates and crosses genotypes of a space; rows are (D,), D decisions."""

    space: SearchSpace[Spec]
    rng: np.random.Generator

    @property
    def counts(self) -> Genes:
        """Number of options of each decision, (D,)."""
        return np.array(self.space.cardinalities, np.int64)

    def spec(self, genes: Genes) -> Spec:
        """Return the point of a genotype."""
        return self.space.decode(tuple(genes.tolist()))

    def sample(self) -> Genes:
        """Draw a genotype, uniform over choice vectors."""
        genes: Genes = self.rng.integers(0, self.counts)
        return genes

    def redraw(self, parent: Genes, probability: float) -> Genes:
        """Draw each decision of the parent anew with a probability, at least one decision."""
        chosen = self.rng.random(len(parent)) < probability
        chosen[self.rng.integers(len(parent))] |= not chosen.any()
        return np.where(chosen, self.sample(), parent)

    def redraw_some(self, parent: Genes, count: int) -> Genes:
        """Draw `count` decisions of the parent anew, or all if there are fewer."""
        child = parent.copy()
        chosen = self.rng.choice(len(parent), min(count, len(parent)), replace=False)
        child[chosen] = self.rng.integers(0, self.counts[chosen])
        return child

    def cross(self, parents: Sequence[Genes]) -> Genes:
        """Take each decision from one of two different parents, evenly."""
        a, b = self.rng.choice(len(parents), 2, replace=False).tolist()
        child: Genes = np.where(self.rng.random(len(parents[a])) < 0.5, parents[a], parents[b])
        return child


class Litter(Generic[Spec]):
    """Genotypes handed out and not told yet; none is handed out twice while another is found."""

    def __init__(self, breeder: Breeder[Spec], tries: int) -> None:
        self._breeder, self._tries = breeder, tries
        self._waiting: deque[tuple[Spec, Genes]] = deque()
        self._seen: set[Spec] = set()

    def ask(self, n: int, breed: Callable[[], Genes]) -> list[Spec]:
        """Breed n points, new ones as far as `tries` of each find any."""
        self._waiting = deque(self._fresh(breed) for _ in range(n))
        return [spec for spec, _ in self._waiting]

    def told(self, trial: Trial[Spec]) -> Genes:
        """Return the genotype of the next trial told; those before it were left out.

        Raises:
            ValueError: it was not asked for, or is out of order.
        """
        while self._waiting:
            spec, genes = self._waiting.popleft()
            if spec == trial.spec:
                return genes
        raise ValueError(f"told {str(trial.spec)[:100]}, which is not next of those asked")

    def _fresh(self, breed: Callable[[], Genes]) -> tuple[Spec, Genes]:
        for _ in range(self._tries):
            genes = breed()
            spec = self._breeder.spec(genes)
            if spec not in self._seen:
                break
        self._seen.add(spec)
        return spec, genes
