"""The integer arithmetic of a quantised network, in numpy: what the codes of its files mean.

Products are summed exactly, the sum is rescaled by input * weight / output scale, rounded once to
the nearest code and saturated; a function of one tensor is a table of its 256 codes. Kernels round
at other places (a fixed-point rescaling, two roundings, a float accumulator), so their codes differ
by a few here and there, and by no more than that: this is what `pipeline.formats.verify` holds
every int8 file against. No torch, no runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.graph import INPUT, Graph, Op
from models.quantization import (
    CODE_MAX,
    CODE_MIN,
    SIGMOID,
    SIXTH,
    WEIGHT_MAX,
    QParams,
    QuantizationError,
    hardsigmoid_sources,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.fold import FloatArray, Weights
    from models.model import Model
    from models.quantization import LayerCodes, Quantization

Codes = npt.NDArray[np.int8]

_BATCH = 32
_EXACT_FLOAT32 = 2**24
_FUSED_BOUNDS = {"relu": (0.0, np.inf), "relu6": (0.0, 6.0)}


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
    quantization = model.quantization
    if quantization is None:
        raise QuantizationError(
            f"a {model.number_format} network has no codes to compute with; calibrate it"
        )
    graph = model.graph
    machine = _Machine(graph, model.weights, quantization)
    starts = range(0, len(images), _BATCH)
    codes = np.concatenate([machine.run(images[start : start + _BATCH]) for start in starts])
    return quantization[graph.output.name].dequantize(codes)


class _Machine:
    """A network whose layers are codes; tensors are int8, maps (N, H, W, C), vectors (N, C)."""

    def __init__(self, graph: Graph, weights: Weights, quantization: Quantization) -> None:
        self.graph = graph
        self.quantization = quantization
        self.gates = hardsigmoid_sources(graph)
        self.layers: dict[str, LayerCodes] = {}
        for op in graph.ops:
            if op.has_weights:
                weight, bias = weights[op.name]
                if op.name in self.gates:
                    bias = bias + np.float32(3)
                self.layers[op.name] = quantization.layer(op, weight, bias)

    def run(self, images: FloatArray) -> Codes:
        left = self.graph.consumers()
        tensors = {INPUT: self.quantization[INPUT].quantize(images.transpose(0, 2, 3, 1))}
        for op in self.graph.ops:
            tensors[op.name] = self.op(op, [tensors[name] for name in op.inputs])
            for name in op.inputs:
                left[name] -= 1
                if not left[name]:
                    del tensors[name]
        return tensors[self.graph.output.name]

    def op(self, op: Op, inputs: list[Codes]) -> Codes:
        params = [self.quantization[name] for name in op.inputs]
        if op.kind == "maxpool":
            return _maxpool(op, inputs[0])
        if op.kind == "act":
            return self.function(op, inputs[0])
        if op.has_weights:
            real = _weighted(op, inputs[0], self.layers[op.name], params[0])
        elif op.kind == "mean":
            real = _centred(inputs[0], params[0]).mean((1, 2), keepdims=op.keepdims)
            real = real * params[0].scale
        else:
            first, second = (_centred(x, p) * p.scale for x, p in zip(inputs, params, strict=True))
            real = first + second if op.kind == "add" else first * second
        return self.code(op.name, real, "relu6" if op.name in self.gates else op.act)

    def function(self, op: Op, codes: Codes) -> Codes:
        """Look an activation of its own up in the table of its 256 codes."""
        source = self.quantization[op.inputs[0]]
        x = source.scale * (np.arange(CODE_MIN, CODE_MAX + 1) - float(source.zero_point))
        if op.act == "hardswish":
            real = x * np.clip(x + 3, 0, 6) / 6
        elif op.act == "hardsigmoid":
            # The layer before computed relu6(x + 3).
            sixth = SIXTH.quantize(np.array(1 / 6, np.float32))
            real = x * SIXTH.scale * (float(sixth) - SIXTH.zero_point)
        else:
            real = 1 / (1 + np.exp(-x))
            if op.act == "silu":
                gate = SIGMOID.quantize(real).astype(np.float64) - SIGMOID.zero_point
                real = x * gate * SIGMOID.scale
        table = self.code(op.name, real)
        looked_up: Codes = table[codes.astype(np.int16) - CODE_MIN]
        return looked_up

    def code(self, name: str, real: npt.NDArray[np.float64], act: str = "none") -> Codes:
        """Return the nearest codes of real values after a fused activation."""
        params = self.quantization[name]
        if act != "none":
            real = np.clip(real, *_FUSED_BOUNDS[act])
        codes = np.rint(real / params.scale) + params.zero_point
        clipped: Codes = np.clip(codes, CODE_MIN, CODE_MAX).astype(np.int8)
        return clipped


def _weighted(op: Op, codes: Codes, layer: LayerCodes, params: QParams) -> npt.NDArray[np.float64]:
    """Return the real results of a layer: exact sums of products and bias, times the scales."""
    # Integers this small are exact in floats, whose matrix products are far quicker.
    fan_in = op.kernel**2 if op.kind == "depthwise" else layer.weight[0].size
    largest = fan_in * (CODE_MAX - CODE_MIN) * WEIGHT_MAX
    exact: type[np.floating[Any]] = np.float32 if largest < _EXACT_FLOAT32 else np.float64
    x: npt.NDArray[Any] = _centred(codes, params).astype(exact)
    weight: npt.NDArray[Any] = layer.weight.astype(exact)
    sums: npt.NDArray[Any]
    if op.kind == "dense":
        sums = x @ weight.T
    else:
        sums = np.zeros((len(x), *op.out_shape), exact)
        for row, column, values in _windows(op, x, 0):
            if op.kind == "conv":
                sums += values @ weight[:, row, column].T
            else:
                sums += values * weight[0, row, column]
    scales = layer.scales.astype(np.float64) * params.scale
    real: npt.NDArray[np.float64] = (sums.astype(np.float64) + layer.bias) * scales
    return real


def _maxpool(op: Op, codes: Codes) -> Codes:
    largest: Codes = np.maximum.reduce([values for _, _, values in _windows(op, codes, CODE_MIN)])
    return largest


def _windows(
    op: Op, x: npt.NDArray[Any], padding: int
) -> Iterator[tuple[int, int, npt.NDArray[Any]]]:
    """Yield (row, column, the values that all windows have there) of a padded map."""
    top, bottom, left, right = op.padding
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=padding)
    rows, columns = ((size - 1) * op.stride + 1 for size in op.out_shape[:2])
    for i in range(op.kernel):
        for j in range(op.kernel):
            yield i, j, padded[:, i : i + rows : op.stride, j : j + columns : op.stride]


def _centred(codes: Codes, params: QParams) -> npt.NDArray[np.float64]:
    return codes.astype(np.float64) - params.zero_point
