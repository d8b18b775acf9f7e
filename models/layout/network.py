"""A model's ops without its transposes: what reads what, and how it is to be stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from models.layout.flat import flattened_for_layers, spread_by_layers
from models.layout.labels import (
    Label,
    after_transpose,
    before_transpose,
    conversion_cost,
    of_permutation,
    own_label,
)
from models.layout.reshaping import Reshaping, Spreading
from models.layout.rules import rule_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.graph import Op
    from models.layout.rule import Choice, Rule
    from models.model import Model
    from models.ops import Shape

LAST = {3: (0, 2, 1), 4: (0, 2, 3, 1)}
"""How the axes of a channels-first tensor of so many axes lie channels-last."""

FIRST_LAYOUT = {3: "NCL", 4: "NCHW"}
"""What the user of an input or output has whose graph is channels-last."""


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor that an op reads: one that is stored, or its transpose."""

    name: str
    permutation: tuple[int, ...] | None


@dataclass(slots=True, eq=False)
class Node:
    """An op, what it reads, and the choice of how it is computed."""

    op: Op
    rule: Rule
    sources: tuple[Source, ...]
    choice: Choice = None

    def __post_init__(self) -> None:
        """Begin with the source's own layout."""
        self.choice = self.rule.first


@dataclass(slots=True)
class Network:
    """All nodes in order, and how every tensor that is not a constant is stored."""

    nodes: list[Node]
    shapes: dict[str, Shape]
    constants: frozenset[str]
    inputs: dict[str, tuple[Label, ...]]
    """Of each input of the model the labels that it may have."""

    outputs: list[Source]
    outputs_free: list[bool]
    """Whether an output's layout may be changed; its user is told."""

    labels: dict[str, Label] = field(default_factory=dict)
    readers: dict[str, list[tuple[Node, int]]] = field(default_factory=dict)
    makers: dict[str, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find who reads what; every tensor begins in the source's layout."""
        self.labels = {name: labels[0] for name, labels in self.inputs.items()}
        for node in self.nodes:
            self.makers[node.op.name] = node
            self.labels[node.op.name] = node.rule.gives(node.choice)
            for place, source in enumerate(node.sources):
                self.readers.setdefault(source.name, []).append((node, place))

    def stored(self, source: Source) -> Label:
        """Return the label of what is read, as it is stored."""
        return after_transpose(self.labels[source.name], source.permutation)

    def demand(self, node: Node, place: int) -> Label:
        """Return the label in which a node reads an input."""
        source = node.sources[place]
        if source.name in self.constants:
            return node.rule.demand(place, node.choice, None)
        return node.rule.demand(place, node.choice, self.stored(source))

    def output_demand(self, place: int) -> Label:
        """Return the label in which an output of the model is given."""
        labels = self.output_labels(place)
        stored = self.stored(self.outputs[place])
        return stored if stored in labels else labels[0]

    def output_labels(self, place: int) -> tuple[Label, ...]:
        """Return the labels that an output of the model may have: the source's own first."""
        labels = end_labels(self.shape(self.outputs[place]))
        return labels if self.outputs_free[place] else labels[:1]

    def shape(self, source: Source) -> Shape:
        """Return the shape of what is read, as the source has it."""
        shape = self.shapes[source.name]
        if source.permutation is None:
            return shape
        return tuple(shape[axis] for axis in source.permutation)

    def wanted(self, name: str) -> set[Label]:
        """Return all labels in which a tensor is read."""
        found = {
            before_transpose(self.demand(node, place), node.sources[place].permutation)
            for node, place in self.readers.get(name, ())
        }
        for place, source in enumerate(self.outputs):
            if source.name == name:
                found.add(before_transpose(self.output_demand(place), source.permutation))
        return found

    def tensor_cost(self, name: str) -> int:
        """Return what bringing a tensor to all its readers costs."""
        if name in self.constants:
            return 0
        stored, shape = self.labels[name], self.shapes[name]
        return sum(conversion_cost(stored, label, shape) for label in self.wanted(name))

    def node_cost(self, node: Node) -> int:
        """Return what is left to do within a node."""
        if not node.rule.has_cost:
            return 0
        labels = [self.demand(node, place) for place in range(len(node.sources))]
        return node.rule.cost(node.choice, labels)

    def cost(self) -> int:
        """Return the cost of all layouts together."""
        return sum(map(self.tensor_cost, self.labels)) + sum(map(self.node_cost, self.nodes))


def end_labels(shape: Shape) -> tuple[Label, ...]:
    """Return the labels that an input or output of the model may have: the source's own first."""
    own = own_label(shape)
    if len(shape) not in LAST:
        return (own,)
    return own, of_permutation(shape, LAST[len(shape)])


def network_of(model: Model) -> Network:
    """Return the network of a model: its transposes become part of who reads what."""
    graph = model.graph
    constants = {tensor.name: tensor.shape for tensor in graph.constants}
    shapes = {tensor.name: tensor.shape for tensor in graph.inputs} | constants
    at = {name: Source(name, None) for name in shapes}
    flat, spread = flattened_for_layers(graph), spread_by_layers(graph)
    nodes = []
    for op in graph.ops:
        if op.kind == "transpose" and op.inputs[0] not in constants:
            at[op.name] = _composed(at[op.inputs[0]], op.attributes.permutation)
            continue
        rule: Rule
        if op.name in flat:
            rule = Reshaping(op, free=True)
        else:
            rule = Spreading(op) if op.name in spread else rule_of(op)
        nodes.append(Node(op, rule, tuple(at[name] for name in op.inputs)))
        shapes[op.name], at[op.name] = op.out_shape, Source(op.name, None)
    inputs = {
        tensor.name: end_labels(tensor.shape) if end.layout == "" else (own_label(tensor.shape),)
        for tensor, end in zip(graph.inputs, model.inputs, strict=True)
    }
    outputs = [at[name] for name in graph.outputs]
    free = [end.layout == "" for end in model.outputs]
    return Network(nodes, shapes, frozenset(constants), inputs, outputs, free)


def _composed(source: Source, permutation: Sequence[int]) -> Source:
    if source.permutation is not None:
        permutation = [source.permutation[axis] for axis in permutation]
    if tuple(permutation) == tuple(range(len(permutation))):
        return Source(source.name, None)
    return Source(source.name, tuple(permutation))
