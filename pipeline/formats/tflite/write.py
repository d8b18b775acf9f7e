"""Writes TFLite files straight from a graph and its weights, without a converter.

The operators are those that TensorFlow's converter chooses for the same network, so a file
written here is what would be deployed, and it takes milliseconds instead of seconds: a search can
measure every candidate. The converter is the oracle in the tests.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.schema_py_generated import (
    ActivationFunctionType,
    BuiltinOperator,
)
from ai_edge_litert.schema_py_generated import (
    Padding as WindowPadding,
)

from models.graph import INPUT, Op
from models.lower import window_padding
from models.quantization import (
    SIGMOID,
    SIXTH,
    channel_axis,
    hardsigmoid_sources,
)
from pipeline.formats.api import ExportError
from pipeline.formats.layers import check_gate, check_op, layer_weights
from pipeline.formats.tflite.file_builder import FileBuilder, Options

if TYPE_CHECKING:
    from models.model import Model
    from models.quantization import QParams

DESCRIPTION = "edgewright"

_FUSED = {
    "none": ActivationFunctionType.NONE,
    "relu": ActivationFunctionType.RELU,
    "relu6": ActivationFunctionType.RELU6,
}
# (float32, int8): what TFLiteConverter 2.21 writes. A version is a look-up key that an old
# runtime refuses when it is higher than what it knows, so never higher than needed.
_VERSIONS = {
    BuiltinOperator.CONV_2D: (1, 3),
    BuiltinOperator.DEPTHWISE_CONV_2D: (1, 3),
    BuiltinOperator.FULLY_CONNECTED: (1, 4),
    BuiltinOperator.ADD: (1, 2),
    BuiltinOperator.MUL: (1, 2),
    BuiltinOperator.PAD: (1, 2),
    BuiltinOperator.MEAN: (1, 2),
    BuiltinOperator.MAX_POOL_2D: (1, 2),
    BuiltinOperator.LOGISTIC: (1, 2),
    BuiltinOperator.HARD_SWISH: (1, 1),
    BuiltinOperator.QUANTIZE: (1, 1),
    BuiltinOperator.DEQUANTIZE: (1, 2),
}


def write_tflite(model: Model, *, float_io: bool = False) -> bytes:
    """Return a TFLite file of a model: batch 1, NHWC.

    Args:
        model: float32 or static int8.
        float_io: of an int8 file: float32 input and output, converted inside by one QUANTIZE and
            one DEQUANTIZE. Without it the file's input and output are int8.

    Raises:
        ExportError: an op that TFLite cannot express, by name.
        QuantizationError: a tensor without parameters.
    """
    if model.quantization is not None:
        # TFLite before 2.10 computes zeros, and says nothing, from a dense layer with a scale for
        # each output; the operator version that it would refuse is refused up to 2.12 too.
        model = replace(model, quantization=replace(model.quantization, dense_per_output=False))
    return _Writer(model).write(float_io=float_io)


class _Writer:
    """Emits one graph op by op; `at` maps graph tensors to file tensors."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.graph = graph = model.graph
        self.weights = model.weights
        self.quantization = model.quantization
        self.file = FileBuilder()
        self.dtype = np.float32 if model.quantization is None else np.int8
        self.at: dict[str, int] = {}
        self.constants: dict[tuple[int, ...], int] = {}
        self.gates = hardsigmoid_sources(graph)

    def write(self, *, float_io: bool) -> bytes:
        around = float_io and self.quantization is not None
        source = self.activation(INPUT)
        self.at[INPUT] = source
        if around:
            source = self.file.tensor("input_float", (1, *self.graph.input_shape), np.float32)
            self.emit(BuiltinOperator.QUANTIZE, [source], self.at[INPUT], ("Quantize", ()))
        for op in self.graph.ops:
            self.op(op)
        result = self.at[self.graph.output.name]
        if around:
            shape = (1, *self.graph.output.out_shape)
            inner, result = result, self.file.tensor("output_float", shape, np.float32)
            self.emit(BuiltinOperator.DEQUANTIZE, [inner], result, ("Dequantize", ()))
        names = self.model.inputs[0].name, self.model.outputs[0].name
        return self.file.finish({names[0]: source}, {names[1]: result}, description=DESCRIPTION)

    def op(self, op: Op) -> None:
        check_op(op)
        if op.has_weights:
            self.weighted(op)
        elif op.kind in ("add", "mul"):
            code = BuiltinOperator.ADD if op.kind == "add" else BuiltinOperator.MUL
            options = (op.kind.capitalize(), (("FusedActivationFunction", _FUSED[op.act]),))
            self.emit(code, [self.at[name] for name in op.inputs], self.output(op), options)
        elif op.kind == "mean":
            inputs = [self.at[op.inputs[0]], self.int_constant((1, 2))]
            options = ("Reducer", (("KeepDims", int(op.keepdims)),))
            self.emit(BuiltinOperator.MEAN, inputs, self.output(op), options)
        elif op.kind == "maxpool":
            self.maxpool(op)
        else:
            self.function(op)

    def weighted(self, op: Op) -> None:
        padding, source = self.window(op)
        weight, bias = layer_weights(op, self.weights)
        if op.name in self.gates:
            bias = bias + np.float32(3)
        kernel, offset = self.parameters(op, weight, bias)
        fused = _FUSED["relu6" if op.name in self.gates else op.act]
        strides = (("Padding", padding), ("StrideW", op.stride), ("StrideH", op.stride))
        act = ("FusedActivationFunction", fused)
        options: Options
        if op.kind == "conv":
            code, options = BuiltinOperator.CONV_2D, ("Conv2D", (*strides, act))
        elif op.kind == "depthwise":
            code = BuiltinOperator.DEPTHWISE_CONV_2D
            options = ("DepthwiseConv2D", (*strides, ("DepthMultiplier", 1), act))
        else:
            code, options = BuiltinOperator.FULLY_CONNECTED, ("FullyConnected", (act,))
        self.emit(code, [source, kernel, offset], self.output(op), options)

    def parameters(
        self, op: Op, weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]
    ) -> tuple[int, int]:
        """Add a layer's weight and bias; return their tensors."""
        file, names = self.file, (f"{op.name}.weight", f"{op.name}.bias")
        if self.quantization is None:
            kernel = file.tensor(names[0], weight.shape, np.float32, data=weight)
            return kernel, file.tensor(names[1], bias.shape, np.float32, data=bias)
        codes = self.quantization.layer(op, weight, bias)
        in_scale = self.quantization[op.inputs[0]].scale
        scales = file.quantization(codes.scales, axis=channel_axis(op))
        kernel = file.tensor(
            names[0], weight.shape, np.int8, data=codes.weight, quantization=scales
        )
        scales = file.quantization(codes.scales * np.float32(in_scale))
        offset = file.tensor(names[1], bias.shape, np.int32, data=codes.bias, quantization=scales)
        return kernel, offset

    def window(self, op: Op) -> tuple[int, int]:
        """Return (padding mode, tensor to read), after a PAD where no mode gives the padding."""
        source = self.at[op.inputs[0]]
        if op.kind == "dense" or op.padding == _same_padding(op):
            return WindowPadding.SAME, source
        if op.padding == (0, 0, 0, 0):
            return WindowPadding.VALID, source
        if op.kind == "maxpool":
            raise ExportError(
                f"op {op.name!r} pools with padding {op.padding}, which TFLite cannot express; "
                f"known: (0, 0, 0, 0) and SAME, here {_same_padding(op)}"
            )
        (height, width, channels), (top, bottom, left, right) = op.in_shapes[0], op.padding
        shape = (1, height + top + bottom, width + left + right, channels)
        padded = self.file.tensor(
            f"{op.name}.pad", shape, self.dtype, quantization=self.scale_of(op.inputs[0])
        )
        table = self.int_constant((0, 0, top, bottom, left, right, 0, 0), (4, 2))
        self.emit(BuiltinOperator.PAD, [source, table], padded, ("Pad", ()))
        return WindowPadding.VALID, padded

    def maxpool(self, op: Op) -> None:
        if self.quantization is not None and (
            self.quantization[op.name] != self.quantization[op.inputs[0]]
        ):
            raise ExportError(
                f"op {op.name!r} is a max pool whose quantisation parameters differ from its "
                "input's; TFLite needs them equal"
            )
        padding, source = self.window(op)
        fields = (
            ("Padding", padding),
            ("StrideW", op.stride),
            ("StrideH", op.stride),
            ("FilterWidth", op.kernel),
            ("FilterHeight", op.kernel),
        )
        self.emit(BuiltinOperator.MAX_POOL_2D, [source], self.output(op), ("Pool2D", fields))

    def function(self, op: Op) -> None:
        """Emit an activation of its own."""
        source = self.at[op.inputs[0]]
        if op.act == "hardswish":
            self.emit(BuiltinOperator.HARD_SWISH, [source], self.output(op), ("HardSwish", ()))
        elif op.act == "sigmoid":
            self.emit(BuiltinOperator.LOGISTIC, [source], self.output(op))
        elif op.act == "silu":
            gate = self.file.tensor(
                f"{op.name}.sigmoid",
                (1, *op.out_shape),
                self.dtype,
                quantization=self.scales(SIGMOID),
            )
            self.emit(BuiltinOperator.LOGISTIC, [source], gate)
            self.multiply([source, gate], op)
        else:
            check_gate(self.graph, op)
            self.multiply([source, self.sixth()], op)

    def multiply(self, inputs: list[int], op: Op) -> None:
        options = ("Mul", (("FusedActivationFunction", _FUSED["none"]),))
        self.emit(BuiltinOperator.MUL, inputs, self.output(op), options)

    def emit(
        self, code: int, inputs: list[int], output: int, options: Options | None = None
    ) -> None:
        version = _VERSIONS[code][self.quantization is not None]
        self.file.operator(code, version, inputs, [output], options)

    def activation(self, name: str) -> int:
        shape = (1, *self.graph.shape(name))
        return self.file.tensor(name, shape, self.dtype, quantization=self.scale_of(name))

    def output(self, op: Op) -> int:
        self.at[op.name] = self.file.tensor(
            op.name, (1, *op.out_shape), self.dtype, quantization=self.scale_of(op.name)
        )
        return self.at[op.name]

    def scale_of(self, name: str) -> int:
        return 0 if self.quantization is None else self.scales(self.quantization[name])

    def scales(self, params: QParams) -> int:
        if self.quantization is None:
            return 0
        return self.file.quantization(np.array([params.scale], np.float32), params.zero_point)

    def int_constant(self, values: tuple[int, ...], shape: tuple[int, ...] | None = None) -> int:
        if values not in self.constants:
            data = np.array(values, np.int32)
            name = "constant." + "_".join(map(str, values))
            self.constants[values] = self.file.tensor(
                name, shape or data.shape, np.int32, data=data
            )
        return self.constants[values]

    def sixth(self) -> int:
        """Return the constant 1/6 of hard-sigmoids."""
        key = (1, 6)
        if key not in self.constants:
            value: npt.NDArray[Any] = np.array([1 / 6], np.float32)
            data = value if self.quantization is None else SIXTH.quantize(value)
            self.constants[key] = self.file.tensor(
                "constant.sixth", (), self.dtype, data=data, quantization=self.scales(SIXTH)
            )
        return self.constants[key]


def _same_padding(op: Op) -> tuple[int, int, int, int]:
    height, width, _ = op.in_shapes[0]
    _, top, bottom = window_padding(height, op.kernel, op.stride, "same")
    _, left, right = window_padding(width, op.kernel, op.stride, "same")
    return top, bottom, left, right
