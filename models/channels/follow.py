"""The channels of a network, from the layers that make them to all that reads them."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from models.channels.rules import rule_of
from models.channels.walk import Along, Follower

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.channels.rules import Rule
    from models.graph import Graph, Op


@dataclass(frozen=True, slots=True)
class Group:
    """Channels of which any can be cut in place of any other, one at least being left.

    Attributes:
        name: of the first layer that makes them.
        ids: of the channels, in the order of their positions there.
        layers: that make them, depthwise ones included; in order of execution.
        readers: layers that take them in.
    """

    name: str
    ids: tuple[int, ...]
    layers: tuple[str, ...]
    readers: tuple[str, ...]

    @property
    def width(self) -> int:
        """How many channels there are."""
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Pinned:
    """A layer that makes channels which cannot be cut.

    Attributes:
        layer: its name.
        count: how many cannot.
        at: the op that pins the first of them.
        why: the end of a sentence that begins with that op.
    """

    layer: str
    count: int
    at: str
    why: str


@dataclass(frozen=True, slots=True, eq=False)
class Channels:
    """The channels of a graph.

    Attributes:
        tensors: where they are, for the inputs and the outputs of ops, by name.
        groups: in order of execution.
        pinned: layers that cannot be cut, or not wholly, in order of execution.
    """

    tensors: Mapping[str, Along]
    groups: tuple[Group, ...]
    pinned: tuple[Pinned, ...]


def follow(graph: Graph, rules: Callable[[Op], Rule] = rule_of) -> Channels:
    """Find the channels of a graph, which of them are cut together, and which stay.

    Other `rules` than those of cutting tell what else is done to channels together.
    """
    walk = Follower(graph)
    for op in graph.ops:
        walk.tensors[op.name] = rules(op).follow(walk, op)
    for name in graph.outputs:
        walk.pin(graph[name], walk.tensors[name], "is an output of the network")
    roots = walk.roots()
    reasons: dict[int, tuple[str, str]] = {}
    for ids, at, why in walk.pins:
        for root in np.unique(roots[ids]).tolist():
            reasons.setdefault(root, (at, why))
    of = roots.copy()
    of[np.isin(roots, list(reasons))] = 0
    made = {name: Along(along.axis, of[along.ids]) for name, along in walk.tensors.items()}
    pinned = []
    for op in graph.ops:
        stay = roots[walk.tensors[op.name].ids[made[op.name].ids == 0]]
        if op.has_weights and (stay := stay[stay != 0]).size:
            pinned.append(Pinned(op.name, stay.size, *reasons[int(stay[0])]))
    return Channels(MappingProxyType(made), _groups(graph, made), tuple(pinned))


def _groups(graph: Graph, tensors: Mapping[str, Along]) -> tuple[Group, ...]:
    """Put together the channels that lie equally often in the same tensors."""
    places: dict[int, list[tuple[str, int]]] = {}
    for name, along in tensors.items():
        found, counts = np.unique(along.ids, return_counts=True)
        for channel, count in zip(found.tolist(), counts.tolist(), strict=True):
            if channel:
                places.setdefault(channel, []).append((name, count))
    alike: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for channel, where in places.items():
        alike.setdefault(tuple(where), []).append(channel)
    layers = [op for op in graph.ops if op.has_weights]
    groups = []
    for signature, ids in alike.items():
        names = {name for name, _ in signature}
        made = tuple(op.name for op in layers if op.name in names)
        readers = tuple(op.name for op in layers if op.inputs[0] in names)
        groups.append(Group(made[0], tuple(ids), made, readers))
    order = {op.name: place for place, op in enumerate(graph.ops)}
    return tuple(sorted(groups, key=lambda group: (order[group.name], group.ids)))
