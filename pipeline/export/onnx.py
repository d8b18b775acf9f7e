"""Writes ONNX files straight from a graph and its weights: opset 17, NCHW, batch 1.

int8 files are QDQ: every tensor passes a QuantizeLinear/DequantizeLinear pair, which runtimes
fuse into integer kernels; input and output stay float32. A fused ReLU or ReLU6 needs no node
there: quantising to a range that starts at 0 saturates in the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.graph import INPUT, Graph, Op
from pipeline.compress.quantization import (
    SIGMOID,
    QParams,
    hardsigmoid_sources,
    quantize_layer,
)
from pipeline.export.api import ExportError
from pipeline.export.layers import check_gate, check_op, layer_weights

if TYPE_CHECKING:
    from models.fold import Weights
    from pipeline.compress.quantization import Quantization

OPSET = 17
IR_VERSION = 8
OUTPUT = "logits"
ACTIVATIONS = ("uint8", "int8")

_NODES = {"relu": "Relu", "hardswish": "HardSwish", "sigmoid": "Sigmoid"}


def write_onnx(
    graph: Graph,
    weights: Weights,
    quantization: Quantization | None = None,
    *,
    activations: str = "uint8",
) -> bytes:
    """Return an ONNX file of the network, not yet simplified (`pipeline.export.onnx_simplify`).

    Args:
        graph: the lowered network.
        weights: its folded weights (`models.fold`).
        quantization: static int8 with these activation parameters; float32 without.
        activations: codes of an int8 file: uint8, faster on x86, or int8. Weights are int8.

    Raises:
        ExportError: an op that ONNX cannot express, by name.
        QuantizationError: a tensor without parameters.
    """
    if activations not in ACTIVATIONS:
        raise ExportError(f"activations {activations!r}; known: {', '.join(ACTIVATIONS)}")
    return _Writer(graph, weights, quantization, activations).write()


class _Writer:
    """Emits one graph op by op; `at` maps graph tensors to the float tensors in the file."""

    def __init__(
        self, graph: Graph, weights: Weights, quantization: Quantization | None, activations: str
    ) -> None:
        self.graph = graph
        self.weights = weights
        self.quantization = quantization
        self.dtype = np.dtype(activations)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.at: dict[str, str] = {}
        self.gates = hardsigmoid_sources(graph)

    def write(self) -> bytes:
        self.result(INPUT, INPUT)
        for op in self.graph.ops:
            check_op(op)
            self.op(op)
        last = self.at[self.graph.output.name]
        producer = next(node for node in self.nodes if last in node.output)
        producer.output[0] = OUTPUT
        height, width, channels = self.graph.input_shape
        shapes = ([1, channels, height, width], [1, *self.graph.output.out_shape])
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in zip((INPUT, OUTPUT), shapes, strict=True)
        ]
        body = helper.make_graph(
            self.nodes, "main", ends[:1], ends[1:], list(self.initializers.values())
        )
        model = helper.make_model(
            body,
            producer_name="edgewright",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        content: bytes = model.SerializeToString(deterministic=True)
        return content

    def op(self, op: Op) -> None:
        inputs = [self.at[name] for name in op.inputs]
        if op.has_weights:
            value = self.weighted(op, inputs[0])
        elif op.kind in ("add", "mul"):
            value = self.node("Add" if op.kind == "add" else "Mul", inputs, op.name)
        elif op.kind == "mean" and op.keepdims:
            value = self.node("GlobalAveragePool", inputs, op.name)
        elif op.kind == "mean":
            value = self.node("ReduceMean", inputs, op.name, axes=[2, 3], keepdims=0)
        elif op.kind == "maxpool":
            window = {"kernel_shape": [op.kernel] * 2, "strides": [op.stride] * 2}
            value = self.node("MaxPool", inputs, op.name, pads=_pads(op), **window)
        else:
            self.function(op, inputs[0])
            return
        fused = "relu6" if op.name in self.gates and self.quantization is not None else op.act
        self.result(op.name, self.fused(op.name, value, fused))

    def weighted(self, op: Op, source: str) -> str:
        weight, bias = layer_weights(op, self.weights)
        if op.name in self.gates and self.quantization is not None:
            bias = bias + np.float32(3)
        inputs = [source, *self.parameters(op, weight, bias)]
        if op.kind == "dense":
            return self.node("Gemm", inputs, op.name, transB=1)
        group = op.in_shapes[0][2] if op.kind == "depthwise" else 1
        window = {"kernel_shape": [op.kernel] * 2, "strides": [op.stride] * 2}
        return self.node("Conv", inputs, op.name, group=group, pads=_pads(op), **window)

    def parameters(
        self, op: Op, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]
    ) -> tuple[str, str]:
        """Add weight and bias, dequantised in an int8 file; return their names."""
        names = f"{op.name}.weight", f"{op.name}.bias"
        if self.quantization is None:
            return self.constant(names[0], _layout(op, weight)), self.constant(names[1], bias)
        in_scale = self.quantization[op.inputs[0]].scale
        out_scale = self.quantization[op.name].scale
        codes = quantize_layer(op, weight, bias, in_scale=in_scale, out_scale=out_scale)
        scales = codes.scales, codes.scales * np.float32(in_scale)
        arrays = _layout(op, codes.weight), codes.bias
        first, second = (
            self.dequantized(name, array, scale)
            for name, array, scale in zip(names, arrays, scales, strict=True)
        )
        return first, second

    def dequantized(
        self, name: str, codes: npt.NDArray[Any], scales: npt.NDArray[np.float32]
    ) -> str:
        """Add per-channel codes (channels on axis 0) and their DequantizeLinear."""
        inputs = [self.constant(name, codes), self.constant(f"{name}.scale", scales)]
        inputs.append(self.constant(f"{name}.zero", np.zeros(len(scales), codes.dtype)))
        return self.node("DequantizeLinear", inputs, f"{name}.real", axis=0)

    def function(self, op: Op, source: str) -> None:
        """Emit an activation of its own."""
        if op.act == "silu":
            gate = self.node("Sigmoid", [source], f"{op.name}.sigmoid")
            gate = self.quantized(f"{op.name}.sigmoid", gate, SIGMOID)
            self.result(op.name, self.node("Mul", [source, gate], op.name))
        elif op.act != "hardsigmoid":
            self.result(op.name, self.node(_NODES[op.act], [source], op.name))
        else:
            check_gate(self.graph, op)
            self.result(op.name, self.hardsigmoid(op, source))

    def hardsigmoid(self, op: Op, source: str) -> str:
        """In int8 the layer before computes relu6(x + 3) already: one sixth of that is left."""
        if self.quantization is None:
            return self.node("HardSigmoid", [source], op.name, alpha=1 / 6, beta=0.5)
        params = QParams.of_range(0.0, 1 / 6)
        code = self.codes(params.quantize(np.array(1 / 6, np.float32)))
        inputs = [self.constant("sixth", code), *self.scale("sixth", params)]
        sixth = self.node("DequantizeLinear", inputs, f"{op.name}.sixth")
        return self.node("Mul", [source, sixth], op.name)

    def fused(self, name: str, value: str, act: str) -> str:
        """Apply a fused activation, unless quantising `name` saturates in the same way."""
        if act == "none" or self.saturates(name, act):
            return value
        if act == "relu":
            return self.node("Relu", [value], f"{name}.relu")
        bounds = [
            self.constant(f"constant.{bound}", np.array(bound, np.float32)) for bound in (0, 6)
        ]
        return self.node("Clip", [value, *bounds], f"{name}.relu6")

    def saturates(self, name: str, act: str) -> bool:
        if self.quantization is None:
            return False
        params = self.quantization[name]
        low, high = (params.scale * (code - params.zero_point) for code in (-128, 127))
        return low == 0 and (act == "relu" or high <= 6 * (1 + 1e-3))

    def result(self, name: str, value: str) -> None:
        """Record the tensor that later ops read as graph tensor `name`."""
        if self.quantization is None:
            self.at[name] = value
        else:
            self.at[name] = self.quantized(name, value, self.quantization[name])

    def quantized(self, name: str, value: str, params: QParams) -> str:
        """Pass a value through QuantizeLinear and DequantizeLinear (nothing in a float file)."""
        if self.quantization is None:
            return value
        scale = self.scale(name, params)
        code = self.node("QuantizeLinear", [value, *scale], f"{name}.code")
        return self.node("DequantizeLinear", [code, *scale], f"{name}.real")

    def scale(self, name: str, params: QParams) -> list[str]:
        zero = self.codes(np.array(params.zero_point, np.int8))
        return [
            self.constant(f"{name}.scale", np.array(params.scale, np.float32)),
            self.constant(f"{name}.zero", zero),
        ]

    def codes(self, codes: npt.NDArray[np.int8]) -> npt.NDArray[Any]:
        """Turn int8 codes into the file's activation codes."""
        shift = 128 if self.dtype == np.uint8 else 0
        return (codes.astype(np.int16) + shift).astype(self.dtype)

    def constant(self, name: str, array: npt.NDArray[Any]) -> str:
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.require(array, None, "C"), name)
        return name

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Append a node with one output, which has its name."""
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name


def _pads(op: Op) -> list[int]:
    top, bottom, left, right = op.padding
    return [top, left, bottom, right]


def _layout(op: Op, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Bring `Op.weight_shape` into ONNX's (out, in / groups, kh, kw) or (out, in)."""
    if op.kind == "conv":
        return weight.transpose(0, 3, 1, 2)
    return weight.transpose(3, 0, 1, 2) if op.kind == "depthwise" else weight
