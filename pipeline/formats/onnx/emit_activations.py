"""How ONNX says activations and normalisations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.codes import SIGMOID, SIXTH
from pipeline.formats.layers import activation_emitter, check_gate
from pipeline.formats.onnx.axes import as_it_is
from pipeline.formats.onnx.codes import add_codes, quantize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.graph import Op
    from models.ops import Elu, L2Norm, LayerNorm, LeakyRelu, Softmax
    from pipeline.formats.onnx.places import Made, Place
    from pipeline.formats.onnx.write import Writer

    Function = Callable[[Writer, Op, str], str]
    """What an activation makes of a tensor of the file."""


def _of_one(kind: str) -> Function:
    return lambda writer, op, source: writer.file.node(kind, [source], op.name)


def _relu6(writer: Writer, op: Op, source: str) -> str:
    return writer.clipped(source, op.name)


def _silu(writer: Writer, op: Op, source: str) -> str:
    name = f"{op.name}.sigmoid"
    gate = writer.file.node("Sigmoid", [source], name)
    if writer.is_integer(op):
        gate = quantize(writer.file, name, gate, SIGMOID, name)
    return writer.file.node("Mul", [source, gate], op.name)


def _hardsigmoid(writer: Writer, op: Op, source: str) -> str:
    if op.inputs[0] not in writer.gates:
        return writer.file.node("HardSigmoid", [source], op.name, alpha=1 / 6, beta=0.5)
    # The layer before computed relu6(x + 3) already: one sixth of that is left.
    check_gate(writer.graph, op)
    if writer.is_integer(op):
        value = np.array(1 / 6, np.float32)
        real = f"{op.name}.sixth"
        sixth = add_codes(writer.file, "sixth", value, SIXTH, real=real, scale="sixth")
    else:
        sixth = writer.file.number(1 / 6)
    return writer.file.node("Mul", [source, sixth], op.name)


def _gelu(writer: Writer, op: Op, source: str) -> str:
    """Write x / 2 * (1 + erf(x / sqrt(2))), in the steps that runtimes know as one."""
    file, name = writer.file, op.name
    scaled = file.node("Div", [source, file.number(2**0.5)], f"{name}.scaled")
    step = file.node("Erf", [scaled], f"{name}.erf")
    return _half(writer, op, source, step)


def _gelu_tanh(writer: Writer, op: Op, source: str) -> str:
    """Write x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))), likewise."""
    file, name = writer.file, op.name
    cube = file.node("Pow", [source, file.number(3.0)], f"{name}.cube")
    small = file.node("Mul", [cube, file.number(0.044715)], f"{name}.small")
    inner = file.node("Add", [source, small], f"{name}.inside")
    scaled = file.node("Mul", [inner, file.number((2 / np.pi) ** 0.5)], f"{name}.scaled")
    step = file.node("Tanh", [scaled], f"{name}.tanh")
    return _half(writer, op, source, step)


def _half(writer: Writer, op: Op, source: str, step: str) -> str:
    file, name = writer.file, op.name
    gate = file.node("Add", [step, file.number(1.0)], f"{name}.gate")
    gated = file.node("Mul", [source, gate], f"{name}.gated")
    return file.node("Mul", [gated, file.number(0.5)], name)


def _mish(writer: Writer, op: Op, source: str) -> str:
    file, name = writer.file, op.name
    plus = file.node("Softplus", [source], f"{name}.softplus")
    return file.node("Mul", [source, file.node("Tanh", [plus], f"{name}.tanh")], name)


_ACTIVATIONS: Mapping[str, Function] = {
    "relu": _of_one("Relu"),
    "relu6": _relu6,
    "hardswish": _of_one("HardSwish"),
    "sigmoid": _of_one("Sigmoid"),
    "silu": _silu,
    "hardsigmoid": _hardsigmoid,
    "tanh": _of_one("Tanh"),
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "softplus": _of_one("Softplus"),
    "mish": _mish,
}


def _act(writer: Writer, op: Op) -> Made:
    function = activation_emitter(_ACTIVATIONS, op, "ONNX")
    source = writer.source(op)
    return source.gives(function(writer, op, source.name))


def _leakyrelu(writer: Writer, op: Op) -> Made:
    leaky: LeakyRelu = op.attributes
    source = writer.source(op)
    return source.gives(writer.file.node("LeakyRelu", [source.name], op.name, alpha=leaky.alpha))


def _elu(writer: Writer, op: Op) -> Made:
    elu: Elu = op.attributes
    source = writer.source(op)
    return source.gives(writer.file.node("Elu", [source.name], op.name, alpha=elu.alpha))


def _prelu(writer: Writer, op: Op) -> Made:
    axes = writer.common_axes(op)
    value = writer.file.node("PRelu", writer.operands(op, axes), op.name)
    return writer.aligned(op, value, axes)


def _softmax(writer: Writer, op: Op) -> Made:
    softmax: Softmax = op.attributes
    kind = {"softmax": "Softmax", "logsoftmax": "LogSoftmax"}[op.kind]
    axes = writer.common_axes(op)
    value = writer.file.node(
        kind, writer.operands(op, axes), op.name, axis=axes.index(softmax.axis)
    )
    return writer.aligned(op, value, axes)


def _layernorm(writer: Writer, op: Op) -> Made:
    norm: LayerNorm = op.attributes
    rank = len(op.in_shapes[0])
    inputs = [
        writer.operand(op, as_it_is(len(shape)), number)
        for number, shape in enumerate(op.in_shapes)
    ]
    value = writer.file.node(
        "LayerNormalization", inputs, op.name, axis=rank - norm.axes_count, epsilon=norm.epsilon
    )
    return writer.aligned(op, value, as_it_is(rank))


def _l2norm(writer: Writer, op: Op) -> Made:
    norm: L2Norm = op.attributes
    axes, file = writer.common_axes(op), writer.file
    (source,) = writer.operands(op, axes)
    length = file.node(
        "ReduceL2", [source], f"{op.name}.length", axes=[axes.index(norm.axis)], keepdims=1
    )
    least = file.number(norm.epsilon**0.5)
    divisor = file.node("Clip", [length, least], f"{op.name}.divisor")
    return writer.aligned(op, file.node("Div", [source, divisor], op.name), axes)


EMITTERS: Mapping[str, Callable[[Writer, Op], Made | Place]] = {
    "act": _act,
    "leakyrelu": _leakyrelu,
    "elu": _elu,
    "prelu": _prelu,
    "softmax": _softmax,
    "logsoftmax": _softmax,
    "layernorm": _layernorm,
    "l2norm": _l2norm,
}
