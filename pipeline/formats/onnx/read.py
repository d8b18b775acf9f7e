"""Reads an ONNX file, whoever wrote it, into our graph.

Every node is read by a function of its family. One that cannot be said is kept by name, and
reading goes on behind it as far as that is possible, so that all of them are found at once. What
reads known tensors alone is computed, so nothing is left of the arithmetic on shapes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import onnx

from device_agents.errors import ConfigError
from models.graph import Graph, GraphError
from models.layout import settle
from models.model import Input, Model, Output
from models.ops import FLOAT, Reshape
from models.recognise import recognise
from models.simplify import fold_constants, fuse_activations
from pipeline.formats.api import NO_SHAPES, UnknownOp, Unsupported
from pipeline.formats.code_readers import with_codes_read, without_copies
from pipeline.formats.onnx.file import File, input_shapes, inputs, load, names_read, needed_nodes
from pipeline.formats.onnx.formats_of import quantization_of, without_idle_codes
from pipeline.formats.onnx.never_known import never_known, place_of
from pipeline.formats.onnx.node import Node, UnknownError, Value
from pipeline.formats.onnx.read_activating import ACTIVATING
from pipeline.formats.onnx.read_arithmetic import ARITHMETIC, CAST_TO
from pipeline.formats.onnx.read_codes import CODES
from pipeline.formats.onnx.read_einsum import EINSUM
from pipeline.formats.onnx.read_fused import FUSED
from pipeline.formats.onnx.read_integer import INTEGER, move
from pipeline.formats.onnx.read_known import KNOWN, by_reference
from pipeline.formats.onnx.read_layers import LAYERS
from pipeline.formats.onnx.read_normalising import NORMALISING
from pipeline.formats.onnx.read_places import PLACES
from pipeline.formats.onnx.read_pooling import POOLING
from pipeline.formats.onnx.read_resizing import RESIZING
from pipeline.formats.onnx.read_shaping import SHAPING
from pipeline.formats.onnx.read_slicing import SLICING
from pipeline.formats.onnx.reading import Reading
from pipeline.formats.onnx.written_out import write_out

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from models.ops import Shape

_READERS: Mapping[str, Callable[[Reading, Node], Any]] = {
    **LAYERS,
    **ARITHMETIC,
    **ACTIVATING,
    **POOLING,
    **NORMALISING,
    **SHAPING,
    **SLICING,
    **RESIZING,
    **EINSUM,
    **PLACES,
    **FUSED,
    **KNOWN,
    **CODES,
    **INTEGER,
}
_OWN_DOMAINS = ("", "ai.onnx")
_DOMAINS = ("", "ai.onnx", "com.microsoft")
"""Whose ops are known by their names alone."""

_OF_CODES = {*CODES, *INTEGER}
_CODES = ("uint8", "int8")

_FED: Mapping[int, str] = {
    **CAST_TO,
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT8: "int8",
}


def read_onnx(source: bytes | Path, shapes: Mapping[str, Shape] = NO_SHAPES) -> Model | Unsupported:
    """Read a file; channels are last in the graph, whatever they are in the file.

    Args:
        source: the file's content, or its path where weights may lie beside it.
        shapes: of inputs whose dimensions the file leaves open; "" is the only input.

    Returns:
        The model, or every op that the graph cannot say. An input or output that the file has
        channels-first, and the graph last, says so (`Input.layout`).

    Raises:
        ConfigError: it is no ONNX file, damaged, lacks weights, or leaves a dimension open.
    """
    file = load(source)
    reading = _Walk(file)
    try:
        found = input_shapes(file, shapes)
    except ConfigError:
        if unknown := tuple(never_known(file.proto.graph)):
            return Unsupported(file.name, unknown)  # no shape would help
        raise
    reading.feed(found)
    reading.hold(file.proto.graph)
    reading.walk(needed_nodes(file.proto.graph))
    outputs = [reading.output(info.name) for info in file.proto.graph.output]
    if reading.unknown:
        return Unsupported(file.name, tuple(reading.unknown))
    model = reading.model([name for name in outputs if name is not None])
    settled = settle(recognise(model))
    return without_idle_codes(with_codes_read(fuse_activations(fold_constants(settled))))


def _fed_as_codes(graph: onnx.GraphProto) -> set[str]:
    """Return the tensors that ops which know their scales read, and no other op."""
    codes: set[str] = set()
    others: set[str] = set()
    for node in graph.node:
        if node.op_type == "DequantizeLinear" or node.op_type in INTEGER:
            codes.update(node.input)
        else:
            others.update(node.input)
    return codes - others


class _Walk:
    """Goes over the nodes of a file and the graphs within them."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.reading = Reading(file)
        self.unknown: list[UnknownOp] = []
        self.stored: dict[str, onnx.TensorProto] = {}
        self.opset = file.opset
        self.read = names_read(file.proto.graph)
        self.lost: set[str] = set()
        """Tensors that nodes give which are not known."""

    def feed(self, shapes: Mapping[str, Shape]) -> None:
        """Add the inputs of the network; one of codes is the real tensor that they stand for."""
        quantised = _fed_as_codes(self.file.proto.graph)
        for info in inputs(self.file):
            code = info.type.tensor_type.elem_type
            if not info.type.HasField("tensor_type") or code not in _FED:
                told = onnx.TensorProto.DataType.Name(code).lower() if code else "no tensor"
                self.unknown.append(UnknownOp("input", info.name, f"takes {told}"))
                self.lost.add(info.name)
                continue
            name, dtype = self.reading.unique(info.name), _FED[code]
            codes = dtype if dtype in _CODES and info.name in quantised else ""
            self.reading.builder.input(name, shapes[info.name], FLOAT if codes else dtype)
            self.reading.at[info.name] = replace(self.reading.value(name), stored=codes)
            if codes:
                self.reading.ends[name] = codes

    def hold(self, graph: onnx.GraphProto) -> None:
        """Take the constants of a graph; each is read when it is first asked for."""
        for item in graph.initializer:
            self.stored[item.name] = item
            self.reading.at.pop(item.name, None)
        for sparse in graph.sparse_initializer:
            self.unknown.append(UnknownOp("sparse initializer", sparse.values.name))
            self.lost.add(sparse.values.name)

    def walk(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Read nodes in order."""
        for proto in nodes:
            try:
                self._node(proto)
            except (UnknownError, GraphError) as error:
                self._lose(proto, str(error))
            except (ArithmeticError, LookupError, TypeError, ValueError) as error:
                self._lose(proto, f"cannot be read: {' '.join(str(error).split())[:100]}")

    def _node(self, proto: onnx.NodeProto) -> None:
        if proto.op_type == "If" and proto.domain in _DOMAINS:
            self._branch(proto)
            return
        reader = _READERS.get(proto.op_type) if proto.domain in _DOMAINS else None
        if self.lost.intersection(proto.input):
            if reader is None:
                raise UnknownError("")
            self.lost.update(proto.output)
            return
        values = [self._value(name) if name else None for name in proto.input]
        node = Node(proto, self.opset, values, self.read)
        given = [value for value in values if value is not None]
        if reader is None:
            if proto.domain not in _OWN_DOMAINS:
                raise UnknownError("")
            if not given or any(value.array is None for value in given):
                self._write_out(proto, values)
                return
            found = by_reference(self.reading, node)
        elif any(value.stored for value in given) and proto.op_type not in _OF_CODES:
            found = move(self.reading, node)
        else:
            found = reader(self.reading, node)
        results = found if isinstance(found, tuple) else (found,)
        for name, value in zip(proto.output, results, strict=False):
            if name:
                self.reading.at[name] = value

    def _write_out(self, proto: onnx.NodeProto, values: list[Value | None]) -> None:
        """Read an op by the ops that ONNX defines it by."""
        nodes, opset = write_out(proto, self.opset, values)
        self.read.update(name for inner in nodes for name in inner.input)
        before, self.opset, known = self.opset, opset, len(self.unknown)
        self.walk(nodes)
        self.opset = before
        if len(self.unknown) > known:
            del self.unknown[known:]
            raise UnknownError("")

    def _branch(self, proto: onnx.NodeProto) -> None:
        """Read the branch of a condition that is known."""
        condition = proto.input[0]
        value = None if condition in self.lost else self._value(condition)
        if value is None or value.array is None:
            raise UnknownError("its condition is computed while it runs")
        wanted = "then_branch" if bool(value.array.reshape(-1)[0]) else "else_branch"
        (graph,) = (item.g for item in proto.attribute if item.name == wanted)
        self.hold(graph)
        self.walk(graph.node)
        for name, info in zip(proto.output, graph.output, strict=True):
            if info.name in self.lost:
                self.lost.add(name)
            else:
                self.reading.at[name] = self._value(info.name)

    def _value(self, name: str) -> Value:
        """Return what a tensor of the file is. Raises UnknownError if nothing makes it."""
        found = self.reading.at.get(name)
        if found is None:
            if name not in self.stored:
                raise UnknownError(f"reads {name!r}, which nothing before it makes")
            found = self.reading.held(name, self.file.array(self.stored[name]))
            self.reading.at[name] = found
        return found

    def _lose(self, proto: onnx.NodeProto, why: str) -> None:
        kind = proto.op_type if proto.domain in _DOMAINS else f"{proto.domain}.{proto.op_type}"
        self.unknown.append(UnknownOp(kind, place_of(proto), why))
        for attribute in proto.attribute:
            self.unknown.extend(never_known(attribute.g))
        self.lost.update(proto.output)

    def output(self, name: str) -> str | None:
        """Return the op that gives an output of the file, None where it is not known."""
        if name in self.lost:
            return None
        try:
            value = self._value(name)
        except UnknownError as error:
            self.unknown.append(UnknownOp("output", name, str(error)))
            return None
        reading = self.reading
        tensor = reading.tensor(value)
        if value.stored:
            reading.ends[tensor] = value.stored
        made = {op.name for op in reading.builder.ops}
        if tensor in made:
            return tensor
        copy = reading.unique(f"{name}.copy")
        return reading.builder.op("reshape", copy, [tensor], Reshape(value.shape))

    def model(self, outputs: list[str]) -> Model:
        """Return what was read, without what no output depends on."""
        reading = self.reading
        wanted, ops = set(outputs), []
        for op in reversed(reading.builder.ops):
            if op.name in wanted:
                ops.append(op)
                wanted.update(op.inputs)
        graph = Graph(tuple(reading.builder.inputs), tuple(ops[::-1]), tuple(outputs))
        graph, reading.params, gone = without_copies(graph, reading.copies, reading.params)
        reading.ends = {gone.get(name, name): dtype for name, dtype in reading.ends.items()}
        wanted -= gone.keys()
        file = self.file
        whole = Model(
            graph,
            {name: arrays for name, arrays in reading.weights.items() if name in wanted},
            inputs=tuple(Input(info.name, layout="") for info in inputs(file)),
            outputs=tuple(Output(info.name) for info in file.proto.graph.output),
            history=(f"read from {file.name if file.name != 'the file' else 'an ONNX file'}",),
        )
        return replace(whole, quantization=quantization_of(reading, graph))
