"""The number formats of a TFLite file, as the values of `models.quantization`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.number_format import DYNAMIC8, FLOAT16, STATIC8, STATIC16X8, NumberFormat
from models.quantization import Quantization

if TYPE_CHECKING:
    from models.codes import QParams
    from models.graph import Graph
    from pipeline.formats.tflite.reading import Reading

_WEIGHTS8 = NumberFormat("int8", "float32", "channel", "weight-only")
"""int8 weights that the file itself turns back into real numbers."""

_END_DTYPES = ("float32", "int8", "uint8", "int16")


def quantization_of(reading: Reading, graph: Graph) -> Quantization | None:
    """Return the number formats of a file that was read; None where all is float32."""
    params = {name: reading.params[name] for name in graph.tensors if name in reading.params}
    layers = {op.name for op in graph.ops if op.has_weights}
    codes = {name: codes for name, codes in reading.codes.items() if name in layers}
    coded_ends = any(reading.tensor(number).quantized for number in reading.file.outputs)
    if coded_ends or _computes_with_codes(graph, params):
        return _static(reading, graph, params)
    if codes:
        whole = reading.halves | codes.keys()
        by_itself = any(reading.turned_back[name] for name in codes)
        return Quantization(
            {},
            dense_per_output=_per_output(reading, graph),
            number_format=_WEIGHTS8 if by_itself else DYNAMIC8,
            weights=codes,
            float_ops=frozenset(layers - whole),
        )
    if reading.halves & layers:
        real = frozenset(layers - reading.halves)
        return Quantization({}, number_format=FLOAT16, float_ops=real)
    return None


def _computes_with_codes(graph: Graph, params: dict[str, QParams]) -> bool:
    """Tell whether codes are more than a way of storing constants, such as rows of a table."""
    stored = {tensor.name for tensor in graph.constants}
    for op in graph.ops:
        if op.name in params:
            if not op.rules.keeps_scale or op.inputs[0] not in stored:
                return True
            stored.add(op.name)
    return any(tensor.name in params for tensor in graph.inputs)


def _static(reading: Reading, graph: Graph, params: dict[str, QParams]) -> Quantization:
    wide = any(item.dtype == "int16" for item in params.values())
    numbers = [*reading.file.inputs, *reading.file.outputs]
    names = [*(tensor.name for tensor in graph.inputs), *graph.outputs]
    ends = {
        name: reading.tensor(number).dtype
        for name, number in zip(names, numbers, strict=True)
        if name in params and reading.tensor(number).dtype in _END_DTYPES
    }
    whole = Quantization(params, number_format=STATIC16X8 if wide else STATIC8)
    integer = {op.name for op in graph.ops if whole.is_integer(op)}
    codes = {name: held for name, held in reading.codes.items() if name in integer}
    return Quantization(
        params,
        dense_per_output=_per_output(reading, graph),
        number_format=whole.number_format,
        weights=codes,
        float_ops=frozenset(reading.float_ops & integer),
        ends=ends,
    )


def _per_output(reading: Reading, graph: Graph) -> bool:
    """Tell whether dense layers have a scale for each output; so where there is no such layer."""
    dense = [op.name for op in graph.ops if op.has_weights and op.layer.one_scale]
    held = [reading.codes[name] for name in dense if name in reading.codes]
    return not held or any(codes.scales.size > 1 for codes in held)
