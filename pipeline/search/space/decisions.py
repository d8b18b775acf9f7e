"""What every space of independent categorical decisions shares, whatever its points are.

A space says which decisions there are, what a choice vector means (`decode`) and which vector a
point has (`choices`); drawing, mutating, crossing and encoding follow from that.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic

import numpy as np

from device_agents.errors import ConfigError
from pipeline.search.api import Spec

if TYPE_CHECKING:
    import numpy.typing as npt

    from pipeline.search.api import Choices


@dataclass(frozen=True, slots=True)
class Decision:
    """One categorical decision and what can be chosen."""

    name: str
    options: tuple[Any, ...]


class DecisionSpace(ABC, Generic[Spec]):
    """A `pipeline.search.api.SearchSpace` out of decisions.

    A subclass is a frozen dataclass without slots: tables are cached in the instance.
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def all_decisions(self) -> tuple[Decision, ...]:
        """The decisions in order; the same on every call."""

    @abstractmethod
    def decode(self, choices: Choices) -> Spec:
        """Return the point of a choice vector.

        Raises:
            ValueError: the vector has another length or an index out of range.
        """

    @abstractmethod
    def choices(self, spec: Spec) -> Choices:
        """Return one choice vector whose point is exactly `spec`, always the same one.

        Raises:
            ValueError: the point is not in the space.
        """

    @cached_property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of options of each decision."""
        return tuple(len(decision.options) for decision in self.all_decisions)

    @property
    def size(self) -> int:
        """Number of choice vectors; equal points are counted as often as they are given."""
        return math.prod(self.cardinalities)

    def chosen(self, choices: Choices) -> tuple[Any, ...]:
        """Return the options that a choice vector takes, one for each decision.

        Raises:
            ValueError: the vector has another length or an index out of range.
        """
        if len(choices) != len(self.cardinalities) or any(
            not 0 <= choice < count
            for choice, count in zip(choices, self.cardinalities, strict=True)
        ):
            raise ValueError(
                f"{tuple(choices)} is no choice vector of space {self.name!r}: "
                f"it takes one index below each of {self.cardinalities}"
            )
        return tuple(d.options[c] for d, c in zip(self.all_decisions, choices, strict=True))

    def sample(self, rng: np.random.Generator) -> Spec:
        """Draw a point, uniform over choice vectors."""
        return self.decode(tuple(int(rng.integers(count)) for count in self.cardinalities))

    def mutate(self, spec: Spec, rng: np.random.Generator) -> Spec:
        """Return a different point one decision away: a uniform decision, a uniform option.

        Decisions that make no difference are passed over; each neighbour is tried at most once.

        Raises:
            ValueError: `spec` is not in the space.
            ConfigError: no decision of the space changes this point.
        """
        current = self.choices(spec)
        for decision in rng.permutation(len(current)).tolist():
            for option in rng.permutation(self.cardinalities[decision]).tolist():
                changed = self.decode((*current[:decision], option, *current[decision + 1 :]))
                if changed != spec:
                    return changed
        raise ConfigError(
            f"space {self.name!r} has nothing one decision away from {str(spec)[:100]}; "
            "give some decision a second option"
        )

    def crossover(self, a: Spec, b: Spec, rng: np.random.Generator) -> Spec:
        """Return a point each of whose decisions comes from `a` or `b`, evenly.

        Raises:
            ValueError: a parent is not in the space.
        """
        pairs = zip(self.choices(a), self.choices(b), strict=True)
        return self.decode(tuple(pair[int(rng.integers(2))] for pair in pairs))

    def encode(self, spec: Spec) -> npt.NDArray[np.float64]:
        """Return the one-hot decisions, (sum of cardinalities,), options in ascending order.

        Equal points have equal vectors. Raises ValueError if the point is not in the space.
        """
        vector = np.zeros(sum(self.cardinalities))
        offsets = itertools.accumulate(self.cardinalities[:-1], initial=0)
        vector[[o + c for o, c in zip(offsets, self.choices(spec), strict=True)]] = 1.0
        return vector

    def features(self, spec: Spec) -> npt.NDArray[np.float64]:
        """Return what a model of the space should see: here, `encode`."""
        return self.encode(spec)

    def latency_features(self, spec: Spec) -> npt.NDArray[np.float64]:
        """Return what a model of latency should see: here, `features`."""
        return self.features(spec)

    def __contains__(self, spec: object) -> bool:
        """Whether `choices(spec)` would succeed."""
        try:
            return bool(self.choices(spec))  # type: ignore[arg-type]
        except (ValueError, AttributeError, TypeError):
            return False
