"""Writes ONNX files straight from a model: opset 17, batch 1.

Every tensor of the graph is held in the order of axes that the ops around it want, channels first
for convolutions and pools; what moves values is written only where two of them want different
orders (`pipeline.formats.onnx.places`).

int8 files are QDQ: every tensor passes a QuantizeLinear/DequantizeLinear pair, which runtimes
fuse into integer kernels; input and output stay float32. A fused ReLU or ReLU6 needs no node
there: quantising to a range that starts at 0 saturates in the same way. Ops that stay real in a
quantised network are written as they are in a float file.

Activations are uint8. Weights are the same codes either way: int8, or uint8 with zero point 128.
On x86 without VNNI, onnxruntime multiplies unsigned by signed codes with an instruction that adds
two products in int16 and saturates (vpmaddubsw), which ruins the result without a word; its
unsigned kernels and all others are exact (docs/decisions/0013-int8-is-held-against-its-codes.md).
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.activations import FUSED_ACTIVATIONS
from models.ops import FLOAT
from models.quantization import hardsigmoid_sources
from models.recorded import KEY, record
from models.simplify import fold_batchnorm
from pipeline.formats.api import ExportError
from pipeline.formats.layers import constant_value, emitter, find_needed, layer_weights
from pipeline.formats.onnx.axes import user_axes, whole
from pipeline.formats.onnx.codes import (
    add_codes,
    add_real_bias,
    add_weight_codes,
    quantize,
    to_unsigned,
)
from pipeline.formats.onnx.emit import EMITTERS
from pipeline.formats.onnx.file_builder import FileBuilder
from pipeline.formats.onnx.orders import choose_order, plan_orders
from pipeline.formats.onnx.places import Constant, Form, Made, Place, Storage

if TYPE_CHECKING:
    from models.codes import QParams
    from models.graph import Op
    from models.model import Model
    from models.ops import Shape
    from pipeline.formats.onnx.axes import Axes
    from pipeline.formats.onnx.places import Move

OPSET = 17
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
    return Writer(fold_batchnorm(model), np.dtype(weight_type)).write()


class Writer:
    """Emits a graph op by op; `places` maps tensors of the graph to where the file holds them."""

    def __init__(self, model: Model, weight_type: np.dtype[Any]) -> None:
        self.model = model
        self.graph = model.graph
        self.quantization = model.quantization
        self.weight_type = weight_type
        self.file = FileBuilder(OPSET)
        self.places: dict[str, Place] = {}
        self.coded: dict[str, Place] = {}
        """What ops that compute with codes read of tensors that are made as real numbers."""

        self.constants: dict[tuple[str, bool], Constant] = {}
        """By name, and whether as codes."""

        self.wanted, self.readers = plan_orders(model), model.graph.readers()
        self.made_as_codes = frozenset[str]()
        self.gates = frozenset[str]()
        if model.quantization is not None:
            self.made_as_codes = model.quantization.made_as_codes(model.graph)
            self.gates = hardsigmoid_sources(model.graph, model.quantization)

    def write(self) -> bytes:
        """Return the file."""
        for tensor, end in zip(self.graph.inputs, self.model.inputs, strict=True):
            axes = user_axes(end.layout, len(tensor.shape))
            shape = tuple(tensor.shape[axis] for axis in axes)
            source = self.file.input(end.name, shape, tensor.dtype)
            self.result(tensor.name, Place.new(source, tensor.shape, axes, self.move))
        needed = find_needed(self.graph)
        for op in (op for op in self.graph.ops if op.name in needed):
            made = emitter(EMITTERS, op, "ONNX")(self, op)
            if isinstance(made, Made):
                made = made.gives(self.fused(op, made.name))
                place = Place(Storage([made.form], self.move), op.out_shape, made.digits)
                self.result(op.name, place)
            else:
                self.places[op.name] = made
        values = []
        for name, result in zip(self.graph.outputs, self.model.outputs, strict=True):
            axes = user_axes(result.layout, len(self.graph.shape(name)))
            values.append((result.name, self.places[name].give(axes), axes))
        for name, (given, value, axes) in zip(self.graph.outputs, values, strict=True):
            shape = tuple(self.graph.shape(name)[axis] for axis in axes)
            self.file.output(given, value, shape, self.graph.dtype(name))
        said = record(self.model)
        return self.file.finish({KEY: said} if said else {})

    # What ops read.

    def is_integer(self, op: Op) -> bool:
        """Tell whether an op computes with codes."""
        return self.quantization is not None and self.quantization.is_integer(op)

    def place(self, op: Op, number: int = 0) -> Place:
        """Return where the file holds an input of an op, as the op computes: real or as codes."""
        name = op.inputs[number]
        if name in op.constants:
            return self.constant(op, number).place
        as_codes = self.is_integer(op) and op.in_dtypes[number] == FLOAT
        if name in self.made_as_codes or not as_codes:
            return self.places[name]
        if name not in self.coded:
            self.coded[name] = self._as_codes(name, self.places[name])
        return self.coded[name]

    def operand(self, op: Op, axes: Axes, number: int = 0) -> str:
        """Return the file's tensor of an input of an op, with its axes in an order."""
        if op.inputs[number] in op.constants:
            return self.constant(op, number).give(axes)
        return self.place(op, number).give(axes)

    def operands(self, op: Op, axes: Axes) -> list[str]:
        """Return those of all inputs, which have one rank."""
        return [self.operand(op, axes, number) for number in range(len(op.inputs))]

    def common_axes(self, op: Op) -> Axes:
        """Return the order of axes in which the fewest values must be moved, before op or after."""
        places = [
            (self.place(op, number), self.readers[name])
            for number, name in enumerate(op.inputs)
            if name not in op.constants
        ]
        wanted = self.wanted.get(op.name)
        return choose_order(places, op.in_shapes[0], wanted, op.out_shape)

    def constant(self, op: Op, number: int) -> Constant:
        """Return a constant that an op reads, as the op computes: real or as codes."""
        name = op.inputs[number]
        integer = self.is_integer(op) and op.in_dtypes[number] == FLOAT
        key = (name, integer)
        if key not in self.constants:
            shape = op.in_shapes[number]
            value = constant_value(op, name, shape, self.model.weights)

            def lay(axes: Axes, count: int) -> str:
                stored = f"{name}.{count}" if count else name
                if not integer:
                    return self.file.constant(stored, value.transpose(axes))
                params = self.params(name)
                laid, real = value.transpose(axes), f"{stored}.real"
                return add_codes(self.file, stored, laid, params, real=real, scale=name)

            self.constants[key] = Constant(shape, lay, self.move)
        return self.constants[key]

    def params(self, name: str) -> QParams:
        """Return the parameters of a tensor. Raises QuantizationError if it has none."""
        if self.quantization is None:
            raise AssertionError(f"{name!r} is asked for its scale in a float file")
        return self.quantization[name]

    # What ops give.

    def aligned(self, op: Op, value: str, axes: Axes) -> Made:
        """Say that a tensor of the file is an op's output with its axes in an order."""
        return Made.of(Place.new(value, op.out_shape, axes, self.move))

    def shaped(self, value: str, shape: Shape) -> Made:
        """Say that a tensor of the file is an output in the graph's order, in another shape."""
        digits = whole(prod(shape))
        return Made(Form(value, shape, digits), digits)

    def viewed(self, op: Op, place: Place) -> Made | Place:
        """Say that an op's output is what it reads, unless its codes mean something else."""
        codes = self.quantization
        if codes is None or op.name not in self.made_as_codes:
            return place
        if codes[op.name] == codes[op.inputs[0]]:
            return place
        return Made.of(place)

    def source(self, op: Op) -> Made:
        """Return the first input of an op as the file holds it, in whatever order."""
        return Made.of(self.place(op))

    def fused(self, op: Op, value: str) -> str:
        """Apply an op's fused activation, unless quantising its output saturates alike."""
        act = "relu6" if op.name in self.gates else op.act
        if act not in FUSED_ACTIVATIONS or act == "none" or op.kind == "act":
            return value
        if op.name in self.made_as_codes and self.saturates(op.name, act):
            return value
        if act == "relu":
            return self.file.node("Relu", [value], f"{op.name}.relu")
        return self.clipped(value, f"{op.name}.relu6")

    def clipped(self, value: str, name: str) -> str:
        """Clip a value to 0 and 6."""
        bounds = [
            self.file.constant(f"constant.{bound}", np.array(bound, np.float32)) for bound in (0, 6)
        ]
        return self.file.node("Clip", [value, *bounds], name)

    def saturates(self, name: str, act: str) -> bool:
        """Tell whether the codes of a tensor end where the activation does."""
        params = self.params(name)
        low, high = (params.scale * (code - params.zero_point) for code in (-128, 127))
        return low == 0 and (act == "relu" or high <= 6 * (1 + 1e-3))

    def result(self, name: str, place: Place) -> None:
        """Record where later ops read graph tensor `name`, as codes where it is made as such."""
        made = name in self.made_as_codes
        self.places[name] = self._as_codes(name, place) if made else place

    def _as_codes(self, name: str, place: Place) -> Place:
        form = place.storage.forms[0]
        value = quantize(self.file, name, form.name, self.params(name), name)
        storage = Storage([Form(value, form.shape, form.digits)], self.move_codes(name))
        return Place(storage, place.shape, place.digits)

    def move(self, kind: str, name: str, value: str, numbers: tuple[int, ...]) -> str:
        """Add a Reshape or a Transpose."""
        if kind == "Reshape":
            return self.file.node(kind, [value, self.file.integers(*numbers)], f"{name}.shaped")
        return self.file.node(kind, [value], f"{name}.turned", perm=list(numbers))

    def move_codes(self, tensor: str) -> Move:
        """Return what does that to the values of codes, so that runtimes move the codes."""
        params = self.params(tensor)

        def move(kind: str, name: str, value: str, numbers: tuple[int, ...]) -> str:
            moved = self.move(kind, name, value, numbers)
            return quantize(self.file, moved, moved, params, tensor)

        return move

    # What layers own.

    def weights(self, op: Op) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return a layer's weight and bias; a hard-sigmoid's 3 is added here already."""
        weight, bias = layer_weights(op, self.model.weights)
        return weight, bias + np.float32(3) if op.name in self.gates else bias

    def parameters(self, op: Op, order: npt.NDArray[np.intp] | None = None) -> tuple[str, str]:
        """Add a layer's weight and bias, dequantised in an int8 file; return their names.

        `order` is that in which a dense layer reads its inputs, the graph's if left out.
        """
        weight, bias = self.weights(op)
        axes = op.layer.to_torch
        names = f"{op.name}.weight", f"{op.name}.bias"

        def laid(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return array.transpose(axes) if order is None else array[..., order]

        if self.quantization is None or not self.is_integer(op):
            return self.file.constant(names[0], laid(weight)), self.real_bias(op, bias)
        codes = self.quantization.layer(op, weight, bias)
        in_scale = self.quantization[op.inputs[0]].scale
        weight_codes, zero = laid(codes.weight), 0
        if self.weight_type == np.uint8:
            weight_codes, zero = to_unsigned(weight_codes), 128
        bias_scales = codes.scales * np.float32(in_scale)
        return (
            add_weight_codes(self.file, names[0], weight_codes, codes.scales, zero),
            add_weight_codes(self.file, names[1], codes.bias, bias_scales),
        )

    def real_bias(self, op: Op, bias: npt.NDArray[np.float32]) -> str:
        """Add the bias of a layer that computes with real numbers; return its name."""
        name = f"{op.name}.bias"
        if self.quantization is None:
            return self.file.constant(name, bias)
        return add_real_bias(self.file, name, bias)
