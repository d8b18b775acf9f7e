"""What a TFLite file says of itself: its input and output, and the scales of its tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_edge_litert import schema_py_generated as schema

from device_agents.model_files import inputs_outputs
from models.number_format import FLOAT32, STATIC8, NumberFormat
from models.quantization import QParams, Quantization
from pipeline.formats.api import FileEnds, to_file_ends

if TYPE_CHECKING:
    from models.graph import Graph


def describe_tflite(content: bytes) -> FileEnds:
    """Read input and output from the FlatBuffer. Raises ConfigError if it is no TFLite file."""
    return to_file_ends("NHWC", *inputs_outputs(content, "tflite"))


def read_number_format(content: bytes) -> NumberFormat:
    """Return static8 for a file that takes integer codes, float32 for any other."""
    return FLOAT32 if describe_tflite(content).input.scale is None else STATIC8


def read_quantization(content: bytes, graph: Graph) -> Quantization | None:
    """Read the parameters of the tensors that have the names of the network's."""
    file = schema.Model.GetRootAs(content).Subgraphs(0)
    if file.TensorsLength() > len(content):
        return None
    tensors = [file.Tensors(index) for index in range(file.TensorsLength())]
    found = {tensor.Name(): tensor.Quantization() for tensor in tensors}
    params = {}
    for name in graph.tensors:
        scales = found.get(name.encode())
        if scales is None or scales.ScaleLength() != 1 or scales.ZeroPointLength() != 1:
            return None
        params[name] = QParams(float(scales.Scale(0)), int(scales.ZeroPoint(0)))
    layers = [op.name for op in graph.ops if op.has_weights and op.layer.one_scale]
    weights = [found.get(f"{name}.weight".encode()) for name in layers]
    per_output = any(scales is not None and scales.ScaleLength() > 1 for scales in weights)
    return Quantization(params, dense_per_output=per_output)
