"""The integer arithmetic of a quantised network, in numpy: what the codes of its files mean.

Products are summed exactly, the sum is rescaled by input * weight / output scale, rounded once to
the nearest code and saturated; a function of one tensor is a table of its codes; any other op
is its reference (`models.ops`) in float64, of the real values of its inputs' codes. Kernels round
at other places (a fixed-point rescaling, two roundings, a float accumulator), so their codes differ
by a few here and there, and by no more than that: this is what `pipeline.formats.verify` holds
every int8 file against. Ops that stay real are computed in float32. No torch, no runtime.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models import ops
from models.activations import ACTIVATIONS
from models.codes import SIGMOID, SIXTH, WEIGHT_MAX, LayerCodes, QParams, QuantizationError
from models.ops import FLOAT
from models.quantization import hardsigmoid_sources
from models.side_by_side import map_side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.fold import FloatArray
    from models.graph import Graph, Op
    from models.model import Model
    from models.window import Window

Array = npt.NDArray[Any]
Codes = npt.NDArray[np.integer[Any]]

_BATCH = 32
_BATCH_VALUES = 2**21
"""Values of the largest tensor in a batch, at most: 16 MiB in float64; batches are side by side."""
_EXACT_FLOAT32 = 2**24


def integer_logits(model: Model, images: FloatArray) -> FloatArray:
    """Run images through a quantised network by integer arithmetic.

    Args:
        model: of a static format; its weights are quantised as the writers do.
        images: (N, C, H, W) float32.

    Returns:
        Logits (N, classes) float32.

    Raises:
        QuantizationError: a network without codes, or weights that do not fit its parameters.
    """
    source, result = model.graph.inputs[0].name, model.graph.output.name
    return integer_reals(model, {source: images.transpose(0, 2, 3, 1)})[result]


def integer_reals(model: Model, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Do what `integer_outputs` does; return what the codes of the outputs mean, float32."""
    machine = _Machine(model)
    return {
        name: machine.quantization[name].dequantize(value) if name in machine.coded else value
        for name, value in machine.run_all(inputs).items()
    }


def integer_outputs(model: Model, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run a quantised network of any inputs and outputs by integer arithmetic.

    Args:
        model: as for `integer_logits`.
        inputs: by their names in the graph, real numbers where it has such, shaped as the graph
            says but for N samples in place of the batch dimension of 1.

    Returns:
        The outputs by their names in the graph, as they are made: codes, or real numbers of an
        op that stays real (`Quantization.made_as_codes`).

    Raises:
        QuantizationError: as `integer_logits`.
    """
    return _Machine(model).run_all(inputs)


def _batch_size(graph: Graph) -> int:
    if not graph.keeps_batch:
        return 1
    largest = max(prod(shape) for op in graph.ops for shape in (*op.in_shapes, op.out_shape))
    return min(max(_BATCH_VALUES // largest, 1), _BATCH)


class _Machine:
    """A network whose layers and constants are codes where its ops are."""

    def __init__(self, model: Model) -> None:
        if model.quantization is None or not model.number_format.is_static:
            raise QuantizationError(
                f"a {model.number_format} network has no codes to compute with; calibrate it"
            )
        self.graph, self.quantization, self.weights = model.graph, model.quantization, model.weights
        self.coded = self.quantization.made_as_codes(self.graph)
        self.gates = hardsigmoid_sources(self.graph, self.quantization)
        self.integer = [op for op in self.graph.ops if self.quantization.is_integer(op)]
        self.constants = {
            name: self.quantization[name].quantize(self.weights[name][0])
            for op in self.integer
            for name, dtype in zip(op.inputs, op.in_dtypes, strict=True)
            if name in op.constants and dtype == FLOAT
        }
        self.layers: dict[str, LayerCodes] = {}
        for op in self.integer:
            if op.has_weights:
                weight, bias = self.weights[op.name]
                if op.name in self.gates:
                    bias = bias + np.float32(3)
                self.layers[op.name] = self.quantization.layer(op, weight, bias)

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs of all samples, as they are made."""
        if all(inputs[tensor.name].shape == tensor.shape for tensor in self.graph.inputs):
            return self.run(inputs)  # one sample, of inputs that may have no batch
        count, step = len(next(iter(inputs.values()))), _batch_size(self.graph)
        batches = (
            {name: values[at : at + step] for name, values in inputs.items()}
            for at in range(0, count, step)
        )
        parts = list(map_side_by_side(self.run, batches))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs of a batch, as they are made."""
        left = self.graph.readers()
        integer = {op.name for op in self.integer}
        tensors = {
            name: self.quantization[name].quantize(x) if name in self.coded else x
            for name, x in inputs.items()
        }
        for op in self.graph.ops:
            read = self.codes if op.name in integer else self.real
            arrays = [
                read(tensors, op, name) if dtype == FLOAT else self.as_made(tensors, op, name)
                for name, dtype in zip(op.inputs, op.in_dtypes, strict=True)
            ]
            if op.name in integer:
                tensors[op.name] = self.op(op, arrays)
            else:
                own = self.weights[op.name] if op.has_weights else ()
                tensors[op.name] = ops.compute(op, [*arrays, *own])
            for name in op.inputs:
                left[name] -= 1
                if not left[name]:
                    tensors.pop(name, None)
        return {name: tensors[name] for name in self.graph.outputs}

    def as_made(self, tensors: Mapping[str, Array], op: Op, name: str) -> Array:
        """Return an input that is neither codes nor quantised."""
        return self.weights[name][0] if name in op.constants else tensors[name]

    def codes(self, tensors: Mapping[str, Array], op: Op, name: str) -> Codes:
        """Return the codes of an input."""
        if name in op.constants:
            return self.constants[name]
        made = tensors[name]
        return made if name in self.coded else self.quantization[name].quantize(made)

    def real(self, tensors: Mapping[str, Array], op: Op, name: str) -> Array:
        """Return the real values of an input."""
        made = self.as_made(tensors, op, name)
        coded = name in self.coded and name not in op.constants
        return self.quantization[name].dequantize(made) if coded else made

    def op(self, op: Op, inputs: list[Array]) -> Array:
        """Return the codes of an op, or what it gives where that is not float32."""
        if op.kind in _OF_CODES:
            return _OF_CODES[op.kind](self, op, inputs[0])
        if op.has_weights:
            params = self.quantization[op.inputs[0]]
            real = _layer(op, inputs[0], self.layers[op.name], params)
        else:
            values = [
                _centred(x, self.quantization[name]) * self.quantization[name].scale
                if dtype == FLOAT
                else x
                for x, name, dtype in zip(inputs, op.inputs, op.in_dtypes, strict=True)
            ]
            real = op.rules.reference(op, values)
        if op.out_dtype != FLOAT:
            return real
        return self.code(op.name, real, "relu6" if op.name in self.gates else op.act)

    def average(self, op: Op, codes: Codes) -> Codes:
        """Rescale the exact mean of the codes."""
        params = self.quantization[op.inputs[0]]
        real: npt.NDArray[np.float64] = op.rules.reference(op, [_centred(codes, params)])
        return self.code(op.name, real * params.scale, op.act)

    def maxpool(self, op: Op, codes: Codes) -> Codes:
        """Take the largest codes, which have one scale with those of the output."""
        params = self.quantization[op.inputs[0]]
        window: Window = op.attributes
        parts = [values for _, _, values in window.over(codes, params.limits[0])]
        largest: Codes = np.maximum.reduce(parts)
        if params == self.quantization[op.name]:
            return largest
        return self.code(op.name, _centred(largest, params) * params.scale)

    def function(self, op: Op, codes: Codes) -> Codes:
        """Look a function of one tensor up in the table of its codes."""
        source = self.quantization[op.inputs[0]]
        low, high = source.limits
        x = source.scale * (np.arange(low, high + 1) - float(source.zero_point))
        if op.inputs[0] in self.gates:
            # The layer before computed relu6(x + 3).
            sixth = SIXTH.quantize(np.array(1 / 6, np.float32))
            real = x * SIXTH.scale * (float(sixth) - SIXTH.zero_point)
        elif op.act == "silu" and source.dtype == "int8":
            gate = SIGMOID.quantize(ACTIVATIONS["sigmoid"](x)).astype(np.float64)
            real = x * (gate - SIGMOID.zero_point) * SIGMOID.scale
        else:
            real = ops.compute(op, [x])
        table = self.code(op.name, real)
        looked_up: Codes = table[codes.astype(np.int32) - low]
        return looked_up

    def code(self, name: str, real: npt.NDArray[np.floating[Any]], act: str = "none") -> Codes:
        """Return the nearest codes of real values after a fused activation."""
        params = self.quantization[name]
        real = ACTIVATIONS[act](real)
        codes = np.rint(real / params.scale) + params.zero_point
        clipped: Codes = np.clip(codes, *params.limits).astype(params.dtype)
        return clipped


def _layer(op: Op, codes: Codes, layer: LayerCodes, params: QParams) -> npt.NDArray[np.float64]:
    """Return the real results of a layer: exact sums of products and bias, times the scales."""
    # Integers this small are exact in floats, whose matrix products are far quicker.
    fan_in = layer.weight.size // op.out_shape[-1]
    largest = fan_in * (params.limits[1] - params.limits[0]) * (WEIGHT_MAX + 1)
    exact: type[np.floating[Any]] = np.float32 if largest < _EXACT_FLOAT32 else np.float64
    x: npt.NDArray[Any] = _centred(codes, params).astype(exact)
    sums = op.rules.reference(op, [x, layer.weight.astype(exact), np.zeros((), exact)])
    scales = layer.scales.astype(np.float64) * params.scale
    real: npt.NDArray[np.float64] = (sums.astype(np.float64) + layer.bias) * scales
    return real


def _centred(codes: Codes, params: QParams) -> npt.NDArray[np.float64]:
    return codes.astype(np.float64) - params.zero_point


_OF_CODES: Mapping[str, Callable[[_Machine, Op, Codes], Codes]] = {
    "mean": _Machine.average,
    "avgpool": _Machine.average,
    "maxpool": _Machine.maxpool,
    "act": _Machine.function,
    "leakyrelu": _Machine.function,
    "elu": _Machine.function,
}
"""Kinds with an exact form of their own, from the codes of their input."""
