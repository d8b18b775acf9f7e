"""Reads ops that take and give codes as the real ones that they stand for."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.formats.onnx.node import Codes, Node, UnknownError, Value, known
from pipeline.formats.onnx.read_activating import ACTIVATING
from pipeline.formats.onnx.read_arithmetic import ARITHMETIC
from pipeline.formats.onnx.read_codes import (
    integers,
    note,
    params_of,
    real,
    real_constant,
    spread_back,
    stored,
)
from pipeline.formats.onnx.read_layers import convolve, multiply, read_gemm
from pipeline.formats.onnx.read_pooling import POOLING
from pipeline.formats.onnx.read_shaping import SHAPING
from pipeline.formats.onnx.read_slicing import SLICING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.formats.onnx.reading import Reading

MOVING: Mapping[str, Callable[[Reading, Node], Any]] = {
    **SLICING,
    **{
        kind: SHAPING[kind]
        for kind in (
            *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Concat", "Expand"),
            *("Tile", "Gather", "DepthToSpace", "SpaceToDepth"),
        )
    },
    "MaxPool": POOLING["MaxPool"],
    "Identity": ACTIVATING["Identity"],
}
"""Ops that take codes where the file has them, and give some of them again."""


def move(reading: Reading, node: Node) -> Any:
    """Read an op of `MOVING` that takes codes: what it gives are codes of the same meaning.

    Raises:
        UnknownError: the codes of its inputs have different meanings, or it is another op.
    """
    reader = MOVING.get(node.proto.op_type)
    codes = [value for value in node.inputs if value is not None and value.stored]
    params = {reading.params.get(value.name) for value in codes}
    if reader is None or len(params) > 1:
        raise UnknownError("computes with codes as if they were numbers")
    (meaning,), dtype = params, codes[0].stored
    if node.proto.op_type == "Pad":
        raise UnknownError("puts codes around codes")
    inputs = [value and replace(value, stored="") for value in node.inputs]
    found = reader(reading, Node(node.proto, node.opset, inputs))
    results = found if isinstance(found, tuple) else (found,)
    if meaning is not None:
        for value in results:
            spread_back(reading, value.name, meaning)
    return tuple(stored(value, dtype) for value in results)


def _result(reading: Reading, node: Node, made: Value, scale: Value, zero: Value | None) -> Value:
    dtype = "uint8" if zero is None else str(integers(zero).dtype)
    return stored(note(reading, made, params_of(scale, zero), name=node.name), dtype)


def _real(reading: Reading, node: Node, place: int) -> Value:
    """Return the real tensor of three inputs: codes, scale, zero point."""
    name = f"{node.name}.input{place}"
    codes, scale, zero = node.input(place), node.input(place + 1), node.optional(place + 2)
    return real(reading, codes, scale, zero, name=name)


def _conv(reading: Reading, node: Node) -> Value:
    x = _real(reading, node, 0)
    codes, scale, zero = node.input(3), node.input(4), node.optional(5)
    name = f"{node.name}.weight"
    weight = real_constant(codes, scale, zero, 0, name=name)
    bias = node.optional(8)
    if bias is not None:
        bias = _bias(node, bias, node.input(1), scale)
    made = convolve(reading, node, x, weight, bias)
    return _result(reading, node, made, node.input(6), node.optional(7))


def _bias(node: Node, bias: Value, in_scale: Value, scale: Value) -> Value:
    """Return the real bias of a layer, which counts input scale * weight scale."""
    values = integers(bias)
    scales = known(in_scale, "scale").reshape(-1) * known(scale, "scale").reshape(-1)
    array = (values * scales).astype(np.float32)
    codes = Codes(scales, np.zeros(1, np.int32), 0, values)
    return Value(f"{node.name}.bias", array.shape, "float32", array, codes)


def _matmul(reading: Reading, node: Node) -> Value:
    a = _real(reading, node, 0)
    codes, scale, zero = node.input(3), node.input(4), node.optional(5)
    if codes.array is None:
        b = _real(reading, node, 3)
    else:
        axis = codes.rank - 1
        b = real_constant(codes, scale, zero, axis, name=f"{node.name}.weight")
    made = multiply(reading, node, a, b)
    return _result(reading, node, made, node.input(6), node.optional(7))


def _gemm(reading: Reading, node: Node) -> Value:
    a = _real(reading, node, 0)
    codes, scale, zero = node.input(3), node.input(4), node.optional(5)
    axis = 0 if node.attribute("transB", 0) else 1
    b = real_constant(codes, scale, zero, axis, name=f"{node.name}.weight")
    c = node.optional(6)
    bias = None if c is None else _bias(node, c, node.input(1), scale)
    made = read_gemm(reading, Node(node.proto, node.opset, (a, b, bias)))
    if node.optional(7) is None:
        return made
    return _result(reading, node, made, node.input(7), node.optional(8))


def _of_reals(count: int, read: Any, reading: Reading, node: Node) -> Value:
    """Read an op of `count` quantised tensors, and the scale of its result behind them."""
    values = [_real(reading, node, 3 * place) for place in range(count)]
    if node.attribute("channels_last", 0):
        raise UnknownError("has its channels last")
    made = read(reading, Node(node.proto, node.opset, values))
    return _result(reading, node, made, node.input(3 * count), node.optional(3 * count + 1))


def _concat(reading: Reading, node: Node) -> Value:
    values = [_real(reading, node, place) for place in range(2, len(node.inputs), 3)]
    made = SHAPING["Concat"](reading, Node(node.proto, node.opset, values))
    return _result(reading, node, made, node.input(0), node.optional(1))


def _sums_of_codes(reading: Reading, node: Node, *, of_maps: bool) -> Value:
    """Read a product of codes without scales; those stand behind it in the file.

    Its first input is real already (`read_codes`), and its zero point none.
    """
    x, codes, zero = node.input(0), node.input(1), node.optional(3)
    point = node.optional(2)
    if x.stored or (point is not None and np.any(known(point, "zero point"))):
        raise UnknownError("multiplies codes whose scales are fixed")
    values = integers(codes)
    zeros = np.zeros(1, values.dtype) if zero is None else integers(zero)
    if zeros.size > 1:
        shape = [1] * values.ndim
        shape[0 if of_maps else -1] = -1
        zeros = zeros.reshape(shape)
    weight = values.astype(np.float32) - zeros.astype(np.float32)
    held = reading.constant(codes.name, weight)
    if of_maps:
        return convolve(reading, node, x, held, None)
    return multiply(reading, node, x, held)


INTEGER: Mapping[str, Callable[[Reading, Node], Any]] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "QGemm": _gemm,
    "QLinearConcat": _concat,
    "QLinearAdd": partial(_of_reals, 2, ARITHMETIC["Add"]),
    "QLinearMul": partial(_of_reals, 2, ARITHMETIC["Mul"]),
    "QLinearGlobalAveragePool": partial(_of_reals, 1, POOLING["GlobalAveragePool"]),
    "QLinearAveragePool": partial(_of_reals, 1, POOLING["AveragePool"]),
    "QLinearSigmoid": partial(_of_reals, 1, ACTIVATING["Sigmoid"]),
    "QLinearLeakyRelu": partial(_of_reals, 1, ACTIVATING["LeakyRelu"]),
    "QLinearSoftmax": partial(_of_reals, 1, ACTIVATING["Softmax"]),
    "MatMulInteger": partial(_sums_of_codes, of_maps=False),
    "ConvInteger": partial(_sums_of_codes, of_maps=True),
}
