"""Reads ops that onnxruntime makes of several when it saves an optimised file."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from models.ops import LeakyRelu, Matmul
from pipeline.formats.onnx.node import Node, UnknownError, Value
from pipeline.formats.onnx.read_arithmetic import clip
from pipeline.formats.onnx.read_layers import read_conv, read_gemm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.formats.onnx.reading import Reading

_ACTS = {"Relu": "relu", "Sigmoid": "sigmoid", "Tanh": "tanh"}


def _activated(reading: Reading, node: Node, x: Value) -> Value:
    """Add the activation that an op ends with."""
    act = node.attribute("activation", "")
    numbers = node.attribute("activation_params", ())
    name = f"{node.name}.{act}"
    if act in _ACTS:
        return reading.op("act", [x], name=name, act=_ACTS[act])
    if act == "LeakyRelu":
        alpha = numbers[0] if numbers else node.attribute("leaky_relu_alpha", 0.01)
        return reading.op("leakyrelu", [x], LeakyRelu(alpha), name=name)
    if act == "Clip" and len(numbers) == 2:
        return clip(reading, x, *numbers, name=name)
    if act:
        raise UnknownError(f"ends with the activation {act}")
    return x


def _conv(reading: Reading, node: Node) -> Value:
    made = read_conv(reading, node)
    if (added := node.optional(3)) is not None:
        made = reading.op("add", [made, added], name=f"{node.name}.sum")
    return _activated(reading, node, made)


def _gemm(reading: Reading, node: Node) -> Value:
    return _activated(reading, node, read_gemm(reading, node))


def _matmul(reading: Reading, node: Node) -> Value:
    if node.attribute("transBatchA", 0) or node.attribute("transBatchB", 0):
        raise UnknownError("turns the axes before its matrices")
    attributes = Matmul(bool(node.attribute("transA", 0)), bool(node.attribute("transB", 0)))
    both = reading.aligned([node.input(0), node.input(1)], name=node.name)
    made = reading.op("matmul", both, attributes, name=node.name)
    alpha = node.attribute("alpha", 1.0)
    if alpha == 1:
        return made
    return reading.op("mul", [made, reading.number(made, alpha)], name=f"{node.name}.scaled")


def _gelu(act: str, reading: Reading, node: Node) -> Value:
    x, bias = node.input(0), node.optional(1)
    if bias is not None:
        x = reading.op("add", reading.aligned([x, bias], name=node.name), name=f"{node.name}.sum")
    return reading.op("act", [x], name=node.name, act=act)


def _quick_gelu(reading: Reading, node: Node) -> Value:
    x = node.input(0)
    scaled = reading.op(
        "mul", [x, reading.number(x, node.attribute("alpha", 1.702))], name=f"{node.name}.scaled"
    )
    gate = reading.op("act", [scaled], name=f"{node.name}.gate", act="sigmoid")
    return reading.op("mul", [x, gate], name=node.name)


FUSED: Mapping[str, Callable[[Reading, Node], Any]] = {
    "FusedConv": _conv,
    "FusedGemm": _gemm,
    "FusedMatMul": _matmul,
    "BiasGelu": partial(_gelu, "gelu"),
    "FastGelu": partial(_gelu, "gelu_tanh"),
    "QuickGelu": _quick_gelu,
}
