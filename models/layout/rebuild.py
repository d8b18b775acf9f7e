"""Writes a model down again in the layouts that were chosen."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.codes import LayerCodes, WeightCodes
from models.graph import GraphBuilder
from models.layout.flat import Order, joined, layer_chain, reordered, stored_order
from models.layout.labels import (
    Label,
    before_transpose,
    order,
    own_label,
    permutation_between,
    stored_shape,
)
from models.layout.network import FIRST_LAYOUT, Network, Node, Source
from models.layout.reshaping import Reshaping, Spreading
from models.ops import Mean, Reduce, Reshape, Transpose

if TYPE_CHECKING:
    from models.graph import Op, Tensor
    from models.model import Input, Model, Output
    from models.quantization import Quantization

_MAP_AXES = (1, 2)


def rebuild(model: Model, network: Network) -> Model:
    """Return the model with its tensors stored as the network's labels say."""
    return _Rebuilding(model, network).model()


class _Rebuilding:
    def __init__(self, model: Model, network: Network) -> None:
        self.source = model
        self.network = network
        self.builder = GraphBuilder()
        self.weights: dict[str, tuple[npt.NDArray[Any], ...]] = {}
        self.at: dict[str, str] = {}
        """Of each tensor of the source that is kept, what it is called here."""

        self.made: dict[tuple[str, Label], str] = {}
        self.reshapes: dict[str, str] = {}
        self.orders: dict[str, Order | None] = {}
        self.taken = set(model.graph.tensors)
        held = model.quantization
        self.codes: dict[str, WeightCodes] = {} if held is None else dict(held.weights)
        self.kept_as: dict[str, str] = {}
        """Of each tensor that is new here, the one of the source whose values it has."""

    def model(self) -> Model:
        graph = self.source.graph
        for tensor in graph.inputs:
            shape = stored_shape(self.network.labels[tensor.name], tensor.shape)
            self.at[tensor.name] = self.builder.input(tensor.name, shape, tensor.dtype)
        self._spread()
        for node in self.network.nodes:
            self._node(node)
        outputs = [self._output(place) for place in range(len(graph.outputs))]
        self._drop_unread(outputs)
        return replace(
            self.source,
            graph=self.builder.graph(*outputs),
            weights=self.weights,
            quantization=self._quantization(outputs),
            inputs=tuple(map(self._input_end, self.source.inputs, graph.inputs)),
            outputs=tuple(map(self._output_end, self.source.outputs, range(len(outputs)))),
        )

    def _spread(self) -> None:
        """Find the order in which layers have to give what is reshaped into maps."""
        for node in self.network.nodes:
            if isinstance(node.rule, Spreading):
                by = stored_order(node.choice, node.op.out_shape)
                for op in layer_chain(self.source.graph, node.op):
                    self.orders[op.name] = by

    def _node(self, node: Node) -> None:
        op, rule = node.op, node.rule
        labels = [self.network.demand(node, place) for place in range(len(node.sources))]
        by = self._order(node, labels)
        names = [
            self._read(source, label, by)
            for source, label in zip(node.sources, labels, strict=True)
        ]
        attributes = rule.attributes(node.choice, labels)
        if isinstance(rule, Reshaping) and self.builder.shapes[names[0]] == attributes.shape:
            self.at[op.name] = names[0]
            return
        kind = op.kind
        if isinstance(attributes, Reduce) and _is_mean_of_map(attributes, labels[0]):
            kind, attributes = "mean", Mean(attributes.keepdims)
        inputs = [names[place] for place in rule.sources(node.choice)]
        if kind == "reshape":
            inputs = [self._before_reshape(names[0])]
        self.at[op.name] = self.builder.op(
            kind, op.name, inputs, attributes, act=op.act, role=op.role, block=op.block
        )
        self._note_reshape(self.builder.ops[-1])
        if op.has_weights:
            self._keep_weights(node)

    def _order(self, node: Node, labels: list[Label]) -> Order | None:
        """Return the order of the values of a vector that a node reads, and keep that it gives."""
        if isinstance(node.rule, Reshaping):
            by = stored_order(labels[0], node.op.in_shapes[0]) if node.rule.free else None
            self.orders[node.op.name] = by
            return None
        orders = [self.orders.get(source.name) for source in node.sources]
        if node.op.kind == "concat":
            sizes = [shape[-1] for shape in node.op.in_shapes]
            self.orders[node.op.name] = joined(orders, sizes)
            return None
        by = next((found for found in orders if found is not None), None)
        if node.op.kind != "dense" and by is not None:
            self.orders[node.op.name] = by
        return by

    def _keep_weights(self, node: Node) -> None:
        """Take a layer's weights over, of a dense one in the order of what it reads and gives."""
        name = node.op.name
        reads = gives = None
        if node.op.kind == "dense":
            reads, gives = self.orders.get(node.sources[0].name), self.orders.get(name)
        self.weights[name] = _rearranged(self.source.weights[name], reads, gives)
        codes = self.codes.get(name)
        if codes is None or (reads is None and gives is None):
            return
        scales = codes.scales if len(codes.scales) == 1 else reordered(codes.scales, gives)
        if isinstance(codes, LayerCodes):
            weight, bias = _rearranged((codes.weight, codes.bias), reads, gives)
            self.codes[name] = LayerCodes(weight, scales, bias)
        else:
            (weight,) = _rearranged((codes.weight,), reads, gives)
            self.codes[name] = WeightCodes(weight, scales)

    def _read(self, source: Source, wanted: Label, by: Order | None) -> str:
        """Return the tensor that a node reads, brought to the label that it wants."""
        label = before_transpose(wanted, source.permutation)
        if source.name in self.network.constants:
            return self._constant(source.name, label, by)
        return self._converted(source.name, label)

    def _constant(self, name: str, label: Label, by: Order | None) -> str:
        shape = self.network.shapes[name]
        key = (name, label)
        if by is not None or key not in self.made:
            (value,) = self.source.weights[name]
            axes = order(label)
            value = value.reshape([shape[axis] for axis in sorted(axes)])
            value = value.transpose([sorted(axes).index(axis) for axis in axes])
            value = np.asarray(reordered(value.reshape(stored_shape(label, shape)), by), order="C")
            first = name not in self.builder.constants
            new = name if first else self._name(name)
            self.kept_as[new] = name
            self.weights[new] = (value,)
            self.builder.constant(new, value.shape, str(value.dtype))
            if by is not None:
                return new
            self.made[key] = new
        return self.made[key]

    def _converted(self, name: str, wanted: Label) -> str:
        stored, shape = self.network.labels[name], self.network.shapes[name]
        if stored == wanted:
            return self.at[name]
        key = (name, wanted)
        if key not in self.made:
            here = self.at[name]
            if order(stored) != order(wanted):
                if len(stored) != len(wanted):
                    stored = (*(None,) * wanted.count(None), *order(stored))
                    here = self._add("reshape", name, here, Reshape(stored_shape(stored, shape)))
                permutation = permutation_between(stored, wanted)
                here = self._add("transpose", name, here, Transpose(permutation))
            else:
                here = self._add("reshape", name, here, Reshape(stored_shape(wanted, shape)))
            self.made[key] = here
        return self.made[key]

    def _add(self, kind: str, source: str, here: str, attributes: Reshape | Transpose) -> str:
        """Add an op that changes a layout; nothing where the shape is right already."""
        if isinstance(attributes, Reshape):
            here = self._before_reshape(here)
            if self.builder.shapes[here] == attributes.shape:
                return here
        new = self.builder.op(kind, self._name(source), [here], attributes)
        self.kept_as[new] = source
        self._note_reshape(self.builder.ops[-1])
        return new

    def _note_reshape(self, op: Op) -> None:
        """Keep what a reshape reads, for one that follows; those between codes stay."""
        if op.kind == "reshape" and self.source.quantization is None:
            self.reshapes[op.name] = op.inputs[0]

    def _before_reshape(self, name: str) -> str:
        """Return what a tensor is a reshape of: two in a row are one."""
        made = self.reshapes.get(name)
        return name if made is None else made

    def _drop_unread(self, outputs: list[str]) -> None:
        """Leave out reshapes that nothing reads any more."""
        read = Counter([*outputs, *(name for op in self.builder.ops for name in op.inputs)])
        for op in reversed(self.builder.ops):
            if op.kind == "reshape" and not read[op.name]:
                self.builder.ops.remove(op)
                read.subtract(op.inputs)

    def _name(self, source: str) -> str:
        number = 1
        while (name := f"{source}.{number}") in self.taken:
            number += 1
        self.taken.add(name)
        return name

    def _output(self, place: int) -> str:
        source = self.network.outputs[place]
        wanted = before_transpose(self.network.output_demand(place), source.permutation)
        found = self._converted(source.name, wanted)
        if found in {op.name for op in self.builder.ops}:
            return found
        return self._add_copy(source.name, found)

    def _add_copy(self, source: str, here: str) -> str:
        """Add an op that gives what the model is given: outputs are made by ops."""
        new = self._name(source)
        self.kept_as[new] = source
        return self.builder.op("reshape", new, [here], Reshape(self.builder.shapes[here]))

    def _input_end(self, end: Input, tensor: Tensor) -> Input:
        label = self.network.labels[tensor.name]
        return end if label == own_label(tensor.shape) else replace(end, layout=_first(label))

    def _output_end(self, end: Output, place: int) -> Output:
        label = self.network.output_demand(place)
        shape = self.network.shape(self.network.outputs[place])
        return end if label == own_label(shape) else replace(end, layout=_first(label))

    def _quantization(self, outputs: list[str]) -> Quantization | None:
        """Return the number formats under the names of here."""
        held, graph = self.source.quantization, self.source.graph
        if held is None:
            return None
        codes = held.made_as_codes(graph) | {tensor.name for tensor in graph.constants}
        there = {op.name for op in self.builder.ops} | self.builder.shapes.keys()
        tensors = {name: params for name, params in held.tensors.items() if name in there}
        real = set(held.float_ops & there)
        for new, source in self.kept_as.items():
            if source in held.tensors:
                tensors[new] = held.tensors[source]
            if source not in codes:
                real.add(new)
        renamed = dict(zip(graph.outputs, outputs, strict=True))
        return replace(
            held,
            tensors=tensors,
            weights={name: value for name, value in self.codes.items() if name in there},
            float_ops=frozenset(real & {op.name for op in self.builder.ops}),
            ends={renamed.get(name, name): dtype for name, dtype in held.ends.items()},
        )


def _first(label: Label) -> str:
    return FIRST_LAYOUT[len(label)]


def _is_mean_of_map(reduce: Reduce, label: Label) -> bool:
    return reduce.function == "mean" and reduce.axes == _MAP_AXES and len(label) == len("NHWC")


def _rearranged(
    arrays: tuple[npt.NDArray[Any], ...], reads: Order | None, gives: Order | None
) -> tuple[npt.NDArray[Any], ...]:
    """Return a dense layer's weight, and its bias if it is there, for vectors in other orders."""
    weight, *bias = arrays
    if reads is not None:
        weight = weight[:, reads]
    return (weight, *bias) if gives is None else (weight[gives], *(each[gives] for each in bias))
