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

from models.activations import FUSED_ACTIVATIONS
from models.quantization import hardsigmoid_sources
from pipeline.formats.api import ExportError
from pipeline.formats.layers import constant_value, emitter, layer_weights
from pipeline.formats.onnx.emit import EMITTERS

if TYPE_CHECKING:
    from models.codes import QParams
    from models.graph import Op
    from models.model import Model
    from models.ops import Shape

OPSET = 17
IR_VERSION = 8
WEIGHT_TYPES = ("uint8", "int8")


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
    return Writer(model, np.dtype(weight_type)).write()


class Writer:
    """Emits a graph op by op; `at` maps tensors of the graph to the float tensors of the file."""

    def __init__(self, model: Model, weight_type: np.dtype[Any]) -> None:
        self.model = model
        self.graph = model.graph
        self.quantization = model.quantization
        self.weight_type = weight_type
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.at: dict[str, str] = {}
        self.gates = frozenset[str]()
        if model.quantization is not None:
            self.gates = hardsigmoid_sources(model.graph, model.quantization)

    def write(self) -> bytes:
        """Return the file."""
        inputs = []
        for tensor, source in zip(self.graph.inputs, self.model.inputs, strict=True):
            self.result(tensor.name, source.name)
            inputs.append(_end(source.name, tensor.shape))
        for op in self.graph.ops:
            value = emitter(EMITTERS, op, "ONNX")(self, op)
            self.result(op.name, self.fused(op, value))
        outputs = []
        for name, result in zip(self.graph.outputs, self.model.outputs, strict=True):
            if self.at[name] != result.name:
                self.rename(result.name, f"{result.name}.inner")  # an op may have the name
                self.rename(self.at[name], result.name)
            outputs.append(_end(result.name, self.graph.shape(name)))
        body = helper.make_graph(
            self.nodes, "main", inputs, outputs, list(self.initializers.values())
        )
        model = helper.make_model(
            body,
            producer_name="edgewright",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        content: bytes = model.SerializeToString(deterministic=True)
        return content

    def rename(self, old: str, new: str) -> None:
        """Give a tensor of the file another name."""
        for node in self.nodes:
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    if name == old:
                        names[place] = new
        self.at = {tensor: new if name == old else name for tensor, name in self.at.items()}
        if old in self.initializers:
            stored = self.initializers[new] = self.initializers.pop(old)
            stored.name = new

    def operands(self, op: Op) -> list[str]:
        """Return the file's tensors of an op's inputs, constants among them."""
        for name, shape in zip(op.inputs, op.in_shapes, strict=True):
            if name not in self.at:
                value = _channels_first(constant_value(op, name, shape, self.model.weights))
                if self.quantization is None:
                    self.at[name] = self.constant(name, value)
                else:
                    params = self.quantization[name]
                    self.at[name] = self.constant_codes(name, value, params, f"{name}.real")
        return [self.at[name] for name in op.inputs]

    def constant_codes(
        self, name: str, value: npt.NDArray[np.float32], params: QParams, real: str
    ) -> str:
        """Add real numbers as codes, and their DequantizeLinear named `real`; return that."""
        inputs = [self.constant(name, _unsigned(params.quantize(value)))]
        return self.node("DequantizeLinear", [*inputs, *self.scale(name, params)], real)

    def parameters(self, op: Op) -> tuple[str, str]:
        """Add a layer's weight and bias, dequantised in an int8 file; return their names."""
        weight, bias = layer_weights(op, self.model.weights)
        axes = op.layer.to_torch
        names = f"{op.name}.weight", f"{op.name}.bias"
        if self.quantization is None:
            kernel = self.constant(names[0], weight.transpose(axes))
            return kernel, self.constant(names[1], bias)
        if op.name in self.gates:
            bias = bias + np.float32(3)
        codes = self.quantization.layer(op, weight, bias)
        in_scale = self.quantization[op.inputs[0]].scale
        weight_codes: npt.NDArray[Any] = codes.weight.transpose(axes)
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

    def fused(self, op: Op, value: str) -> str:
        """Apply an op's fused activation, unless quantising its output saturates alike."""
        act = "relu6" if op.name in self.gates else op.act
        if act not in FUSED_ACTIVATIONS or act == "none" or self.saturates(op.name, act):
            return value
        if act == "relu":
            return self.node("Relu", [value], f"{op.name}.relu")
        bounds = [
            self.constant(f"constant.{bound}", np.array(bound, np.float32)) for bound in (0, 6)
        ]
        return self.node("Clip", [value, *bounds], f"{op.name}.relu6")

    def saturates(self, name: str, act: str) -> bool:
        """Tell whether the codes of a tensor end where the activation does."""
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
        """Add a tensor's scale and zero point, once; return their names."""
        zero = _unsigned(np.array(params.zero_point, np.int8))
        return [
            self.constant(f"{name}.scale", np.array(params.scale, np.float32)),
            self.constant(f"{name}.zero", zero),
        ]

    def constant(self, name: str, array: npt.NDArray[Any]) -> str:
        """Add an array, once; return its name."""
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.require(array, None, "C"), name)
        return name

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Append a node with one output, which has its name; return that."""
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name


def _end(name: str, shape: Shape) -> onnx.ValueInfoProto:
    """Return an input or output of the file; maps are (N, C, H, W)."""
    if len(shape) == 4:
        batch, height, width, channels = shape
        shape = (batch, channels, height, width)
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _channels_first(value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return value.transpose(0, 3, 1, 2) if value.ndim == 4 else value


def _unsigned(codes: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Return the same numbers as uint8 codes, whose zero point is 128 higher."""
    return (codes.astype(np.int16) + 128).astype(np.uint8)
