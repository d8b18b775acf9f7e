"""What an ONNX file says of itself: its inputs and outputs, and the scales of its tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from device_agents.errors import ConfigError
from device_agents.model_files import inputs_outputs
from models.codes import QParams
from models.number_format import FLOAT32, STATIC8, NumberFormat
from models.quantization import Quantization
from pipeline.formats.ends import FileEnds, to_file_ends

if TYPE_CHECKING:
    from pathlib import Path

    from models.graph import Graph
    from pipeline.formats.api import Numbers


def describe_onnx(content: bytes) -> FileEnds:
    """Read inputs and outputs from the signature. Raises ConfigError if it is no ONNX file."""
    return to_file_ends("NCHW", *inputs_outputs(content, "onnx"))


def read_number_format(content: bytes) -> NumberFormat:
    """Return static8 for a file that quantises any tensor, float32 for any other."""
    describe_onnx(content)
    return STATIC8 if b"QuantizeLinear" in content else FLOAT32


def read_numbers(content: bytes) -> Numbers:
    """Return integers if some op computes with them, halves if some weights are such."""
    graph = parse_graph(content)
    kinds = {node.op_type for node in graph.node}
    if any(word in kind for kind in kinds for word in ("Quantize", "QLinear", "Integer")):
        return "integers"
    halves = any(item.data_type == onnx.TensorProto.FLOAT16 for item in graph.initializer)
    return "halves" if halves else "floats"


def read_quantization(content: bytes, graph: Graph) -> Quantization | None:
    """Read the parameters of the tensors that are quantised under the network's names."""
    file = parse_graph(content)
    stored = {item.name: item for item in file.initializer}
    nodes = {node.name: node for node in file.node}
    constants = {tensor.name for tensor in graph.constants}
    # What only moves values may have no node of its own.
    views = {op.name: op.inputs[0] for op in graph.ops if op.keeps_scale}
    params: dict[str, QParams] = {}
    for name in graph.tensors:
        if f"{name}.code" not in nodes and views.get(name) in params:
            params[name] = params[views[name]]
            continue
        node = nodes.get(f"{name}.real" if name in constants else f"{name}.code")
        if node is None or len(node.input) < 3 or not set(node.input[1:]) <= stored.keys():
            return None
        scale, zero = (numpy_helper.to_array(stored[source]) for source in node.input[1:3])
        if scale.size != 1 or zero.size != 1 or zero.dtype != np.uint8:
            return None
        params[name] = QParams(float(scale.item()), int(zero.item()) - 128)
    return Quantization(params)


def parse_graph(content: bytes | Path) -> onnx.GraphProto:
    """Return a file's graph, without the weights that lie beside it.

    Raises:
        ConfigError: it is no ONNX file.
    """
    try:
        if isinstance(content, bytes):
            return onnx.load_model_from_string(content).graph
        return onnx.load_model(content, load_external_data=False).graph
    except Exception as error:  # protobuf's exceptions differ between its implementations
        raise ConfigError(f"not an ONNX file: {str(error)[:300]}") from error
