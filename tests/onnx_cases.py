"""ONNX models written by tests, and whether what is read of one computes what onnxruntime does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from models.model import Model
from pipeline.formats.onnx.read import read_onnx
from tests.random_graphs import run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Array = np.ndarray[Any, Any]

LAST = {"NCHW": (0, 2, 3, 1), "NCL": (0, 2, 1)}
FIRST = {"NCHW": (0, 3, 1, 2), "NCL": (0, 2, 1)}
SINGLE = {"float16": "float32", "float64": "float32", "bfloat16": "float32"}
IR_VERSION = 10


class Case:
    """A model of some nodes; arrays that are given to a node become its constants."""

    def __init__(self, opset: int = 17) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: dict[str, onnx.ValueInfoProto] = {}
        self.constants: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(len(self.nodes) + opset)

    def input(self, name: str, *shape: int | str, dtype: Any = np.float32) -> str:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.inputs[name] = helper.make_tensor_value_info(name, kind, shape)
        return name

    def constant(self, array: Any, dtype: Any = None) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(array, dtype), name))
        return name

    def weight(self, *shape: int, scale: float = 0.3) -> str:
        return self.constant(self.rng.standard_normal(shape) * scale, np.float32)

    def node(
        self, kind: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any
    ) -> str:
        names = [f"t{len(self.nodes)}{'' if n == 0 else f'_{n}'}" for n in range(outputs)]
        self.nodes.append(
            helper.make_node(
                kind, inputs, names, name=f"{kind}_{len(self.nodes)}", domain=domain, **attributes
            )
        )
        return names[0]

    def content(self, *outputs: str) -> bytes:
        ends = [helper.make_value_info(name, onnx.TypeProto()) for name in outputs]
        graph = helper.make_graph(
            self.nodes, "test", list(self.inputs.values()), ends, self.constants
        )
        imports = [helper.make_opsetid("", self.opset)]
        if any(node.domain for node in self.nodes):
            imports.append(helper.make_opsetid("com.microsoft", 1))
        model = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)
        content: bytes = model.SerializeToString()
        return content


def open_session(source: bytes | Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(
        source if isinstance(source, bytes) else str(source), options
    )


def draw_inputs(
    model: Model, session: onnxruntime.InferenceSession, seed: int = 0
) -> dict[str, Array]:
    """Return inputs of a read model as the file takes them."""
    rng = np.random.default_rng(seed)
    kinds = {item.name: item.type for item in session.get_inputs()}
    found = {}
    for tensor, end in zip(model.graph.inputs, model.inputs, strict=True):
        shape = tensor.shape
        if end.layout:
            shape = tuple(shape[axis] for axis in FIRST[end.layout])
        kind = kinds[end.name].removeprefix("tensor(").removesuffix(")")
        dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
        if dtype.startswith("float"):
            found[end.name] = rng.standard_normal(shape).astype(dtype)
        else:
            found[end.name] = rng.integers(0, 2 if dtype == "bool" else 5, shape).astype(dtype)
    return found


def run_read(model: Model, inputs: Mapping[str, Array]) -> list[Array]:
    """Compute what was read by the references, its ends as the file has them."""
    fed = {}
    for tensor, end in zip(model.graph.inputs, model.inputs, strict=True):
        value = inputs[end.name]
        value = value.astype(SINGLE.get(str(value.dtype), value.dtype))
        fed[tensor.name] = value.transpose(LAST[end.layout]) if end.layout else value
    return [
        value.transpose(FIRST[end.layout]) if end.layout else value
        for value, end in zip(run(model, fed), model.outputs, strict=True)
    ]


def check(
    source: bytes | Path,
    shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> Model:
    """Read a file and hold every output against onnxruntime's; return what was read."""
    model = read_onnx(source, {name: tuple(shape) for name, shape in (shapes or {}).items()})
    assert isinstance(model, Model), model.sentence
    session = open_session(source)
    inputs = draw_inputs(model, session, seed)
    wanted = session.run(None, inputs)
    for end, right, found in zip(model.outputs, wanted, run_read(model, inputs), strict=True):
        assert found.shape == right.shape, end
        expected = SINGLE.get(str(right.dtype), str(right.dtype))
        assert str(found.dtype) == expected, end
        if right.dtype.kind != "f":
            np.testing.assert_array_equal(found, right, err_msg=end.name)
            continue
        exact = right.astype(np.float64)
        span = float(np.ptp(exact)) if exact.size > 1 else float(np.abs(exact).max())
        error = float(np.abs(found - exact).max()) / max(span, 1e-6)
        assert error <= tolerance, f"{end.name} differs by {error:.2g} of its range"
    return model
