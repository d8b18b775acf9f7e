"""Uniform random search without replacement, the baseline for every other strategy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from device_agents.errors import ConfigError
from pipeline.search.api import Spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from pipeline.search.api import SearchSpace, Trial


@dataclass(frozen=True, slots=True)
class RandomSearchOptions:
    """Options of `RandomSearch`.

    Attributes:
        tries: draws per network before a repeat is handed out, at least 1. In a space that is
            all but exhausted repeats are unavoidable.
    """

    tries: int = 100

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise ConfigError(f"random search, tries: {self.tries} is not above 0")


class RandomSearch(Generic[Spec]):
    """Samples the space uniformly over its choice vectors; learns nothing."""

    Options = RandomSearchOptions

    def __init__(
        self,
        space: SearchSpace[Spec],
        rng: np.random.Generator,
        options: RandomSearchOptions = RandomSearchOptions(),
    ) -> None:
        self.space, self.rng, self.options = space, rng, options
        self._seen: set[Spec] = set()

    def ask(self, n: int) -> Sequence[Spec]:
        """Return n networks, new ones as far as `tries` draws each find any."""
        return [self._draw() for _ in range(n)]

    def tell(self, trials: Sequence[Trial[Spec]]) -> None:
        """Do nothing: the next draw does not depend on results."""

    def _draw(self) -> Spec:
        spec = self.space.sample(self.rng)
        for _ in range(self.options.tries - 1):
            if spec not in self._seen:
                break
            spec = self.space.sample(self.rng)
        self._seen.add(spec)
        return spec
