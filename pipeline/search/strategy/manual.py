"""A list of networks that somebody wants to see, in the order given.

After the last one nothing more is asked for, which ends the search. A network is given by one
choice per decision or, where points are network specs, by its line: the one that tables and reports
show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, cast

from device_agents.errors import ConfigError
from models.spec import ArchSpec
from pipeline.search.api import Spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from pipeline.search.api import SearchSpace, Trial


@dataclass(frozen=True, slots=True)
class ManualOptions:
    """Options of `Manual`; the list is `specs`, then `choices`.

    Attributes:
        specs: lines of networks.
        choices: choice vectors, one index per decision; without any list, the first choice of
            every decision.
    """

    specs: tuple[str, ...] = ()
    choices: tuple[tuple[int, ...], ...] = ()


class Manual(Generic[Spec]):
    """Hands out a list; learns nothing."""

    Options = ManualOptions

    def __init__(
        self,
        space: SearchSpace[Spec],
        rng: np.random.Generator,
        options: ManualOptions = ManualOptions(),
    ) -> None:
        del rng
        self.space, self.options = space, options
        first = (0,) * len(space.cardinalities)
        vectors = options.choices or (() if options.specs else (first,))
        self._list = [
            *(self._of_line(line) for line in options.specs),
            *(self._of_choices(vector) for vector in vectors),
        ]
        self._next = 0

    def ask(self, n: int) -> Sequence[Spec]:
        """Return the next n of the list; fewer or none at its end."""
        asked = self._list[self._next : self._next + n]
        self._next += n
        return asked

    def tell(self, trials: Sequence[Trial[Spec]]) -> None:
        """Do nothing: the list is fixed."""

    def _of_line(self, line: str) -> Spec:
        spec = ArchSpec.parse(line)
        if spec not in self.space:
            raise ConfigError(
                f"the manual list's network {line[:200]!r} is not in the space "
                f"{self.space.name!r}; change the space's options so that it holds it, or leave "
                "it out"
            )
        return cast("Spec", spec)

    def _of_choices(self, vector: tuple[int, ...]) -> Spec:
        try:
            return self.space.decode(vector)
        except ValueError as error:
            raise ConfigError(f"the manual list's choices: {error}") from error
