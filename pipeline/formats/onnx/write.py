"""Writes ONNX files straight from a graph and its weights: opset 17, NCHW, batch 1.

int8 files are QDQ: every tensor passes a QuantizeLinear/DequantizeLinear pair, which runtimes
fuse into integer kernels; input and output stay float32. A fused ReLU or ReLU6 needs no node
there: quantising to a range that starts at 0 saturates in the same way.

Activations are uint8. Weights are the same codes either way: int8, or uint8 with zero point 128.
On x86 without VNNI, onnxruntime multiplies unsigned by signed codes with an instruction that adds
two products in int16 and saturates (vpmaddubsw), which ruins the result without a word; its
unsigned kernels and all others are exact (docs/decisions/0013-int8-is-held-against-its-codes.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from models.graph import INPUT, Op
from models.quantization import (
    SIGMOID,
    SIXTH,
    QParams,
    hardsigmoid_sources,
)
from pipeline.formats.api import ExportError
from pipeline.formats.layers import check_gate, check_op, layer_weights

if TYPE_CHECKING:
    from models.model import Model

OPSET = 17
IR_VERSION = 8
WEIGHT_TYPES = ("uint8", "int8")

_NODES = {"relu": "Relu", "hardswish": "HardSwish", "sigmoid": "Sigmoid"}


def write_onnx(model: Model, *, weight_type: str = WEIGHT_TYPES[0]) -> bytes:
    """Return an ONNX file of a model, not yet simplified (`pipeline.formats.onnx.simplify`).

    Args:
        model: float32 or static int8.
        weight_type: of the weight codes of an int8 file: uint8 is right everywhere; int8 is up
            to twice as fast where a processor has VNNI, or is an ARM, and wrong on other x86.

    Raises:
        ExportError: an op that ONNX cannot express, by name.
        QuantizationError: a tensor without parameters.
    """
    if weight_type not in WEIGHT_TYPES:
        raise ExportError(f"weight type {weight_type!r}; known: {', '.join(WEIGHT_TYPES)}")
    return _Writer(model, np.dtype(weight_type)).write()


class _Writer:
    """Emits one graph op by op; `at` maps graph tensors to the float tensors in the file."""

    def __init__(self, model: Model, weight_type: np.dtype[Any]) -> None:
        self.graph = model.graph
        self.weights = model.weights
        self.quantization = model.quantization
        self.ends = model.inputs[0].name, model.outputs[0].name
        self.weight_type = weight_type
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.at: dict[str, str] = {}
        self.gates = hardsigmoid_sources(model.graph)

    def write(self) -> bytes:
        source, result = self.ends
        self.result(INPUT, source)
        for op in self.graph.ops:
            check_op(op)
            self.op(op)
        last = self.at[self.graph.output.name]
        producer = next(node for node in self.nodes if last in node.output)
        producer.output[0] = result
        height, width, channels = self.graph.input_shape
        shapes = ([1, channels, height, width], [1, *self.graph.output.out_shape])
        ends = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in zip(self.ends, shapes, strict=True)
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
        codes = self.quantization.layer(op, weight, bias)
        in_scale = self.quantization[op.inputs[0]].scale
        weight_codes = _layout(op, codes.weight)
        zero = 0
        if self.weight_type == np.uint8:
            weight_codes, zero = _unsigned(weight_codes), 128
        return (
            self.dequantized(names[0], weight_codes, codes.scales, zero),
            self.dequantized(names[1], codes.bias, codes.scales * np.float32(in_scale)),
        )

    def dequantized(
        self,
        name: str,
        codes: npt.NDArray[Any],
        scales: npt.NDArray[np.float32],
        zero_point: int = 0,
    ) -> str:
        """Add codes, per channel of axis 0 or with one scale, and their DequantizeLinear."""
        axis = {"axis": 0} if len(scales) == len(codes) else {}
        scales = scales if axis else scales.reshape(())
        zeros = np.full(scales.shape, zero_point, codes.dtype)
        inputs = [self.constant(name, codes), self.constant(f"{name}.scale", scales)]
        inputs.append(self.constant(f"{name}.zero", zeros))
        return self.node("DequantizeLinear", inputs, f"{name}.real", **axis)

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
        code = _unsigned(SIXTH.quantize(np.array(1 / 6, np.float32)))
        inputs = [self.constant("sixth", code), *self.scale("sixth", SIXTH)]
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
        zero = _unsigned(np.array(params.zero_point, np.int8))
        return [
            self.constant(f"{name}.scale", np.array(params.scale, np.float32)),
            self.constant(f"{name}.zero", zero),
        ]

    def constant(self, name: str, array: npt.NDArray[Any]) -> str:
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.require(array, None, "C"), name)
        return name

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Append a node with one output, which has its name."""
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name


def _unsigned(codes: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Return the same numbers as uint8 codes, whose zero point is 128 higher."""
    return (codes.astype(np.int16) + 128).astype(np.uint8)


def _pads(op: Op) -> list[int]:
    top, bottom, left, right = op.padding
    return [top, left, bottom, right]


def _layout(op: Op, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Bring `Op.weight_shape` into ONNX's (out, in / groups, kh, kw) or (out, in)."""
    if op.kind == "conv":
        return weight.transpose(0, 3, 1, 2)
    return weight.transpose(3, 0, 1, 2) if op.kind == "depthwise" else weight
