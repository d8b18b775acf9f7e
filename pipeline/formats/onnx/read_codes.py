"""Reads what is quantised: its tensors are real in the graph, with their scales beside.

A QuantizeLinear says of a tensor what its codes mean, a DequantizeLinear nothing. Between both a
file may move codes about, and ops that compute with codes (`read_integer`) take and give them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from models.codes import QParams
from models.ops import Clip
from pipeline.formats.onnx.node import (
    Array,
    Codes,
    HeldCodes,
    Node,
    UnknownError,
    Value,
    axis_of,
    known,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.formats.onnx.reading import Reading

_MIDDLE = {"uint8": 128, "int8": 0, "int16": 0, "uint16": 1 << 15}
"""What is taken off codes of a type for those of the graph, which are signed."""

_OF_CODES = {"MatMulInteger", "ConvInteger", "DequantizeLinear"}
"""Ops that read codes whose scale is found while the file runs."""

_SIGNED = {"uint8": "int8", "int8": "int8", "int16": "int16", "uint16": "int16"}


def params_of(scale: Value, zero: Value | None) -> QParams:
    """Return what codes of a tensor mean.

    Raises:
        UnknownError: they have several scales, or a type that the graph does not know.
    """
    scales = known(scale, "scale").reshape(-1)
    zeros = np.zeros(1, np.uint8) if zero is None else integers(zero).reshape(-1)
    dtype = str(zeros.dtype)
    if len(scales) != 1 or len(zeros) != 1:
        raise UnknownError(f"has {len(scales)} scales where activations have one")
    if dtype not in _SIGNED:
        raise UnknownError(f"has codes of {dtype}; int8, uint8 and int16 are known")
    point = int(zeros[0]) - _MIDDLE[dtype]
    if _SIGNED[dtype] == "int16" and point:
        raise UnknownError(f"has codes of {dtype} with the zero point {int(zeros[0])}")
    return QParams(float(scales[0]), point, _SIGNED[dtype])


def integers(value: Value) -> Array:
    """Return a constant as the file holds it."""
    return value.raw if value.raw is not None else known(value, "zero point")


def note(reading: Reading, x: Value, params: QParams, *, name: str) -> Value:
    """Return what the codes of a real tensor mean: itself, or a copy that has these codes.

    Whoever reads the tensor as it was made does not read them, so that it has a copy for each way
    in which the file quantises it, until all is read (`pipeline.formats.code_readers`).

    Where no code is negative a file leaves a ReLU out, as saturating does the same. The real
    network needs it.
    """
    if x.array is not None:
        return replace(x, codes=Codes(np.array([params.scale]), np.array([params.zero_point])))
    held = _meaning(reading, x.name)
    if held == params:
        spread_back(reading, x.name, params)
        return x
    key = (x.name, params)
    if key not in reading.coded:
        at_zero = params.zero_point == params.limits[0]
        if held is None and at_zero and _may_be_negative(reading, x.name):
            x = reading.op("act", [x], name=f"{name}.relu", act="relu")
        copy = reading.op("clip", [x], Clip(), name=f"{name}.coded").name
        reading.params[copy] = params
        reading.coded[key] = copy
        if x.name not in reading.params:
            reading.copies.add(copy)
    return reading.value(reading.coded[key])


def _meaning(reading: Reading, tensor: str) -> QParams | None:
    """Return what the codes mean that a tensor has the values of; None for one as it was made."""
    while tensor not in reading.params:
        made = reading.made.get(tensor)
        if made is None or made.kind not in ("reshape", "transpose"):
            return None
        tensor = made.inputs[0]
    return reading.params[tensor]


def _may_be_negative(reading: Reading, tensor: str) -> bool:
    """Tell whether the op that makes a tensor could have a ReLU fused and has none."""
    made = reading.made.get(tensor)
    while made is not None and made.kind in ("reshape", "transpose"):
        tensor = made.inputs[0]
        made = reading.made.get(tensor)
    if made is None:
        return tensor in reading.weights
    return made.act == "none" and "relu" in made.rules.activations and made.kind != "act"


def spread_back(reading: Reading, tensor: str, params: QParams) -> None:
    """Say it of a tensor, and of those that it is a reshape or transpose of."""
    while reading.params.setdefault(tensor, params) == params:
        made = reading.made.get(tensor)
        if made is None or made.kind not in ("reshape", "transpose"):
            return
        tensor = made.inputs[0]


def keep_layer_codes(
    reading: Reading,
    layer: str,
    weight: Value,
    bias: Value | None,
    *,
    axis: int,
    arrange: Callable[[Array], Array],
) -> None:
    """Keep the codes that a layer's weights are in the file, if they are the graph's.

    A layer whose weights are no codes there computes with real numbers.

    Args:
        reading: has the layer as its last op.
        layer: its name.
        weight: real, with its codes.
        bias: likewise, None for one that is no codes.
        axis: of the weight in the file that holds output channels.
        arrange: brings the weight of the file into the layout of the graph.
    """
    codes = weight.codes
    if codes is None:
        reading.real_layers.add(layer)
        return
    if codes.values is None or str(codes.values.dtype) not in ("int8", "uint8"):
        return
    middle = _MIDDLE[str(codes.values.dtype)]
    if np.any(codes.zero_points != middle) or codes.axis not in (None, axis):
        return
    op, scales = reading.builder.ops[-1], codes.scales.astype(np.float32)
    channels = op.out_shape[-1]
    if len(scales) == 1 and not op.layer.one_scale:
        scales = np.full(channels, scales[0])
    values = arrange((codes.values.astype(np.int16) - middle).astype(np.int8))
    held = None if bias is None or bias.codes is None else bias.codes.values
    if held is not None and (held.size != channels or held.dtype.kind != "i"):
        held = None
    reading.codes[layer] = HeldCodes(np.ascontiguousarray(values), scales, held)


def stored(x: Value, dtype: str) -> Value:
    """Return the tensor of the file that is the codes of a real one, of numpy's type `dtype`."""
    return replace(x, stored=dtype)


def real(reading: Reading, codes: Value, scale: Value, zero: Value | None, *, name: str) -> Value:
    """Return the real tensor of codes: of constants the values, else what they are codes of."""
    if codes.raw is not None or codes.array is not None:
        return real_constant(codes, scale, zero, None, name=name)
    if not codes.stored:
        return _from_whole_numbers(reading, codes, scale, zero, name=name)
    params = params_of(scale, zero)
    held = reading.params.get(codes.name)
    if held is not None and held != params:
        raise UnknownError("turns codes back by another scale than they were made with")
    spread_back(reading, codes.name, params)
    return replace(codes, stored="")


def _from_whole_numbers(
    reading: Reading, x: Value, scale: Value, zero: Value | None, *, name: str
) -> Value:
    """Return real numbers of whole ones that nothing quantised, such as entries of a table."""
    point = np.zeros((), np.int64) if zero is None else integers(zero)
    by = known(scale, "scale")
    if by.size != 1 or point.size != 1:
        raise UnknownError("turns numbers back by several scales that nothing quantises before it")
    made = reading.made.get(x.name)
    if made is not None and made.kind == "gather" and made.inputs[0] in made.constants:
        table = reading.weights[made.inputs[0]][0].astype(np.float32) - np.float32(point.item())
        whole = reading.constant(f"{name}.table", table * np.float32(by.item()))
        places = reading.value(made.inputs[1])
        return reading.op("gather", [whole, places], made.attributes, name=name)
    x = reading.cast(x, "float32", name=f"{name}.real")
    moved = reading.op("sub", [x, reading.number(x, float(point.item()))], name=f"{name}.moved")
    return reading.op("mul", [moved, reading.number(x, float(by.item()))], name=name)


def real_constant(
    codes: Value, scale: Value, zero: Value | None, axis: int | None, *, name: str, block: int = 0
) -> Value:
    """Return the real values of a constant, with its codes; scales are one, or lie along `axis`."""
    values, scales = integers(codes), known(scale, "scale").astype(np.float32)
    zeros = np.zeros((), values.dtype) if zero is None else integers(zero)
    if scales.size == 1:
        scales, zeros, axis = scales.reshape(()), zeros.reshape(()), None
    elif scales.ndim == 1:
        axis = axis_of(1 if axis is None else axis, values.ndim)
        shape = [-1 if place == axis else 1 for place in range(values.ndim)]
        scales, zeros = scales.reshape(shape), zeros.reshape(shape if zeros.size > 1 else ())
    else:
        axis = axis_of(1 if axis is None else axis, values.ndim)
        size = values.shape[axis]
        scales = np.repeat(scales, block, axis).take(range(size), axis)
        zeros = np.repeat(zeros, block, axis).take(range(size), axis) if zeros.ndim else zeros
        axis = None
    offset = values.astype(np.int64) - zeros.astype(np.int64)
    array = offset.astype(np.float32) * scales
    by_axis = scales.ndim <= 1 or axis is not None
    kept = Codes(scales.reshape(-1), zeros.reshape(-1), axis, values) if by_axis else None
    return Value(name, array.shape, "float32", array, kept)


def _quantize(reading: Reading, node: Node) -> Value:
    x, scale, zero = node.input(0), node.input(1), node.optional(2)
    dtype = "uint8" if zero is None else str(integers(zero).dtype)
    if x.array is None:
        return stored(note(reading, x, params_of(scale, zero), name=node.name), dtype)
    scales = known(scale, "scale")
    if scales.size != 1:
        axis = axis_of(node.attribute("axis", 1), x.rank)
        scales = scales.reshape([-1 if place == axis else 1 for place in range(x.rank)])
    zeros = np.zeros(1, np.uint8) if zero is None else integers(zero)
    zeros = zeros.reshape(scales.shape if zeros.size > 1 else ())
    limits = np.iinfo(dtype)
    whole = np.rint(x.array / scales) + zeros
    codes = np.clip(whole, limits.min, limits.max).astype(dtype)
    return reading.held(node.name, codes)


def _dequantize(reading: Reading, node: Node) -> Value:
    codes, scale, zero = node.input(0), node.input(1), node.optional(2)
    if codes.array is not None:
        axis, block = node.attribute("axis", 1), node.attribute("block_size", 0)
        return real_constant(codes, scale, zero, axis, name=node.name, block=block)
    return real(reading, codes, scale, zero, name=node.name)


def _dynamic(reading: Reading, node: Node) -> tuple[Value, Value, Value]:
    """Read codes that are found while the file runs: the real numbers themselves, times 1.

    Products of codes are the same so; whatever else reads the codes would get other numbers.
    """
    x, graph = node.input(0), reading.file.proto.graph
    given = {info.name for info in graph.output}
    codes = node.proto.output[0]
    for name in filter(None, node.proto.output):
        # A product's scale is multiplied behind it.
        fitting = _OF_CODES if name == codes else {*_OF_CODES, "Mul"}
        takers = {item.op_type for item in graph.node if name in item.input} - fitting
        if name in given or takers:
            raise UnknownError(
                f"gives codes to {min(takers, default='the outside')}, and their scale is only "
                "known while it runs"
            )
    one = reading.constant(f"{node.name}.scale", np.ones((), np.float32))
    return x, one, reading.held(f"{node.name}.zero", np.zeros((), np.uint8))


CODES: Mapping[str, Callable[[Reading, Node], Any]] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic,
}
