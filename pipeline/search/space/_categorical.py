"""What every space of independent categorical decisions shares.

A space is an ordered list of groups of decisions. Each group makes a few blocks of the chain from
its own decisions and from the number of channels that come in, nothing else; a group without
decisions is a fixed part such as a stem. So a new space is one file with `groups` and `blocks`,
and everything else follows, the inverse of `decode` too: it walks the chain group by group and
goes back where one stage could end at several blocks.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from device_agents.errors import ConfigError
from models.spec import ArchSpec, Block, Dense

if TYPE_CHECKING:
    import numpy.typing as npt

    from pipeline.search.api import Choices


@dataclass(frozen=True, slots=True)
class Decision:
    """One categorical decision and what can be chosen."""

    name: str
    options: tuple[Any, ...]


Group = tuple[Decision, ...]


class CategoricalSpace(ABC):
    """A `pipeline.search.api.SearchSpace` out of groups of decisions.

    The inverse of `decode` tabulates each group, so the options of one group should multiply to
    some thousands at most. A subclass is a frozen dataclass without slots: tables are cached in
    the instance.
    """

    name: ClassVar[str]
    input: tuple[int, int, int]
    classes: int
    padding: str

    @property
    @abstractmethod
    def groups(self) -> tuple[Group, ...]:
        """The groups in the order of the chain; the same on every call."""

    @abstractmethod
    def blocks(self, group: int, options: tuple[Any, ...], channels: int) -> tuple[Block, ...]:
        """Return the blocks that a group's chosen options make of `channels` input channels."""

    @cached_property
    def decisions(self) -> tuple[str, ...]:
        """Names of the decisions, in order."""
        return tuple(decision.name for group in self.groups for decision in group)

    @cached_property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of options of each decision."""
        return tuple(len(decision.options) for group in self.groups for decision in group)

    @property
    def size(self) -> int:
        """Number of choice vectors; equal networks are counted as often as they are given."""
        return math.prod(self.cardinalities)

    def decode(self, choices: Choices) -> ArchSpec:
        """Return the network of a choice vector.

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
        blocks: list[Block] = []
        start, channels = 0, self.input[2]
        for index, group in enumerate(self.groups):
            own = choices[start : start + len(group)]
            options = tuple(d.options[c] for d, c in zip(group, own, strict=True))
            made = self.blocks(index, options, channels)
            blocks += made
            start += len(group)
            channels = made[-1].out if made else channels
        return self._spec(tuple(blocks))

    def choices(self, spec: ArchSpec) -> Choices:
        """Return one choice vector whose network is exactly `spec`, always the same one.

        Raises:
            ValueError: the network is not in the space.
        """
        found = None
        if spec == self._spec(spec.blocks):
            found = self._match(spec, 0, 0, set())
        if found is None:
            raise ValueError(f"network {str(spec)[:100]} is not in space {self.name!r}")
        return found

    def sample(self, rng: np.random.Generator) -> ArchSpec:
        """Draw a network, uniform over choice vectors."""
        return self.decode(tuple(int(rng.integers(count)) for count in self.cardinalities))

    def mutate(self, spec: ArchSpec, rng: np.random.Generator) -> ArchSpec:
        """Return a different network one decision away: a uniform decision, a uniform option.

        Decisions that make no difference are passed over; each neighbour is tried at most once.

        Raises:
            ValueError: `spec` is not in the space.
            ConfigError: no decision of the space changes this network.
        """
        current = self.choices(spec)
        for decision in rng.permutation(len(current)).tolist():
            for option in rng.permutation(self.cardinalities[decision]).tolist():
                changed = self.decode((*current[:decision], option, *current[decision + 1 :]))
                if changed != spec:
                    return changed
        raise ConfigError(
            f"space {self.name!r} has no network one decision away from {str(spec)[:100]}; "
            "give some decision a second option"
        )

    def crossover(self, a: ArchSpec, b: ArchSpec, rng: np.random.Generator) -> ArchSpec:
        """Return a network each of whose decisions comes from `a` or `b`, evenly.

        Raises:
            ValueError: a parent is not in the space.
        """
        pairs = zip(self.choices(a), self.choices(b), strict=True)
        return self.decode(tuple(pair[int(rng.integers(2))] for pair in pairs))

    def encode(self, spec: ArchSpec) -> npt.NDArray[np.float64]:
        """Return the one-hot decisions, (sum of cardinalities,), options in ascending order.

        Equal networks have equal vectors. Raises ValueError if the network is not in the space.
        """
        vector = np.zeros(sum(self.cardinalities))
        offsets = itertools.accumulate(self.cardinalities[:-1], initial=0)
        vector[[o + c for o, c in zip(offsets, self.choices(spec), strict=True)]] = 1.0
        return vector

    def __contains__(self, spec: object) -> bool:
        """Whether `choices(spec)` would succeed."""
        try:
            return isinstance(spec, ArchSpec) and bool(self.choices(spec))
        except ValueError:
            return False

    def _spec(self, blocks: tuple[Block, ...]) -> ArchSpec:
        return ArchSpec(self.input, blocks, (Dense(self.classes),), self.padding)

    def _match(
        self, spec: ArchSpec, group: int, at: int, dead: set[tuple[int, int]]
    ) -> Choices | None:
        """Return choices of groups from `group` on that make the blocks from `at` on, if any."""
        if group == len(self.groups):
            return () if at == len(spec.blocks) else None
        if (group, at) in dead:
            return None
        table, lengths = self._inverse(group, spec.blocks[at - 1].out if at else spec.input[2])
        for length in lengths:
            if at + length > len(spec.blocks):
                break
            own = table.get(spec.blocks[at : at + length])
            if own is not None:
                rest = self._match(spec, group + 1, at + length, dead)
                if rest is not None:
                    return own + rest
        dead.add((group, at))
        return None

    def _inverse(
        self, group: int, channels: int
    ) -> tuple[dict[tuple[Block, ...], Choices], tuple[int, ...]]:
        """Return (blocks -> the first choices that make them, the lengths there are)."""
        key = (group, channels)
        if key not in self._inverses:
            table: dict[tuple[Block, ...], Choices] = {}
            options = [decision.options for decision in self.groups[group]]
            for own in itertools.product(*(range(len(o)) for o in options)):
                chosen = tuple(o[c] for o, c in zip(options, own, strict=True))
                table.setdefault(self.blocks(group, chosen, channels), own)
            self._inverses[key] = table, tuple(sorted({len(blocks) for blocks in table}))
        return self._inverses[key]

    @cached_property
    def _inverses(
        self,
    ) -> dict[tuple[int, int], tuple[dict[tuple[Block, ...], Choices], tuple[int, ...]]]:
        return {}
