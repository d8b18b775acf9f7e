"""Writes TFLite files straight from a model, without a converter.

The operators (`pipeline.formats.tflite.emit`) are those that TensorFlow's converter chooses for
the same network, so a file written here is what would be deployed, and it takes milliseconds
instead of seconds: a search can measure every candidate. The converter is the oracle in the tests.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.schema_py_generated import BuiltinOperator

from models.quantization import hardsigmoid_sources
from pipeline.formats.layers import constant_value, emitter, layer_weights
from pipeline.formats.tflite.emit import EMITTERS, VERSIONS
from pipeline.formats.tflite.file_builder import FileBuilder, Options

if TYPE_CHECKING:
    from models.codes import QParams
    from models.graph import Op
    from models.model import Model
    from models.ops import Shape

DESCRIPTION = "edgewright"


def write_tflite(model: Model, *, float_io: bool = False) -> bytes:
    """Return a TFLite file of a model: batch 1, NHWC.

    Args:
        model: float32 or static int8.
        float_io: of an int8 file: float32 inputs and outputs, each converted inside by one
            QUANTIZE or DEQUANTIZE. Without it the file's inputs and outputs are int8.

    Raises:
        ExportError: an op that TFLite cannot express, by name.
        QuantizationError: a tensor without parameters.
    """
    if model.quantization is not None:
        # TFLite before 2.10 computes zeros, and says nothing, from a dense layer with a scale for
        # each output; the operator version that it would refuse is refused up to 2.12 too.
        model = replace(model, quantization=replace(model.quantization, dense_per_output=False))
    return Writer(model).write(float_io=float_io)


class Writer:
    """Emits a graph op by op; `at` maps tensors of the graph to those of the file."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.graph = model.graph
        self.quantization = model.quantization
        self.file = FileBuilder()
        self.dtype = np.float32 if model.quantization is None else np.int8
        self.at: dict[str, int] = {}
        self.stored: dict[object, int] = {}
        self.gates = hardsigmoid_sources(model.graph, model.quantization)

    def write(self, *, float_io: bool) -> bytes:
        """Return the file."""
        around = float_io and self.quantization is not None
        inputs = {}
        for tensor, end in zip(self.graph.inputs, self.model.inputs, strict=True):
            source = self.at[tensor.name] = self.tensor(tensor.name, tensor.shape)
            if around:
                source = self.file.tensor(f"{tensor.name}_float", tensor.shape, np.float32)
                options = ("Quantize", ())
                self.emit(BuiltinOperator.QUANTIZE, [source], self.at[tensor.name], options)
            inputs[end.name] = source
        for op in self.graph.ops:
            emitter(EMITTERS, op, "TFLite")(self, op)
        outputs: dict[str, int] = {}
        for name, output in zip(self.graph.outputs, self.model.outputs, strict=True):
            result = self.at[name]
            if around:
                number = f".{len(outputs)}" if outputs else ""
                shape = self.graph.shape(name)
                result = self.file.tensor(f"output_float{number}", shape, np.float32)
                options = ("Dequantize", ())
                self.emit(BuiltinOperator.DEQUANTIZE, [self.at[name]], result, options)
            outputs[output.name] = result
        return self.file.finish(inputs, outputs, description=DESCRIPTION)

    def emit(
        self,
        code: int,
        inputs: list[int],
        output: int,
        options: Options | None = None,
        *,
        version: int = 0,
    ) -> None:
        """Add an operator; `version` is the lowest that knows what it asks for."""
        version = max(version, VERSIONS[code][self.quantization is not None])
        self.file.operator(code, version, inputs, [output], options)

    def operands(self, op: Op) -> list[int]:
        """Return the file's tensors of an op's inputs, constants among them."""
        for name, shape in zip(op.inputs, op.in_shapes, strict=True):
            if name not in self.at:
                value = constant_value(op, name, shape, self.model.weights)
                self.at[name] = self.constant(name, value, self.params(name), shape)
        return [self.at[name] for name in op.inputs]

    def output(self, op: Op) -> int:
        """Add the tensor that an op gives."""
        self.at[op.name] = self.tensor(op.name, op.out_shape)
        return self.at[op.name]

    def tensor(self, name: str, shape: Shape, like: str | None = None) -> int:
        """Add a tensor with the parameters of the graph's tensor `like`, its own unless named."""
        return self.file.tensor(
            name, shape, self.dtype, quantization=self.scales(self.params(like or name))
        )

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
        scales = file.quantization(codes.scales, axis=op.layer.channel_axis)
        kernel = file.tensor(
            names[0], weight.shape, np.int8, data=codes.weight, quantization=scales
        )
        scales = file.quantization(codes.scales * np.float32(in_scale))
        offset = file.tensor(names[1], bias.shape, np.int32, data=codes.bias, quantization=scales)
        return kernel, offset

    def weights(self, op: Op) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return a layer's weight and bias; a hard-sigmoid's 3 is added here already."""
        weight, bias = layer_weights(op, self.model.weights)
        return weight, bias + np.float32(3) if op.name in self.gates else bias

    def params(self, name: str) -> QParams | None:
        """Return the parameters of a tensor of the graph; None in a float file."""
        return None if self.quantization is None else self.quantization[name]

    def scales(self, params: QParams | None) -> int:
        """Add parameters; 0 in a float file."""
        if self.quantization is None or params is None:
            return 0
        return self.file.quantization(np.array([params.scale], np.float32), params.zero_point)

    def constant(
        self, name: str, value: npt.NDArray[Any], params: QParams | None, shape: Shape = ()
    ) -> int:
        """Add real numbers, as codes in an int8 file, once for a name; return their tensor."""
        if name not in self.stored:
            data = value if self.quantization is None or params is None else params.quantize(value)
            self.stored[name] = self.file.tensor(
                name, shape, self.dtype, data=data, quantization=self.scales(params)
            )
        return self.stored[name]

    def int_constant(self, values: tuple[int, ...], shape: tuple[int, ...] | None = None) -> int:
        """Add whole numbers, once; return their tensor."""
        if values not in self.stored:
            data = np.array(values, np.int32)
            name = "constant." + "_".join(map(str, values))
            self.stored[values] = self.file.tensor(name, shape or data.shape, np.int32, data=data)
        return self.stored[values]
