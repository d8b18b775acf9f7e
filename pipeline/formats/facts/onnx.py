"""Facts of ONNX files; shapes are inferred by the onnx package, weights left out."""

from __future__ import annotations

import ast
import math
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

from device_agents.model_files import read
from device_agents.plural import number_of
from pipeline.formats.facts.values import Facts, Weights, find_peak, shorten, sort_counts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from device_agents.model_files import ModelFile

_BITS = {"float": 32, "double": 64, "int4": 4, "uint4": 4, "int2": 2, "uint2": 2, "bool": 8}
_NAMES = {"float": "float32", "double": "float64"}
_TABLES = ("int64", "int32", "bool", "string", "uint32", "uint64")
_UNCOUNTED = ("LSTM", "GRU", "RNN", "If", "Loop", "Scan", "Attention", "Einsum")
# Constants up to here are kept for inference of shapes: sizes and axes are among them.
_KEPT_ELEMENTS = 1024
_METADATA_CHARS = 100_000
_LABEL_KEYS = ("names", "labels", "classes", "class_names", "character", "characters")

Shape = tuple[int, ...]


def onnx_facts(path: Path, shapes: Mapping[str, Shape]) -> Facts:
    """Return the facts of a file; `shapes` are of inputs that it leaves open.

    Raises:
        ConfigError: it is no ONNX file, it is damaged, or a part of it is missing.
    """
    file = read(path)
    model = onnx.load_model(path, load_external_data=False)
    weights = Weights()
    for graph in _graphs(model):
        for tensor in _constants(graph):
            _add(weights, tensor, table=_is_table(tensor, graph))
    ops = Counter(_kind(node) for graph in _graphs(model) for node in graph.node)
    sized = infer_sizes(model, shapes)
    macs, uncounted = _macs(sized)
    peak, unsized = _peak(sized)
    return Facts(
        format="ONNX",
        version=_version(model),
        producer=shorten(f"{model.producer_name} {model.producer_version}"),
        size_bytes=path.stat().st_size + sum(part.path.stat().st_size for part in file.parts),
        inputs=file.inputs or (),
        outputs=file.outputs or (),
        ops=sort_counts(ops),
        params=weights.params,
        weight_bytes=sort_counts(weights.weight_bytes),
        activations=sort_counts(_activations(sized)),
        macs=macs,
        peak_activation_bytes=peak,
        uncounted=uncounted or unsized,
        metadata=_carried(model),
        labels=_labels(model),
        remarks=_remarks(file, sized),
    )


def _graphs(model: onnx.ModelProto) -> Iterator[Any]:
    """Yield all that holds nodes: the graph, the graphs in it, and functions of the file."""
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop(0)
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += attribute.graphs


def _constants(graph: Any) -> Iterator[onnx.TensorProto]:
    yield from getattr(graph, "initializer", ())
    for sparse in getattr(graph, "sparse_initializer", ()):
        yield sparse.values
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (item.t for item in node.attribute if item.HasField("t"))


def _add(weights: Weights, tensor: onnx.TensorProto, *, table: bool) -> None:
    elements = math.prod(tensor.dims)
    dtype, bits = _type(tensor.data_type)
    weights.add(dtype, elements, -(-elements * bits // 8), table=table)


def _is_table(tensor: onnx.TensorProto, graph: Any) -> bool:
    if _type(tensor.data_type)[0] not in _TABLES:
        return False
    # A bias of codes is stored as int32 and read by these.
    quantized = ("DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger")
    return not any(tensor.name in node.input for node in graph.node if node.op_type in quantized)


def _type(code: int) -> tuple[str, int]:
    """Return a type's name, as numpy has it, and its bits."""
    try:
        name = onnx.TensorProto.DataType.Name(code).lower()
    except ValueError:
        return f"type {code}", 0
    digits = "".join(char for char in name.partition("e")[0] if char.isdigit())
    return _NAMES.get(name, name), _BITS.get(name, int(digits) if digits else 8)


def _kind(node: onnx.NodeProto) -> str:
    plain = node.domain in ("", "ai.onnx")
    return str(node.op_type) if plain else f"{node.domain}.{node.op_type}"


def _version(model: onnx.ModelProto) -> str:
    sets = [
        f"opset {item.version}" + (f" of {item.domain}" if item.domain else "")
        for item in model.opset_import
    ]
    return f"IR {model.ir_version}, {', '.join(sets) or 'no opset'}"


@dataclass(frozen=True, slots=True)
class Sized:
    """A graph with what is known of its tensors.

    Attributes:
        graph: nodes, and no large weights.
        values: name -> (type, shape), of a tensor whose type is known; the shape is None where a
            dimension is open.
        fed: names of inputs that are no weights.
    """

    graph: onnx.GraphProto
    values: Mapping[str, tuple[int, Shape | None]]
    fed: tuple[str, ...]


def infer_sizes(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> Sized:
    """Infer types and shapes of all tensors, as far as the onnx package can."""
    light = onnx.ModelProto()
    light.CopyFrom(model)
    graph = light.graph
    stored = {item.name: item for item in graph.initializer}
    fed = [item for item in graph.input if item.name not in stored]
    for item in fed:
        given = shapes.get(item.name, shapes.get("") if len(fed) == 1 else None)
        dims = item.type.tensor_type.shape.dim
        if given is not None and len(given) == len(dims):
            for dim, length in zip(dims, given, strict=True):
                dim.dim_value = length
    names = tuple(item.name for item in fed)
    large = [t for t in stored.values() if math.prod(t.dims) > _KEPT_ELEMENTS]
    kept = [t for t in stored.values() if math.prod(t.dims) <= _KEPT_ELEMENTS]
    known = {item.name for item in graph.input}
    graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in large
        if tensor.name not in known
    )
    small = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(small)
    with suppress(Exception):  # of C++; without it less is known, and nothing is wrong
        light = onnx.shape_inference.infer_shapes(light, data_prop=True)
    return Sized(light.graph, _values(light.graph), names)


def _values(graph: onnx.GraphProto) -> dict[str, tuple[int, Shape | None]]:
    found: dict[str, tuple[int, Shape | None]] = {}
    for item in (*graph.value_info, *graph.output, *graph.input):
        tensor = item.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
        whole = tensor.HasField("shape") and min(dims, default=0) >= 0
        if tensor.elem_type:
            found[item.name] = tensor.elem_type, tuple(dims) if whole else None
    for constant in graph.initializer:
        found[constant.name] = constant.data_type, tuple(constant.dims)
    return found


def _activations(sized: Sized) -> Counter[str]:
    names = [name for node in sized.graph.node for name in node.output if name in sized.values]
    return Counter(_type(sized.values[name][0])[0] for name in names)


def _macs(sized: Sized) -> tuple[int | None, str]:
    total = 0
    for place, node in enumerate(sized.graph.node):
        called = f"{node.op_type} {node.name or place!r}"
        if node.op_type in _UNCOUNTED:
            return None, f"the multiply-accumulates of {called} are not counted"
        if node.op_type in _COUNTED:
            macs = _op_macs(node, sized)
            if macs is None:
                return None, f"the shapes of {called} are open"
            total += macs
    return total, ""


_COUNTED = {
    **dict.fromkeys(("Conv", "ConvInteger", "ConvTranspose"), 1),
    "QLinearConv": 3,
    **dict.fromkeys(("MatMul", "MatMulInteger", "Gemm"), 1),
    "QLinearMatMul": 3,
}
"""Ops with multiply-accumulates -> which input holds the weights, or the second factor."""


def _op_macs(node: onnx.NodeProto, sized: Sized) -> int | None:
    def shape(name: str) -> Shape | None:
        return sized.values.get(name, (0, None))[1]

    first, second = shape(node.input[0]), shape(node.input[_COUNTED[node.op_type]])
    output = shape(node.output[0])
    if first is None or second is None:
        return None
    if node.op_type == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:])
    if output is None:
        return None
    if "Conv" in node.op_type:
        return math.prod(output) * math.prod(second[1:])
    turned = node.op_type == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(output) * first[0 if turned else -1]


def _peak(sized: Sized) -> tuple[int | None, str]:
    nodes = [node for node in sized.graph.node if node.op_type != "Constant"]
    computed = [name for node in nodes for name in node.output if name]
    sizes = {}
    for name in (*sized.fed, *computed):
        code, shape = sized.values.get(name, (0, None))
        if shape is None:
            return None, f"the shape of {name!r} is open"
        sizes[name] = math.prod(shape) * _type(code)[1] // 8
    lives = [(tuple(node.input), tuple(node.output)) for node in nodes]
    outputs = [item.name for item in sized.graph.output]
    return find_peak(lives, sized.fed, outputs, sizes), ""


def _carried(model: onnx.ModelProto) -> dict[str, str]:
    carried = {item.key: shorten(item.value) for item in model.metadata_props}
    if model.doc_string.strip():
        carried["description"] = shorten(model.doc_string)
    if model.graph.name:
        carried["graph"] = shorten(model.graph.name)
    return carried


def _labels(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return class names where the metadata hold them, in the ways that exporters write them."""
    for item in model.metadata_props:
        if item.key.lower() in _LABEL_KEYS and len(item.value) < _METADATA_CHARS:
            return _listed(item.value)
    return ()


def _listed(text: str) -> tuple[str, ...]:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    if isinstance(value, dict):
        value = list(value.values())
    return tuple(map(str, value)) if isinstance(value, (list, tuple)) else ()


def _remarks(file: ModelFile, sized: Sized) -> tuple[str, ...]:
    found = []
    if file.parts:
        count = len(file.parts)
        found.append(f"{number_of(count, 'file')} beside it hold{'s' * (count == 1)} weights")
    kinds = {node.op_type for node in sized.graph.node}
    if kinds & {"If", "Loop", "Scan"}:
        found.append("it has control flow; its subgraphs are counted among ops and parameters")
    return tuple(found)
