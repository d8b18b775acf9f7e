"""What every space of chains of blocks shares.

Such a space is an ordered list of groups of decisions. Each group makes a few blocks of the chain
from its own decisions and from the number of channels that come in, nothing else; a group without
decisions is a fixed part such as a stem. So a new space is one file with `groups` and `blocks`,
and everything else follows, the inverse of `decode` too: it walks the chain group by group and
goes back where one stage could end at several blocks.

One decision can stand behind all groups: the activation of the whole network, if a space offers
several. One for each group would multiply the inverse's tables, and networks that mix activations
are cut into more pieces where a delegate knows only some of them.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from models.lower import lower, lower_blocks
from models.spec import ArchSpec, Block, Dense
from pipeline.search.space.decisions import Decision, DecisionSpace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.graph import Op
    from pipeline.search.api import Choices

Group = tuple[Decision, ...]


class CategoricalSpace(DecisionSpace[ArchSpec]):
    """A space of networks out of groups of decisions.

    The inverse of `decode` tabulates each group, so the options of one group should multiply to
    some thousands at most. `acts` are the activations offered to the whole network; a space that
    has any makes its blocks with the first.
    """

    input: tuple[int, int, int]
    classes: int
    padding: str
    acts: tuple[str, ...] = ()

    @property
    @abstractmethod
    def groups(self) -> tuple[Group, ...]:
        """The groups in the order of the chain; the same on every call."""

    @abstractmethod
    def blocks(self, group: int, options: tuple[Any, ...], channels: int) -> tuple[Block, ...]:
        """Return the blocks that a group's chosen options make of `channels` input channels."""

    @cached_property
    def all_decisions(self) -> tuple[Decision, ...]:
        """The decisions of all groups, in order; then the activation if there are several."""
        own = tuple(decision for group in self.groups for decision in group)
        return (*own, Decision("act", self.acts)) if len(self.acts) > 1 else own

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
        if len(self.acts) > 1:
            blocks = [replace(block, act=chosen[-1]) for block in blocks]
        return self._spec(tuple(blocks))

    def choices(self, spec: ArchSpec) -> Choices:
        """Return one choice vector whose network is exactly `spec`, always the same one.

        Raises:
            ValueError: the network is not in the space.
        """
        found = None
        # By parts: the blocks of a stranger may not even fit behind this space's input.
        ends = (self.input, self._dense, self.padding)
        if (spec.input, spec.dense, spec.padding) == ends:
            plain, act = self._plain(spec)
            found = self._match(plain, 0, 0, set())
        if found is None:
            raise ValueError(f"network {str(spec)[:100]} is not in space {self.name!r}")
        return found + act

    def graph_ops(self) -> Iterator[Op]:
        """Yield every op that a network of the space can have (`pipeline.search.api.KnowsOps`).

        The chain is walked group by group, over the maps that can arrive there.
        """
        arriving = {self.input}
        for index, group in enumerate(self.groups):
            leaving = set()
            for shape in arriving:
                for options in itertools.product(*(decision.options for decision in group)):
                    for blocks in self._activated(self.blocks(index, options, shape[2])):
                        ops, behind = lower_blocks(shape, blocks, self.padding)
                        yield from ops
                        leaving.add(behind)
            arriving = leaving
        for shape in arriving:
            yield from lower(ArchSpec(shape, (), self._dense, self.padding)).ops

    def _activated(self, blocks: tuple[Block, ...]) -> Iterator[tuple[Block, ...]]:
        """Yield the blocks with each activation that the space offers the whole network."""
        if len(self.acts) < 2:
            yield blocks
            return
        for act in self.acts:
            yield tuple(replace(block, act=act) for block in blocks)

    def _plain(self, spec: ArchSpec) -> tuple[ArchSpec, Choices]:
        """Return the network with the first activation, and the choice of its own."""
        if len(self.acts) < 2:
            return spec, ()
        used = {block.act for block in spec.blocks}
        if len(used) != 1 or not used <= set(self.acts):
            return spec, (0,)  # no group makes these blocks
        blocks = tuple(replace(block, act=self.acts[0]) for block in spec.blocks)
        return replace(spec, blocks=blocks), (self.acts.index(used.pop()),)

    def _spec(self, blocks: tuple[Block, ...]) -> ArchSpec:
        return ArchSpec(self.input, blocks, self._dense, self.padding)

    @property
    def _dense(self) -> tuple[Dense, ...]:
        return (Dense(self.classes),)

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
