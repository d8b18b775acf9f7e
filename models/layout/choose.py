"""Chooses the layout of every tensor so that as little as possible is left to transpose.

Ops that can be computed in any order take that of a neighbour, again and again, forwards and
backwards, as long as that lowers the cost (iterated conditional modes, Besag 1986). It begins
once with the source's layouts and once with all transposes pushed down as far as they go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.layout.labels import before_transpose

if TYPE_CHECKING:
    from models.layout.network import Network, Node
    from models.layout.rule import Choice

_SWEEPS = 8
"""At most; each but the last few lowers the cost."""


def choose(network: Network) -> None:
    """Set every node's choice and every input's label."""
    best, least = _snapshot(network), network.cost()
    start = best
    for push in (True, False):
        if least == 0:
            break
        _restore(network, start)
        if push:
            _push_down(network)
        _settle(network)
        if (cost := network.cost()) < least:
            best, least = _snapshot(network), cost
    _restore(network, best)


def _push_down(network: Network) -> None:
    """Let every node take the layout of the first input that it can take."""
    for name in network.inputs:
        _choose_input(network, name)
    for node in network.nodes:
        if found := _from_inputs(network, node):
            _set(network, node, found[0])


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
            return


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


def _choose_input(network: Network, name: str) -> None:
    """Give an input of the model the cheapest label; of equals the source's own."""
    labels = network.inputs[name]
    costs = []
    for label in labels:
        network.labels[name] = label
        readers = {id(node): node for node, _ in network.readers.get(name, ())}
        costs.append(network.tensor_cost(name) + sum(map(network.node_cost, readers.values())))
    network.labels[name] = labels[costs.index(min(costs))]


def _from_inputs(network: Network, node: Node) -> tuple[Choice, ...]:
    found: list[Choice] = []
    for place, source in enumerate(node.sources):
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
    _set(network, node, choice)
    names = {source.name for source in node.sources} | {node.op.name}
    nodes = {id(node): node}
    nodes.update((id(reader), reader) for reader, _ in network.readers.get(node.op.name, ()))
    cost = sum(map(network.tensor_cost, names)) + sum(map(network.node_cost, nodes.values()))
    _set(network, node, before)
    return cost


def _set(network: Network, node: Node, choice: Choice) -> None:
    node.choice = choice
    network.labels[node.op.name] = node.rule.gives(choice)


_Snapshot = tuple[dict[str, "Choice"], list["Choice"]]


def _snapshot(network: Network) -> _Snapshot:
    return dict(network.labels), [node.choice for node in network.nodes]


def _restore(network: Network, snapshot: _Snapshot) -> None:
    labels, choices = snapshot
    network.labels = dict(labels)
    for node, choice in zip(network.nodes, choices, strict=True):
        node.choice = choice
