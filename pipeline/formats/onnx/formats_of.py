"""The number formats of an ONNX file, as the values of `models.quantization`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from models.codes import LayerCodes, QParams, WeightCodes
from models.number_format import STATIC8, STATIC16X8, NumberFormat
from models.ops import FLOAT
from models.quantization import Quantization

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.graph import Graph, Op
    from models.model import Model
    from pipeline.formats.onnx.node import Codes, HeldCodes
    from pipeline.formats.onnx.reading import Reading

_WEIGHTS8 = NumberFormat("int8", FLOAT, "channel", "weight-only")
"""int8 weights that the file itself turns back into real numbers."""

_LARGEST_BIAS = 2**31 - 1


def quantization_of(reading: Reading, graph: Graph) -> Quantization | None:
    """Return the number formats of what was read; None where all is real."""
    params = _spread(graph, reading.params)
    layers = [op for op in graph.ops if op.has_weights]
    held = {op.name: reading.codes[op.name] for op in layers if op.name in reading.codes}
    if not params:
        if not held:
            return None
        real = frozenset(op.name for op in layers) - held.keys()
        weights = {name: WeightCodes(codes.weight, codes.scales) for name, codes in held.items()}
        return Quantization({}, _per_output(layers, held), _WEIGHTS8, weights, float_ops=real)
    there = {tensor.name for tensor in graph.constants}
    constants = {
        name: _params(codes) for name, codes in reading.constant_codes.items() if name in there
    }
    wide = any(item.dtype == "int16" for item in params.values())
    names = (*(tensor.name for tensor in graph.inputs), *graph.outputs)
    return Quantization(
        {**params, **{name: item for name, item in constants.items() if item is not None}},
        dense_per_output=_per_output(layers, held),
        number_format=STATIC16X8 if wide else STATIC8,
        weights={
            op.name: _layer_codes(op, held[op.name], params[op.inputs[0]], reading)
            for op in layers
            if op.name in held and op.inputs[0] in params
        },
        float_ops=frozenset(reading.real_layers & {op.name for op in layers}),
        ends={name: reading.ends.get(name, FLOAT) for name in names if name in params},
    )


def without_idle_codes(model: Model) -> Model:
    """Return a model without the weight codes of layers that compute with real numbers."""
    held = model.quantization
    if held is None or not held.number_format.is_static:
        return model
    integer = {op.name for op in model.graph.ops if held.is_integer(op)}
    weights = {name: codes for name, codes in held.weights.items() if name in integer}
    return replace(model, quantization=replace(held, weights=weights))


def _spread(graph: Graph, params: Mapping[str, QParams]) -> dict[str, QParams]:
    """Say of reshapes and transposes what is said of the tensors that they read."""
    found = dict(params)
    for op in graph.ops:
        if op.kind in ("reshape", "transpose") and op.inputs[0] in found:
            found.setdefault(op.name, found[op.inputs[0]])
    there = set(graph.tensors)
    return {name: item for name, item in found.items() if name in there}


def _params(codes: Codes) -> QParams | None:
    """Return what the codes of a constant mean; None for a type that the graph has not."""
    scale, zero = float(codes.scales[0]), int(codes.zero_points.reshape(-1)[0])
    dtype = "int8" if codes.values is None else str(codes.values.dtype)
    if dtype not in ("int8", "uint8"):
        return None
    return QParams(scale, zero - (128 if dtype == "uint8" else 0))


def _layer_codes(op: Op, held: HeldCodes, source: QParams, reading: Reading) -> LayerCodes:
    """Return a layer's codes; a bias that is real in the file is made codes."""
    bias = held.bias
    dtype = np.int64 if source.dtype == "int16" else np.int32
    if bias is None:
        unit = held.scales.astype(np.float64) * source.scale
        whole = np.rint(reading.weights[op.name][1] / unit)
        bias = np.clip(whole, -_LARGEST_BIAS, _LARGEST_BIAS)
    return LayerCodes(held.weight, held.scales, bias.astype(dtype))


def _per_output(layers: list[Op], held: Mapping[str, HeldCodes]) -> bool:
    """Tell whether dense layers have a scale for each output; so where there is no such layer."""
    dense = [held[op.name] for op in layers if op.layer.one_scale and op.name in held]
    return not dense or any(codes.scales.size > 1 for codes in dense)
