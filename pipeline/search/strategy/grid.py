"""Grid search: every choice vector in order, the last decision changing fastest.

For small spaces, training hyper-parameters above all; in a space of millions the first thousand
differ in the last few decisions only. (Optuna's own grid sampler lists the whole grid in memory and
shuffles it; counting does neither.) Vectors that make a point that was handed out before are passed
over. After the last one nothing more is asked for, which ends the search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from pipeline.search.api import Spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from pipeline.search.api import SearchSpace, Trial


_PASSED_OVER = 1000
"""Vectors counted to find a new point; a repeat is handed out rather than more."""


@dataclass(frozen=True, slots=True)
class GridOptions:
    """Options of `Grid`: none."""


class Grid(Generic[Spec]):
    """Counts through the space; learns nothing."""

    Options = GridOptions

    def __init__(
        self,
        space: SearchSpace[Spec],
        rng: np.random.Generator,
        options: GridOptions = GridOptions(),
    ) -> None:
        del rng
        self.space, self.options = space, options
        self._next = 0
        self._seen: set[Spec] = set()

    def ask(self, n: int) -> Sequence[Spec]:
        """Return the next n points; fewer or none at the end of the grid."""
        asked: list[Spec] = []
        passed_over = 0
        while len(asked) < n and self._next < self.space.size:
            spec = self._at(self._next)
            self._next += 1
            if spec in self._seen and passed_over < _PASSED_OVER:
                passed_over += 1
                continue
            self._seen.add(spec)
            asked.append(spec)
        return asked

    def tell(self, trials: Sequence[Trial[Spec]]) -> None:
        """Do nothing: the order is fixed."""

    def _at(self, index: int) -> Spec:
        chosen = []
        for count in reversed(self.space.cardinalities):
            index, choice = divmod(index, count)
            chosen.append(choice)
        return self.space.decode(tuple(reversed(chosen)))
