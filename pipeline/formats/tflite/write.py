"""Writes TFLite files straight from a model, without a converter.

The operators (`pipeline.formats.tflite.emit`) are those that TensorFlow's converter chooses for
the same network, so a file written here is what would be deployed, and it takes milliseconds
instead of seconds: a search can measure every candidate. The converter is the oracle in the tests.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert.schema_py_generated import BuiltinOperator

from models.number_format import FLOAT32
from models.ops.api import FLOAT, INPUTS_ONLY
from models.quantization import Quantization, hardsigmoid_sources
from models.recorded import record
from models.simplify import fold_batchnorm, fuse_activations
from pipeline.formats.layers import constant_value, emitter
from pipeline.formats.tflite.emit import EMITTERS
from pipeline.formats.tflite.file_builder import FileBuilder, Options
from pipeline.formats.tflite.integer_kernels import computes_codes, is_rescaling
from pipeline.formats.tflite.step import Step
from pipeline.formats.tflite.versions import lowest_version
from pipeline.formats.tflite.views import find_channel_orders, find_views

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from models.codes import QParams
    from models.graph import Graph, Op
    from models.model import Model
    from models.ops import Shape

DESCRIPTION = "edgewright"

_UINT8_SHIFT = 128
"""A code of uint8 is that of int8 with this added."""


_OF_ANY_TYPE = ("cast", "reshape", "transpose", "slice", "concat")
"""Kinds that move or convert plain numbers of one byte; those that compute want real ones."""
_NONNEGATIVE = ("relu", "relu6", "sigmoid", "hardsigmoid")


def write_tflite(model: Model, *, float_io: bool = False) -> bytes:
    """Return a TFLite file of a model: batch 1, NHWC.

    Args:
        model: float32, weights in float16 or int8, or static int8, in whole or in part.
        float_io: of an int8 file: float32 inputs and outputs, each converted inside by one
            QUANTIZE or DEQUANTIZE. Without it the file's inputs and outputs are int8, where the
            model does not say otherwise (`Quantization.ends`).

    Raises:
        ExportError: an op that TFLite cannot express, by name.
        QuantizationError: a tensor without parameters.
    """
    model = fold_batchnorm(model)
    if model.quantization is None or not model.quantization.tensors:
        model = fuse_activations(model)
    if model.quantization is not None:
        # TFLite before 2.10 computes zeros, and says nothing, from a dense layer with a scale for
        # each output; the operator version that it would refuse is refused up to 2.12 too.
        model = replace(model, quantization=replace(model.quantization, dense_per_output=False))
    return Writer(model).write(float_io=float_io)


class Writer:
    """Emits a graph op by op.

    A tensor of the graph is one of the file where it is made, named alike; where an op reads it
    as codes and it is real, or the other way round, a second one is converted from it, once.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.graph = model.graph
        real = Quantization({}, number_format=FLOAT32)
        self.quantization = real if model.quantization is None else model.quantization
        self.file = FileBuilder()
        self.gates = hardsigmoid_sources(model.graph, model.quantization)
        self.nonnegative = {op.name for op in model.graph.ops if op.act in _NONNEGATIVE}
        self.differences = _find_squared_differences(model.graph, self.quantization)
        self.channel_orders = find_channel_orders(model.graph)
        self._views = find_views(model.graph, self.quantization)
        self._made_as_codes = self.quantization.made_as_codes(model.graph)
        self._held: dict[tuple[str, bool], int] = {}
        self._meant: dict[str, int] = {}
        """Real tensors of the meaning of codes, of tensors that are made as real numbers."""

        self._stored: dict[object, int] = {}
        self._unconverted: tuple[int, Op] | None = None

    def write(self, *, float_io: bool) -> bytes:
        """Return the file."""
        inputs = {
            end.name: self._add_input(tensor.name, tensor.shape, tensor.dtype, float_io=float_io)
            for tensor, end in zip(self.graph.inputs, self.model.inputs, strict=True)
        }
        for op in self.graph.ops:
            if op.name in self._views:
                continue
            step = Step(self, op, integer=self._is_integer(op))
            if self._gives_what_is_there(op, codes=step.integer):
                self._held[op.name, step.integer] = step.input(0)
                continue
            if op.kind not in _OF_ANY_TYPE and set(op.in_dtypes) & set(INPUTS_ONLY):
                raise step.refuse(f"computes with {op.in_dtypes[0]} that is no code")
            emitter(EMITTERS, op, "TFLite")(step)
            self._convert_output()
        outputs: dict[str, int] = {}
        for name, end in zip(self.graph.outputs, self.model.outputs, strict=True):
            outputs[end.name] = self._add_output(name, len(outputs), float_io=float_io)
        described = f"{DESCRIPTION} {record(self.model)}".strip()
        return self.file.finish(inputs, outputs, description=described)

    def emit(
        self,
        code: int,
        inputs: Sequence[int],
        output: int,
        options: Options | None = None,
        *,
        version: int = 0,
    ) -> None:
        """Add an operator; `version` is the lowest that knows its options."""
        version = max(
            version, lowest_version(code, self.file.tensors[inputs[0]], self.file.tensors[output])
        )
        self.file.operator(code, version, inputs, [output], options)

    def read(self, op: Op, place: int, *, codes: bool) -> int:
        """Return the file's tensor of an input, converted if it is made otherwise."""
        name, codes = op.inputs[place], codes and op.in_dtypes[place] == FLOAT
        if name in op.constants:
            coded = name in self.quantization.tensors
            if not coded or not self.quantization.is_integer(op):
                return self._real_constant(op, place, f"{name}.value" if coded else name)
            self._add_coded_constant(op, place)
        name = self._views.get(name, name)
        if codes or not self._reads_codes(op, name):
            return self._as(name, codes=codes)
        if name not in self._meant:
            self._meant[name] = self._convert(self._as(name, codes=True), name, codes=False)
        return self._meant[name]

    def make(self, op: Op, *, codes: bool) -> int:
        """Add the tensor that an op gives; what comes as it is not kept is converted afterwards."""
        name, shape = op.name, op.out_shape
        if op.out_dtype != FLOAT:
            self._held[name, False] = self.file.tensor(name, shape, op.out_dtype)
        elif codes:
            self._held[name, True] = self.coded(name, shape, self.params(name))
        elif name in self._made_as_codes:
            result = self.file.tensor(f"{name}.real", shape, np.float32)
            self._unconverted = result, op
            return result
        else:
            self._held[name, False] = self.file.tensor(name, shape, np.float32)
        return self._held[name, codes and op.out_dtype == FLOAT]

    def coded(self, name: str, shape: Shape, params: QParams) -> int:
        """Add a tensor of codes."""
        return self.file.tensor(name, shape, params.dtype, quantization=self.scales(params))

    def scales(self, params: QParams) -> int:
        """Add parameters."""
        return self.file.quantization(np.array([params.scale], np.float32), params.zero_point)

    def params(self, name: str) -> QParams:
        """Return the parameters of a tensor of the graph."""
        return self.quantization[name]

    def constant_value(self, op: Op, place: int) -> npt.NDArray[Any]:
        """Return the value of a constant that an op reads, in the type that the graph says."""
        name, shape, dtype = op.inputs[place], op.in_shapes[place], op.in_dtypes[place]
        return np.asarray(constant_value(op, name, shape, self.model.weights), dtype)

    def constant(self, name: str, value: npt.NDArray[Any], params: QParams | None = None) -> int:
        """Add a constant of the file's own, as codes where it has parameters, once for a name."""
        if name not in self._stored:
            self._stored[name] = self._constant(name, value, params)
        return self._stored[name]

    def int_constant(self, values: tuple[int, ...], shape: Shape | None = None) -> int:
        """Add whole numbers, once; return their tensor."""
        key = (values, shape)
        if key not in self._stored:
            data = np.array(values, np.int32)
            name = "constant." + "_".join(map(str, values))
            where = data.shape if shape is None else shape
            self._stored[key] = self.file.tensor(name, where, np.int32, data=data)
        return self._stored[key]

    def _is_integer(self, op: Op) -> bool:
        """Tell whether an op computes with codes in this file: it may, and TFLite knows how."""
        return self.quantization.is_integer(op) and computes_codes(op, self.quantization)

    def _gives_what_is_there(self, op: Op, *, codes: bool) -> bool:
        """Tell whether an op gives a tensor that is made without it: real, or its codes."""
        source = op.inputs[0]
        if not is_rescaling(op) or source in op.constants:
            return False
        if not codes:
            return op.name not in {*self._made_as_codes, *self.graph.outputs}
        real = self._views.get(source, source) not in self._made_as_codes
        return real and self.params(source) == self.params(op.name)

    def _add_input(self, name: str, shape: Shape, dtype: str, *, float_io: bool) -> int:
        if dtype != FLOAT or name not in self.quantization.tensors:
            self._held[name, False] = self.file.tensor(name, shape, dtype)
            return self._held[name, False]
        codes = self._held[name, True] = self.coded(name, shape, self.params(name))
        end = FLOAT if float_io else self.quantization.ends.get(name, self.params(name).dtype)
        if end == self.params(name).dtype:
            return codes
        given = self._foreign(
            f"{name}_float" if end == FLOAT else f"{name}_{end}", shape, name, end
        )
        if name not in self._made_as_codes:
            self._held[name, False] = given
        self.emit(BuiltinOperator.QUANTIZE, [given], codes, ("Quantize", ()))
        return given

    def _add_output(self, name: str, place: int, *, float_io: bool) -> int:
        codes = name in self._made_as_codes
        made = self._held[name, codes]
        if name not in self.quantization.tensors:
            return made
        own = self.params(name).dtype if codes else FLOAT
        end = FLOAT if float_io else self.quantization.ends.get(name, own)
        if end == own:
            return made
        shape = self.file.tensors[made].shape
        number = f".{place}" if place else ""
        result = self._foreign(
            f"output_float{number}" if end == FLOAT else f"{name}.{end}", shape, name, end
        )
        code, options = BuiltinOperator.QUANTIZE, ("Quantize", ())
        if end == FLOAT:
            code, options = BuiltinOperator.DEQUANTIZE, ("Dequantize", ())
        self.emit(code, [made], result, options)
        return result

    def _foreign(self, label: str, shape: Shape, name: str, dtype: str) -> int:
        """Add a tensor for an end whose user gives or takes another type than is computed with."""
        if dtype == FLOAT:
            return self.file.tensor(label, shape, np.float32)
        params = self.params(name)
        shift = {("int8", "uint8"): _UINT8_SHIFT}.get((params.dtype, dtype), 0)
        scales = self.file.quantization(
            np.array([params.scale], np.float32), params.zero_point + shift
        )
        return self.file.tensor(label, shape, dtype, quantization=scales)

    def _real_constant(self, op: Op, place: int, label: str) -> int:
        key = ("constant of the graph", op.inputs[place])
        if key not in self._stored:
            self._stored[key] = self._constant(label, self.constant_value(op, place), None)
        return self._stored[key]

    def _add_coded_constant(self, op: Op, place: int) -> None:
        name = op.inputs[place]
        if (name, True) not in self._held:
            value = self.constant_value(op, place)
            self._held[name, True] = self._constant(name, value, self.params(name))

    def _constant(self, name: str, value: npt.NDArray[Any], params: QParams | None) -> int:
        if params is None:
            return self.file.tensor(name, value.shape, value.dtype, data=value)
        data, scales = params.quantize(value), self.scales(params)
        return self.file.tensor(name, value.shape, params.dtype, data=data, quantization=scales)

    def _reads_codes(self, op: Op, name: str) -> bool:
        """Tell whether an op reads what the codes mean of a tensor that is made as real numbers."""
        made_as_real = name in self.quantization.tensors and name not in self._made_as_codes
        return made_as_real and self.quantization.is_integer(op)

    def _as(self, name: str, *, codes: bool) -> int:
        """Return the file's tensor of one of the graph, as codes or as real numbers."""
        if (name, codes) not in self._held:
            source = self._held[name, not codes]
            self._held[name, codes] = self._convert(source, name, codes=codes)
        return self._held[name, codes]

    def _convert(self, source: int, name: str, *, codes: bool) -> int:
        """Convert a tensor to codes, or to real numbers."""
        shape = self.file.tensors[source].shape
        if codes:
            result = self.coded(f"{name}.codes", shape, self.params(name))
            self.emit(BuiltinOperator.QUANTIZE, [source], result, ("Quantize", ()))
        else:
            result = self.file.tensor(f"{name}.real", shape, np.float32)
            self.emit(BuiltinOperator.DEQUANTIZE, [source], result, ("Dequantize", ()))
        return result

    def _convert_output(self) -> None:
        """Quantise what an op just gave as real numbers and the network has as codes."""
        if self._unconverted is None:
            return
        result, op = self._unconverted
        self._unconverted = None
        codes = self._held[op.name, True] = self.coded(op.name, op.out_shape, self.params(op.name))
        self.emit(BuiltinOperator.QUANTIZE, [result], codes, ("Quantize", ()))


def _find_squared_differences(graph: Graph, quantization: Quantization) -> dict[str, str]:
    """Return ops of real numbers that square a difference -> the op that gives it only to them."""
    found = {
        op.name: op.inputs[0]
        for op in graph.ops
        if op.kind == "mul" and op.act == "none" and op.inputs[0] == op.inputs[1]
    }
    if not found:
        return {}
    readers, wide = graph.readers(), quantization.tensors
    differences = {
        op.name
        for op in graph.ops
        if op.kind == "sub" and op.act == "none" and readers[op.name] == 2 and op.name not in wide
    }
    return {name: made for name, made in found.items() if made in differences}
