"""Reads activations."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from models.ops import Compare, Elu, LeakyRelu, Softmax, Unary
from pipeline.formats.onnx.node import Node, UnknownError, Value, axis_of
from pipeline.formats.onnx.read_arithmetic import clip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.formats.onnx.reading import Reading

_SOFTMAX_OF_ONE_AXIS = 13
"""The opset from which a softmax is over one axis and no more over all from one on."""


def _act(act: str, reading: Reading, node: Node) -> Value:
    return reading.op("act", [node.input(0)], name=node.name, act=act)


def _gelu(reading: Reading, node: Node) -> Value:
    tanh = node.attribute("approximate", "none") == "tanh"
    return _act("gelu_tanh" if tanh else "gelu", reading, node)


def _swish(reading: Reading, node: Node) -> Value:
    """Read x * sigmoid(alpha * x)."""
    x, alpha = node.input(0), node.attribute("alpha", 1.0)
    if alpha == 1:
        return _act("silu", reading, node)
    gate = _linear(reading, x, alpha, 0.0, name=f"{node.name}.scaled")
    gate = reading.op("act", [gate], name=f"{node.name}.gate", act="sigmoid")
    return reading.op("mul", [x, gate], name=node.name)


def _linear(reading: Reading, x: Value, by: float, plus: float, *, name: str) -> Value:
    """Return x * by + plus."""
    if by != 1:
        x = reading.op("mul", [x, reading.number(x, by)], name=f"{name}.scaled")
    if plus != 0:
        x = reading.op("add", [x, reading.number(x, plus)], name=f"{name}.moved")
    return x


def _hardsigmoid(reading: Reading, node: Node) -> Value:
    x = node.input(0)
    alpha, beta = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return _act("hardsigmoid", reading, node)
    line = _linear(reading, x, alpha, beta, name=node.name)
    return clip(reading, line, 0.0, 1.0, name=node.name)


def _leakyrelu(reading: Reading, node: Node) -> Value:
    attributes = LeakyRelu(node.attribute("alpha", 0.01))
    return reading.op("leakyrelu", [node.input(0)], attributes, name=node.name)


def _elu(reading: Reading, node: Node) -> Value:
    attributes = Elu(node.attribute("alpha", 1.0))
    return reading.op("elu", [node.input(0)], attributes, name=node.name)


def _selu(reading: Reading, node: Node) -> Value:
    alpha = node.attribute("alpha", 1.67326319217681884765625)
    gamma = node.attribute("gamma", 1.05070102214813232421875)
    bent = reading.op("elu", [node.input(0)], Elu(alpha), name=f"{node.name}.elu")
    return reading.op("mul", [bent, reading.number(bent, gamma)], name=node.name)


def _celu(reading: Reading, node: Node) -> Value:
    """Read max(x, 0) + min(alpha * (exp(x / alpha) - 1), 0), an ELU of x / alpha times alpha."""
    alpha = node.attribute("alpha", 1.0)
    x = _linear(reading, node.input(0), 1 / alpha, 0.0, name=f"{node.name}.in")
    bent = reading.op("elu", [x], Elu(1.0), name=f"{node.name}.elu")
    return reading.op("mul", [bent, reading.number(bent, alpha)], name=node.name)


def _prelu(reading: Reading, node: Node) -> Value:
    x, slope = node.input(0), node.input(1)
    if slope.array is None:
        raise UnknownError("computes its slopes while it runs")
    if slope.rank > x.rank:
        raise UnknownError(f"has slopes of shape {slope.shape} for {x.shape}")
    slope = reading.ranked(slope, x.rank, name=node.name)
    return reading.op("prelu", [x, slope], name=node.name)


def _softsign(reading: Reading, node: Node) -> Value:
    x = node.input(0)
    size = reading.op("unary", [x], Unary("abs"), name=f"{node.name}.abs")
    below = _linear(reading, size, 1.0, 1.0, name=node.name)
    return reading.op("div", [x, below], name=node.name)


def _thresholded(reading: Reading, node: Node) -> Value:
    x = node.input(0)
    limit = reading.number(x, node.attribute("alpha", 1.0))
    above = reading.op("compare", [x, limit], Compare("greater"), name=f"{node.name}.above")
    return reading.op("where", [above, x, reading.number(x, 0.0)], name=node.name)


def _softmax(kind: str, reading: Reading, node: Node) -> Value:
    x = node.input(0)
    old = node.opset < _SOFTMAX_OF_ONE_AXIS
    axis = axis_of(node.attribute("axis", 1 if old else -1), max(x.rank, 1))
    if not old or prod(x.shape[axis + 1 :]) == 1:
        return reading.op(kind, [x], Softmax(axis), name=node.name)
    if prod(x.shape[axis:]) == x.shape[axis]:
        return reading.op(kind, [x], Softmax(axis), name=node.name)
    rows = prod(x.shape[:axis])
    flat = reading.reshape(x, (rows, prod(x.shape) // rows), name=f"{node.name}.flat")
    made = reading.op(kind, [flat], Softmax(1), name=f"{node.name}.rows")
    return reading.reshape(made, x.shape, name=node.name)


def _dropout(reading: Reading, node: Node) -> Value:
    del reading
    node.gives_only()
    training = node.optional(2)
    if training is not None and (training.array is None or bool(np.any(training.array))):
        raise UnknownError("drops values, as in training")
    return node.input(0)


_ACTS = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "Mish": "mish",
    "HardSwish": "hardswish",
}

ACTIVATING: Mapping[str, Callable[[Reading, Node], Any]] = {
    **{kind: partial(_act, act) for kind, act in _ACTS.items()},
    "Gelu": _gelu,
    "Swish": _swish,
    "HardSigmoid": _hardsigmoid,
    "LeakyRelu": _leakyrelu,
    "Elu": _elu,
    "Selu": _selu,
    "Celu": _celu,
    "PRelu": _prelu,
    "Softsign": _softsign,
    "ThresholdedRelu": _thresholded,
    "Softmax": partial(_softmax, "softmax"),
    "LogSoftmax": partial(_softmax, "logsoftmax"),
    "Dropout": _dropout,
    "Identity": lambda _, node: node.input(0),
}
