"""Layers that are left in float32 beside each other, where that costs no more of what is lost.

Each island of real numbers in a network of codes has its values turned into real numbers and back,
and where a delegate takes no such ops, it parts the network (docs/decisions/0029). So of layers
that cost about the same the one is left first that makes the fewest such turns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.islands import find_float_ops

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from models.graph import Graph
    from pipeline.compress.sensitivity import LayerLoss

ALIKE = 0.7
"""Share of the noise of another layer, 1.5 dB, from which on one costs about the same."""

_WEIGHED = 16
"""Layers at most that are weighed against each other at a time."""


def count_conversions(graph: Graph, floats: Collection[str]) -> int:
    """Return how many values are turned into real numbers, or into codes, between two ops."""
    made_by = {op.name: op.name in floats for op in graph.ops}
    read = {(name, op.name in floats) for op in graph.ops for name in op.inputs if name in made_by}
    return sum(made_by[name] != real for name, real in read)


def join_groups(
    graph: Graph,
    losses: Sequence[LayerLoss],
    groups: Sequence[frozenset[str]],
    floats: Collection[str] = (),
) -> list[frozenset[str]]:
    """Return groups of ops in the order in which they are left in float32.

    The costliest first; of those that cost about as much as the costliest that is left, the one
    with which the fewest values are turned.

    Args:
        graph: of the network.
        losses: what each layer costs, the costliest first.
        groups: ops that must be real for each of these to go.
        floats: ops that are real already.
    """
    rest = list(zip(losses, groups, strict=True))
    chosen, found = frozenset(floats), list[frozenset[str]]()
    while rest:
        alike = [one for one in rest[:_WEIGHED] if one[0].share >= ALIKE * rest[0][0].share]
        best = min(
            alike,
            key=lambda one: count_conversions(graph, find_float_ops(graph, chosen | one[1])),
        )
        rest.remove(best)
        found.append(best[1])
        chosen |= best[1]
    return found
