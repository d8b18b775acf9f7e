"""Activations that are ops of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.ops.api import Array, Named, OpKind, broadcast_shape, check_axes, never, same_shape

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.graph import Op
    from models.ops.api import Shape, Shapes


@dataclass(frozen=True, slots=True)
class LeakyRelu(Named):
    """Of x where it is positive, alpha * x elsewhere."""

    alpha: float = 0.01


@dataclass(frozen=True, slots=True)
class Elu(Named):
    """Of x where it is positive, alpha * (exp(x) - 1) elsewhere."""

    alpha: float = 1.0


@dataclass(frozen=True, slots=True)
class Softmax(Named):
    """Of a softmax over one axis."""

    axis: int


def _softmax_shape(shapes: Shapes, softmax: Softmax) -> Shape:
    check_axes(shapes, softmax.axis)
    return shapes[0]


def _prelu_shape(shapes: Shapes, _: object) -> Shape:
    if broadcast_shape(shapes, None) != shapes[0]:
        raise ValueError(f"reads {shapes[0]} and slopes of {shapes[1]}, which is larger")
    return shapes[0]


def _softmax(op: Op, arrays: Sequence[Array]) -> Array:
    axis = op.attributes.axis
    powers = np.exp(arrays[0] - arrays[0].max(axis=axis, keepdims=True))
    shares: Array = powers / powers.sum(axis=axis, keepdims=True)
    return shares


def _logsoftmax(op: Op, arrays: Sequence[Array]) -> Array:
    axis = op.attributes.axis
    below = arrays[0] - arrays[0].max(axis=axis, keepdims=True)
    logs: Array = below - np.log(np.exp(below).sum(axis=axis, keepdims=True))
    return logs


def _negative(x: Array, slope: Array | float) -> Array:
    return np.where(x >= 0, x, x * slope)


ROWS: Mapping[str, OpKind] = {
    "act": OpKind(
        shape=same_shape,
        reference=lambda _, arrays: arrays[0],
        activations=(
            *("hardswish", "silu", "sigmoid", "hardsigmoid"),
            *("relu", "relu6", "tanh", "gelu", "gelu_tanh", "softplus", "mish"),
        ),
        integer=lambda op: op.act not in ("softplus", "mish"),
        fixed_scale={"sigmoid": (1 / 256, -128), "tanh": (1 / 128, 0)},
        # LiteRT refuses a hard-swish beyond 64.
        finest_scale={"hardswish": 2.0**-5},
    ),
    "leakyrelu": OpKind(
        shape=same_shape,
        reference=lambda op, arrays: _negative(
            arrays[0], arrays[0].dtype.type(op.attributes.alpha)
        ),
        attributes=LeakyRelu,
        keeps_range=True,
    ),
    "elu": OpKind(
        shape=same_shape,
        reference=lambda op, arrays: np.where(
            arrays[0] >= 0, arrays[0], op.attributes.alpha * np.expm1(np.minimum(arrays[0], 0))
        ).astype(arrays[0].dtype),
        attributes=Elu,
        integer=never,
    ),
    "prelu": OpKind(
        shape=_prelu_shape,
        reference=lambda _, arrays: _negative(*arrays),
        inputs=2,
    ),
    "softmax": OpKind(
        shape=_softmax_shape,
        reference=_softmax,
        attributes=Softmax,
        keeps_batch=lambda op: op.attributes.axis != 0,
        fixed_scale={"none": (1 / 256, -128)},
    ),
    "logsoftmax": OpKind(
        shape=_softmax_shape,
        reference=_logsoftmax,
        attributes=Softmax,
        keeps_batch=lambda op: op.attributes.axis != 0,
        fixed_scale={"none": (16 / 256, 127)},
    ),
}
