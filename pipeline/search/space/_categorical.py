"""What every space of chains of blocks shares.

Such a space is an ordered list of groups of decisions. Each group makes a few blocks of the chain
from its own decisions and from the number of channels that come in, nothing else; a group without
decisions is a fixed part such as a stem. So a new space is one file with `groups` and `blocks`,
and everything else follows, the inverse of `decode` too: it walks the chain group by group and
goes back where one stage could end at several blocks.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any

from models.spec import ArchSpec, Block, Dense
from pipeline.search.space._decisions import Decision, DecisionSpace

if TYPE_CHECKING:
    from pipeline.search.api import Choices

Group = tuple[Decision, ...]


class CategoricalSpace(DecisionSpace[ArchSpec]):
    """A space of networks out of groups of decisions.

    The inverse of `decode` tabulates each group, so the options of one group should multiply to
    some thousands at most.
    """

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
    def all_decisions(self) -> tuple[Decision, ...]:
        """The decisions of all groups, in order."""
        return tuple(decision for group in self.groups for decision in group)

    def decode(self, choices: Choices) -> ArchSpec:
        """Return the network of a choice vector.

        Raises:
            ValueError: the vector has another length or an index out of range.
        """
        chosen = self.chosen(choices)
        blocks: list[Block] = []
        start, channels = 0, self.input[2]
        for index, group in enumerate(self.groups):
            made = self.blocks(index, chosen[start : start + len(group)], channels)
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
