"""Chooses the layout of every tensor so that as little as possible is left to transpose.

Ops that can be computed in any order take that of a neighbour, again and again, forwards and
backwards, as long as that lowers the cost (iterated conditional modes, Besag 1986). That ends
where no single op can do better, so it is begun from three sides: with all transposes pushed down
as far as they go, with all pulled up, and with the source's layouts. Of what these come to, every
region of such ops has the best.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from models.layout.labels import before_transpose
from models.layout.rule import Rule

if TYPE_CHECKING:
    from models.layout.network import Network, Node
    from models.layout.rule import Choice

_SWEEPS = 8
"""At most; each but the last few lowers the cost."""

_Snapshot = tuple[dict[str, Any], dict[int, Any]]
"""The label of every tensor, and the choice of every node."""


@dataclass(slots=True)
class _Region:
    """Tensors whose layouts depend on each other, and the nodes that make them."""

    names: set[str]
    nodes: list[Node]


def choose(network: Network) -> None:
    """Set every node's choice and every input's label."""
    start = _snapshot(network)
    found: list[tuple[int, int, _Snapshot]] = []
    for begin in (_push_down, _pull_up, _stay):
        _restore(network, start)
        begin(network)
        _settle(network)
        cost = network.cost()
        found.append((cost, len(found), _snapshot(network)))
        if cost == 0:
            return
    found.sort(key=lambda each: each[:2])
    _restore(network, found[0][2])
    regions = _regions(network)
    for _, _, other in found[1:]:
        for region in regions:
            _adopt(network, region, other)


def _push_down(network: Network) -> None:
    """Let every node take the layout of the largest input whose layout it can take."""
    for name in network.inputs:
        _choose_input(network, name)
    for node in network.nodes:
        if found := _from_inputs(network, node, largest_first=True):
            _set(network, node, found[0])


def _pull_up(network: Network) -> None:
    """Let every node take the layout of the first reader that it can take."""
    for node in reversed(network.nodes):
        if found := _from_readers(network, node):
            _set(network, node, found[0])
    for name in network.inputs:
        _choose_input(network, name)


def _stay(_: Network) -> None:
    """Begin with the source's layouts."""


def _regions(network: Network) -> list[_Region]:
    """Return the inputs and the nodes with a choice that hang together."""
    region: dict[str, _Region] = {}
    for name in network.inputs:
        region[name] = _Region({name}, [])
    for node in network.nodes:
        if type(node.rule) is Rule:
            continue
        names = {source.name for source in node.sources} & region.keys()
        joined = _Region({node.op.name}, [node])
        for other in {id(region[name]): region[name] for name in names}.values():
            joined.names |= other.names
            joined.nodes.extend(other.nodes)
        for name in joined.names:
            region[name] = joined
    return list({id(each): each for each in region.values()}.values())


def _adopt(network: Network, region: _Region, other: _Snapshot) -> None:
    """Take the choices of another solution for a region if that lowers the cost."""
    names = region.names | {source.name for node in region.nodes for source in node.sources}
    nodes = {id(node): node for node in region.nodes}
    for name in region.names:
        nodes.update((id(reader), reader) for reader, _ in network.readers.get(name, ()))

    def cost() -> int:
        return sum(map(network.tensor_cost, names)) + sum(map(network.node_cost, nodes.values()))

    before, kept = cost(), _snapshot(network)
    labels, choices = other
    for node in region.nodes:
        _set(network, node, choices[id(node)])
    for name in region.names & network.inputs.keys():
        network.labels[name] = labels[name]
    if cost() >= before:
        _restore(network, kept)


def _settle(network: Network) -> None:
    """Sweep up and down until nothing changes."""
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        before = network.cost()
        for node in network.nodes if down else reversed(network.nodes):
            _improve(network, node, down=down)
        for name in network.inputs:
            _choose_input(network, name)
        if sweep and not down and network.cost() >= before:
            break
    # Of equals, activations stay with the op before, which they may be fused into.
    for node in network.nodes:
        _improve(network, node, down=True)


def _improve(network: Network, node: Node, *, down: bool) -> None:
    """Give a node the cheapest choice; of equals one like its inputs, or like its readers."""
    above, below = _from_inputs(network, node), _from_readers(network, node)
    candidates = (*above, *below) if down else (*below, *above)
    if not candidates:
        return
    candidates = tuple(dict.fromkeys((*candidates, node.choice, node.rule.first)))
    if len(candidates) > 1:
        costs = {choice: _local_cost(network, node, choice) for choice in candidates}
        _set(network, node, min(candidates, key=costs.__getitem__))
        _follow(network, node)


def _choose_input(network: Network, name: str) -> None:
    """Give an input of the model the cheapest label; of equals the source's own."""
    labels = network.inputs[name]
    costs = []
    for label in labels:
        network.labels[name] = label
        readers = {id(node): node for node, _ in network.readers.get(name, ())}
        costs.append(network.tensor_cost(name) + sum(map(network.node_cost, readers.values())))
    network.labels[name] = labels[costs.index(min(costs))]


def _from_inputs(
    network: Network, node: Node, *, largest_first: bool = False
) -> tuple[Choice, ...]:
    found: list[Choice] = []
    read = list(enumerate(node.sources))
    if largest_first:
        read.sort(key=lambda item: -prod(network.shapes[item[1].name]))
    for place, source in read:
        if source.name not in network.constants:
            found.extend(node.rule.from_input(place, network.stored(source)))
    return tuple(found)


def _from_readers(network: Network, node: Node) -> tuple[Choice, ...]:
    found: list[Choice] = []
    for reader, place in network.readers.get(node.op.name, ()):
        wanted = reader.rule.demand(place, reader.choice, None)
        label = before_transpose(wanted, reader.sources[place].permutation)
        found.extend(node.rule.from_output(label))
    for place, source in enumerate(network.outputs):
        if source.name == node.op.name:
            for wanted in network.output_labels(place):
                found.extend(node.rule.from_output(before_transpose(wanted, source.permutation)))
    return tuple(found)


def _local_cost(network: Network, node: Node, choice: Choice) -> int:
    """Return the cost of all that a node's choice can change."""
    before = node.choice
    labels = {s.name: network.labels[s.name] for s in node.sources if s.name in network.inputs}
    _set(network, node, choice)
    _follow(network, node)
    names = {source.name for source in node.sources} | {node.op.name}
    nodes = {id(node): node}
    nodes.update((id(reader), reader) for reader, _ in network.readers.get(node.op.name, ()))
    cost = sum(map(network.tensor_cost, names)) + sum(map(network.node_cost, nodes.values()))
    _set(network, node, before)
    network.labels.update(labels)
    return cost


def _follow(network: Network, node: Node) -> None:
    """Let the inputs of the model that a node reads have the layout that is best for it."""
    for source in node.sources:
        if source.name in network.inputs:
            _choose_input(network, source.name)


def _set(network: Network, node: Node, choice: Choice) -> None:
    node.choice = choice
    network.labels[node.op.name] = node.rule.gives(choice)


def _snapshot(network: Network) -> _Snapshot:
    return dict(network.labels), {id(node): node.choice for node in network.nodes}


def _restore(network: Network, snapshot: _Snapshot) -> None:
    labels, choices = snapshot
    network.labels = dict(labels)
    for node in network.nodes:
        node.choice = choices[id(node)]
