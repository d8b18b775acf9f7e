"""Which ops the networks of a space are made of, without going through the networks.

A chain of groups is walked group by group over the map sizes and widths that can arrive there; a
network of an elastic space holds each layer once for each kernel, expansion and resolution. Both
give every op that any network of the space has, and the enumeration of a space of 1e17 networks
takes a second.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError
from models.lower import lower
from models.spec import ArchSpec, Dense
from pipeline.search.space.categorical import CategoricalSpace
from pipeline.search.space.once_for_all import OnceForAllSpace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.graph import Graph, Op
    from models.spec import Block
    from pipeline.search.api import SearchSpace


def distinct_ops(space: SearchSpace[ArchSpec]) -> dict[str, Op]:
    """Return every op that a network of the space can have, by key, in the order of the chain.

    Raises:
        ConfigError: a space of another kind.
    """
    if isinstance(space, CategoricalSpace):
        ops = _of_chain(space)
    elif isinstance(space, OnceForAllSpace):
        ops = _of_elastic(space)
    else:
        raise ConfigError(
            f"the ops of space {space.name!r} cannot be enumerated, so there is no latency table "
            "for it; take a chain of groups (mnasnet, proxyless) or an elastic space "
            '(ofa_mobilenet_v3, ofa_proxyless), or search with latency = "measured"'
        )
    found: dict[str, Op] = {}
    for op in ops:
        found.setdefault(op.key, op)
    return found


def _of_chain(space: CategoricalSpace) -> Iterator[Op]:
    tail = (Dense(space.classes),)
    arriving = {space.input}
    for index, group in enumerate(space.groups):
        leaving = set()
        for shape in arriving:
            for options in itertools.product(*(decision.options for decision in group)):
                made = space.blocks(index, options, shape[2])
                for blocks in _activated(made, space.acts):
                    graph = lower(ArchSpec(shape, blocks, tail, space.padding))
                    yield from graph.ops[:-2]  # pooling and logits stand behind the last group
                    leaving.add(_pooled(graph))
        arriving = leaving
    for shape in arriving:
        yield from lower(ArchSpec(shape, (), tail, space.padding)).ops


def _activated(blocks: tuple[Block, ...], acts: tuple[str, ...]) -> Iterator[tuple[Block, ...]]:
    """Yield the blocks with each activation that the space offers the whole network."""
    if len(acts) < 2:
        yield blocks
        return
    for act in acts:
        yield tuple(replace(block, act=act) for block in blocks)


def _pooled(graph: Graph) -> tuple[int, int, int]:
    """Return the shape of the map that the pooling before the logits reads."""
    height, width, channels = graph.ops[-2].in_shapes[0]
    return height, width, channels


def _of_elastic(space: OnceForAllSpace) -> Iterator[Op]:
    sides = space.resolutions or (space.input[0],)
    for side, kernel, expansion in itertools.product(sides, space.kernels, space.expansions):
        uniform = replace(space, resolutions=(side,), kernels=(kernel,), expansions=(expansion,))
        yield from lower(uniform.full).ops
