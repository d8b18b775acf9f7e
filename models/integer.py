"""The integer arithmetic of a quantised network, in numpy: what the codes of its files mean.

Products are summed exactly, the sum is rescaled by input * weight / output scale, rounded once to
the nearest code and saturated; a function of one tensor is a table of its 256 codes; any other op
is its reference (`models.ops`) in float64, of the real values of its inputs' codes. Kernels round
at other places (a fixed-point rescaling, two roundings, a float accumulator), so their codes differ
by a few here and there, and by no more than that: this is what `pipeline.formats.verify` holds
every int8 file against. No torch, no runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.activations import ACTIVATIONS
from models.codes import (
    CODE_MAX,
    CODE_MIN,
    SIGMOID,
    SIXTH,
    WEIGHT_MAX,
    QParams,
    QuantizationError,
)
from models.quantization import hardsigmoid_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.codes import LayerCodes
    from models.fold import FloatArray
    from models.graph import Op
    from models.model import Model
    from models.window import Window

Codes = npt.NDArray[np.int8]

_BATCH = 32
_EXACT_FLOAT32 = 2**24


def integer_logits(model: Model, images: FloatArray) -> FloatArray:
    """Run images through a quantised network by integer arithmetic.

    Args:
        model: static int8; its weights are quantised as the writers do.
        images: (N, C, H, W) float32.

    Returns:
        Logits (N, classes) float32.

    Raises:
        QuantizationError: a tensor without parameters, or weights that do not fit them.
    """
    machine, graph = _Machine(model), model.graph
    source, result = graph.inputs[0].name, graph.output.name
    samples = images.transpose(0, 2, 3, 1)
    starts = range(0, len(images), _BATCH)
    codes = [machine.run({source: samples[at : at + _BATCH]})[result] for at in starts]
    return machine.quantization[result].dequantize(np.concatenate(codes))


def integer_outputs(model: Model, inputs: Mapping[str, FloatArray]) -> dict[str, Codes]:
    """Run a quantised network of any inputs and outputs by integer arithmetic.

    Args:
        model: as for `integer_logits`.
        inputs: by their names in the graph, float32, shaped as the graph says but for N samples in
            place of the batch dimension of 1.

    Returns:
        The codes of the outputs by their names in the graph.

    Raises:
        QuantizationError: as `integer_logits`.
    """
    return _Machine(model).run(inputs)


class _Machine:
    """A network whose layers and constants are codes."""

    def __init__(self, model: Model) -> None:
        if model.quantization is None:
            raise QuantizationError(
                f"a {model.number_format} network has no codes to compute with; calibrate it"
            )
        self.graph, self.quantization = model.graph, model.quantization
        self.gates = hardsigmoid_sources(self.graph)
        self.constants = {
            constant.name: self.quantization[constant.name].quantize(
                model.weights[constant.name][0]
            )
            for constant in self.graph.constants
        }
        self.layers: dict[str, LayerCodes] = {}
        for op in self.graph.ops:
            if op.has_weights:
                weight, bias = model.weights[op.name]
                if op.name in self.gates:
                    bias = bias + np.float32(3)
                self.layers[op.name] = self.quantization.layer(op, weight, bias)

    def run(self, inputs: Mapping[str, FloatArray]) -> dict[str, Codes]:
        left = self.graph.readers()
        tensors = dict(self.constants)
        tensors |= {name: self.quantization[name].quantize(x) for name, x in inputs.items()}
        for op in self.graph.ops:
            tensors[op.name] = self.op(op, [tensors[name] for name in op.inputs])
            for name in op.inputs:
                left[name] -= 1
                if not left[name]:
                    del tensors[name]
        return {name: tensors[name] for name in self.graph.outputs}

    def op(self, op: Op, inputs: list[Codes]) -> Codes:
        params = [self.quantization[name] for name in op.inputs]
        if op.kind in _OF_CODES:
            return _OF_CODES[op.kind](self, op, inputs[0])
        if op.has_weights:
            real = _layer(op, inputs[0], self.layers[op.name], params[0])
        else:
            values = [_centred(x, p) * p.scale for x, p in zip(inputs, params, strict=True)]
            real = op.rules.reference(op, values)
        return self.code(op.name, real, "relu6" if op.name in self.gates else op.act)

    def mean(self, op: Op, codes: Codes) -> Codes:
        """Rescale the exact mean of the codes."""
        params = self.quantization[op.inputs[0]]
        real: npt.NDArray[np.float64] = op.rules.reference(op, [_centred(codes, params)])
        return self.code(op.name, real * params.scale)

    def maxpool(self, op: Op, codes: Codes) -> Codes:
        """Take the largest codes: input and output have one scale."""
        window: Window = op.attributes
        parts = [values for _, _, values in window.over(codes, CODE_MIN)]
        largest: Codes = np.maximum.reduce(parts)
        return largest

    def function(self, op: Op, codes: Codes) -> Codes:
        """Look an activation of its own up in the table of its 256 codes."""
        source = self.quantization[op.inputs[0]]
        x = source.scale * (np.arange(CODE_MIN, CODE_MAX + 1) - float(source.zero_point))
        real: npt.NDArray[Any]
        if op.act == "hardsigmoid":
            # The layer before computed relu6(x + 3).
            sixth = SIXTH.quantize(np.array(1 / 6, np.float32))
            real = x * SIXTH.scale * (float(sixth) - SIXTH.zero_point)
        elif op.act == "silu":
            gate = SIGMOID.quantize(ACTIVATIONS["sigmoid"](x)).astype(np.float64)
            real = x * (gate - SIGMOID.zero_point) * SIGMOID.scale
        else:
            real = ACTIVATIONS[op.act](x)
        table = self.code(op.name, real)
        looked_up: Codes = table[codes.astype(np.int16) - CODE_MIN]
        return looked_up

    def code(self, name: str, real: npt.NDArray[np.floating[Any]], act: str = "none") -> Codes:
        """Return the nearest codes of real values after a fused activation."""
        params = self.quantization[name]
        real = ACTIVATIONS[act](real)
        codes = np.rint(real / params.scale) + params.zero_point
        clipped: Codes = np.clip(codes, CODE_MIN, CODE_MAX).astype(np.int8)
        return clipped


def _layer(op: Op, codes: Codes, layer: LayerCodes, params: QParams) -> npt.NDArray[np.float64]:
    """Return the real results of a layer: exact sums of products and bias, times the scales."""
    # Integers this small are exact in floats, whose matrix products are far quicker.
    fan_in = layer.weight.size // op.out_shape[-1]
    largest = fan_in * (CODE_MAX - CODE_MIN) * WEIGHT_MAX
    exact: type[np.floating[Any]] = np.float32 if largest < _EXACT_FLOAT32 else np.float64
    x: npt.NDArray[Any] = _centred(codes, params).astype(exact)
    sums = op.rules.reference(op, [x, layer.weight.astype(exact), np.zeros((), exact)])
    scales = layer.scales.astype(np.float64) * params.scale
    real: npt.NDArray[np.float64] = (sums.astype(np.float64) + layer.bias) * scales
    return real


def _centred(codes: Codes, params: QParams) -> npt.NDArray[np.float64]:
    return codes.astype(np.float64) - params.zero_point


_OF_CODES: Mapping[str, Callable[[_Machine, Op, Codes], Codes]] = {
    "mean": _Machine.mean,
    "maxpool": _Machine.maxpool,
    "act": _Machine.function,
}
"""Kinds with an exact form of their own, from the codes of their input."""
