"""With what numbers does a file compute? That decides how near its outputs must be anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from device_agents import bounded
from device_agents.model_files import what_is

if TYPE_CHECKING:
    from pathlib import Path

Numbers = Literal["integers", "halves", "floats"]


def numbers_of(path: Path) -> Numbers:
    """Return the coarsest numbers that a file computes with; integers for one that is not read."""
    try:
        kind, content = what_is(path), bounded.read_bytes(path)
        if kind.name == "onnx":
            small, half = _onnx_numbers(content)
        elif kind.name == "tflite":
            small, half = _tflite_numbers(content)
        else:
            return "integers"
    except Exception:  # noqa: BLE001  # parsers of damaged files raise anything; the runtime judges
        return "integers"
    return "integers" if small else "halves" if half else "floats"


def _onnx_numbers(content: bytes) -> tuple[bool, bool]:
    """Return whether some op computes with integers, and whether some weights are halves."""
    import onnx

    graph = onnx.load_model_from_string(content).graph
    kinds = {node.op_type for node in graph.node}
    halves = (item.data_type == onnx.TensorProto.FLOAT16 for item in graph.initializer)
    integers = (word in kind for kind in kinds for word in ("Quantize", "QLinear", "Integer"))
    return any(integers), any(halves)


def _tflite_numbers(content: bytes) -> tuple[bool, bool]:
    """Return whether some tensor holds small integers, and whether some holds halves."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    graphs = (model.Subgraphs(place) for place in range(model.SubgraphsLength()))
    kinds = {g.Tensors(place).Type() for g in graphs for place in range(g.TensorsLength())}
    small = {schema.TensorType.INT8, schema.TensorType.UINT8, schema.TensorType.INT16}
    return bool(kinds & small), schema.TensorType.FLOAT16 in kinds
