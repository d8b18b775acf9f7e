"""Facts of TFLite files."""

from __future__ import annotations

import io
import math
import zipfile
from collections import Counter
from typing import TYPE_CHECKING

from device_agents.bounded import ZIP_ERRORS
from device_agents.model_files import inputs_outputs
from pipeline.formats.facts.values import Facts, Weights, find_peak, shorten, sort_counts
from pipeline.formats.tflite.contents import bits
from pipeline.formats.tflite.mediapipe import DECONV

if TYPE_CHECKING:
    from pipeline.formats.tflite.contents import Contents, FileOp, FileTensor, Subgraph

_METADATA = "TFLITE_METADATA"
_RUNTIME_VERSION = "min_runtime_version"
_MOST_LABELS = 100_000
_UNCOUNTED = (
    *("UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN", "LSTM", "RNN", "SVDF"),
    *("BIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_RNN", "WHILE", "IF", "CONV_3D"),
    "CONV_3D_TRANSPOSE",
)


def tflite_facts(content: bytes, contents: Contents) -> Facts:
    """Return the facts of a file, and of what `read_contents` read of it.

    Raises:
        ConfigError: it is damaged.
    """
    inputs, outputs = inputs_outputs(content, "tflite")
    ops = Counter(op.custom or op.kind for graph in contents.subgraphs for op in graph.ops)
    weights, activations = _tensors(contents)
    graph = contents.main
    macs, uncounted = _macs(graph)
    labels = _labels(content)
    return Facts(
        format="TFLite",
        version=f"schema {contents.version}",
        producer=shorten(contents.description),
        size_bytes=len(content),
        inputs=inputs,
        outputs=outputs,
        ops=sort_counts(ops),
        params=weights.params,
        weight_bytes=sort_counts(weights.weight_bytes),
        activations=sort_counts(activations),
        macs=macs,
        peak_activation_bytes=_peak(graph),
        uncounted=uncounted,
        metadata=_carried(contents),
        labels=labels,
        remarks=_remarks(contents),
    )


def _tensors(contents: Contents) -> tuple[Weights, Counter[str]]:
    weights, activations = Weights(), Counter[str]()
    counted: set[int] = set()
    for graph in contents.subgraphs:
        for tensor in graph.tensors:
            if tensor.data is None:
                activations[tensor.dtype] += 1
                continue
            held = tensor.data.ctypes.data if tensor.data.size else 0
            if held not in counted:  # several tensors may share a constant
                counted.add(held)
                weights.add(tensor.dtype, tensor.elements, tensor.data.size, table=_table(tensor))
    return weights, activations


def _table(tensor: FileTensor) -> bool:
    integers = tensor.dtype in ("int32", "int64", "bool", "string", "uint32", "resource")
    return integers and not tensor.scales


def _peak(graph: Subgraph) -> int:
    sizes = {
        str(place): math.prod(tensor.shape) * bits(tensor.dtype) // 8
        for place, tensor in enumerate(graph.tensors)
        if tensor.data is None
    }
    # What only unpacks a constant is unpacked once, and kept with the weights.
    for op in graph.ops:
        if op.kind in ("DEQUANTIZE", "DENSIFY") and str(op.inputs[0]) not in sizes:
            sizes.pop(str(op.outputs[0]), None)
    lives = [(tuple(map(str, op.inputs)), tuple(map(str, op.outputs))) for op in graph.ops]
    return find_peak(lives, map(str, graph.inputs), map(str, graph.outputs), sizes)


def _macs(graph: Subgraph) -> tuple[int | None, str]:
    total = 0
    for place, op in enumerate(graph.ops):
        if op.kind in _UNCOUNTED:
            return None, f"the multiply-accumulates of {op.kind} (op {place}) are not counted"
        total += _op_macs(graph, op)
    return total, ""


def _op_macs(graph: Subgraph, op: FileOp) -> int:
    shapes = [graph.tensors[t].shape if t >= 0 else () for t in op.inputs]
    output = math.prod(graph.tensors[op.outputs[0]].shape) if op.outputs else 0
    if op.kind == "CONV_2D":
        return output * math.prod(shapes[1][1:])
    if op.kind == "DEPTHWISE_CONV_2D":
        return output * math.prod(shapes[1][1:3])
    if op.kind == "TRANSPOSE_CONV" or op.custom == DECONV:
        weight, source = shapes[1], shapes[0 if op.custom else 2]
        return math.prod(source) * math.prod(weight[:3])
    if op.kind == "FULLY_CONNECTED":
        return output * shapes[1][-1]
    if op.kind == "BATCH_MATMUL":
        return output * shapes[0][-2 if getattr(op.options, "adjX", False) else -1]
    return 0


def _carried(contents: Contents) -> dict[str, str]:
    """Return what is carried beside the network."""
    carried: dict[str, str] = {}
    for name, data in contents.metadata.items():
        if name == _RUNTIME_VERSION:
            carried["least runtime"] = data.rstrip(b"\0").decode("utf-8", "replace")
        else:
            carried[name] = f"{len(data)} bytes"
    if contents.signatures:
        carried["signatures"] = ", ".join(contents.signatures)
    return carried


def _labels(content: bytes) -> tuple[str, ...]:
    """Return the labels that are packed behind a file, as TFLite's metadata tools pack them.

    They append a zip archive of text files; the first with several lines is taken.
    """
    if b"PK\x05\x06" not in content[-(1 << 16) :]:
        return ()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".txt") and info.file_size < _MOST_LABELS:
                    lines = archive.read(info).decode("utf-8", "replace").splitlines()
                    labels = tuple(line.strip() for line in lines if line.strip())
                    if len(labels) > 1:
                        return labels
    except ZIP_ERRORS:
        return ()
    return ()


def _remarks(contents: Contents) -> tuple[str, ...]:
    found = []
    count = len(contents.subgraphs)
    if count > 1:
        found.append(f"it has {count} subgraphs; cost and partitions are those of the first")
    graph = contents.main
    if any(-1 in graph.tensors[t].signature for t in graph.inputs):
        found.append("cost and partitions are for the shapes that it holds, open dimensions 1")
    if any(op.kind == "VAR_HANDLE" for op in graph.ops):
        found.append("it keeps state in variables from one inference to the next")
    if any(tensor.sparse for part in contents.subgraphs for tensor in part.tensors):
        found.append("some of its weights are stored sparse")
    return tuple(found)
