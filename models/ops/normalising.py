"""Normalisations. Their parameters are constants that they read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.ops.api import FUSED, Array, Named, OpKind, check_axes, never

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.graph import Op
    from models.ops.api import Shape, Shapes


@dataclass(frozen=True, slots=True)
class BatchNorm(Named):
    """Of (x - mean) / sqrt(variance + epsilon) * scale + shift over the last axis.

    The op reads x, scale, shift, mean, variance.
    """

    epsilon: float = 1e-5


@dataclass(frozen=True, slots=True)
class LayerNorm(Named):
    """Of the same with mean and variance of each sample over its last `axes_count` axes.

    The op reads x, scale, shift, both of the shape of those axes.
    """

    axes_count: int = 1
    epsilon: float = 1e-5


@dataclass(frozen=True, slots=True)
class L2Norm(Named):
    """Of x / sqrt(max(sum of squares over `axis`, epsilon))."""

    axis: int
    epsilon: float = 1e-12


def _batchnorm_shape(shapes: Shapes, _: BatchNorm) -> Shape:
    return _check_parameters(shapes, shapes[0][-1:])


def _layernorm_shape(shapes: Shapes, norm: LayerNorm) -> Shape:
    if not 1 <= norm.axes_count <= len(shapes[0]):
        raise ValueError(f"normalises {norm.axes_count} axes of {shapes[0]}")
    return _check_parameters(shapes, shapes[0][-norm.axes_count :])


def _check_parameters(shapes: Shapes, wanted: Shape) -> Shape:
    if other := [shape for shape in shapes[1:] if shape != wanted]:
        raise ValueError(f"has parameters of shape {other[0]}; {shapes[0]} needs {wanted}")
    return shapes[0]


def _l2norm_shape(shapes: Shapes, norm: L2Norm) -> Shape:
    check_axes(shapes, norm.axis)
    return shapes[0]


def _batchnorm(op: Op, arrays: Sequence[Array]) -> Array:
    x, scale, shift, mean, variance = arrays
    gain = scale / np.sqrt(variance + variance.dtype.type(op.attributes.epsilon))
    normalised: Array = (x - mean) * gain + shift
    return normalised


def _layernorm(op: Op, arrays: Sequence[Array]) -> Array:
    x, scale, shift = arrays
    axes = tuple(range(x.ndim - op.attributes.axes_count, x.ndim))
    centred = x - x.mean(axis=axes, keepdims=True)
    variance = np.square(centred).mean(axis=axes, keepdims=True)
    normalised: Array = centred / np.sqrt(variance + x.dtype.type(op.attributes.epsilon))
    return normalised * scale + shift


def _l2norm(op: Op, arrays: Sequence[Array]) -> Array:
    (x,) = arrays
    squares = np.square(x).sum(axis=op.attributes.axis, keepdims=True)
    unit: Array = x / np.sqrt(np.maximum(squares, x.dtype.type(op.attributes.epsilon)))
    return unit


ROWS: Mapping[str, OpKind] = {
    "batchnorm": OpKind(
        shape=_batchnorm_shape,
        reference=_batchnorm,
        attributes=BatchNorm,
        integer=never,
        inputs=5,
        activations=FUSED,
        keeps_batch=lambda op: len(op.in_shapes[0]) > 1,
    ),
    "layernorm": OpKind(
        shape=_layernorm_shape,
        reference=_layernorm,
        attributes=LayerNorm,
        integer=never,
        inputs=3,
        keeps_batch=lambda op: op.attributes.axes_count < len(op.in_shapes[0]),
    ),
    "l2norm": OpKind(
        shape=_l2norm_shape,
        reference=_l2norm,
        attributes=L2Norm,
        integer=lambda op: op.attributes.axis == len(op.out_shape) - 1,
        keeps_batch=lambda op: op.attributes.axis != 0,
        fixed_scale={"none": (1 / 128, 0)},
    ),
}
