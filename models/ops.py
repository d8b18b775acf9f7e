"""What kinds of op there are: one row each, and all that is asked of a kind is in its row.

A row says which attributes an op of the kind has, the shape of what it gives, the shape and axes
of its weights, what it computes (a numpy reference that every executor and every file is held
against), which activations it can be fused with, and what integer kernels fix about its scales.
Adding a kind is a row here and a few lines in each writer; `models.execute` and `models.integer`
fall back to the reference where they have no faster or exact form of their own. No torch.

Shapes are whole, the batch dimension of 1 included, and channels are last: (1, height, width,
channels) for maps, (1, units) for vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.activations import ACTIVATIONS, FUSED_ACTIVATIONS
from models.window import Window, window_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from models.graph import Op

Shape = tuple[int, ...]
Shapes = tuple[Shape, ...]
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Attributes:
    """Of a kind whose ops have none. `key` is the part of attributes in `Op.key`."""

    @property
    def key(self) -> str:
        """Return what stands in the key of an op without a window."""
        return "k1s1p0.0.0.0"


@dataclass(frozen=True, slots=True)
class Mean(Attributes):
    """Of a mean over all positions of a map: (1, 1, 1, C) if `keepdims`, else (1, C)."""

    keepdims: bool = True


@dataclass(frozen=True, slots=True)
class Dense(Attributes):
    """Of a dense layer: its number of units."""

    units: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv(Window):
    """Of a convolution to `out` channels; each of `groups` sees its own share of the inputs."""

    out: int
    groups: int = 1

    @property
    def key(self) -> str:
        """Return the window, and the groups where there are several."""
        return window_key(self) + (f"g{self.groups}" if self.groups != 1 else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Depthwise(Window):
    """Of a convolution that makes `multiplier` channels of each channel by itself."""

    multiplier: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What the weight of a layer is like; its bias has one value for each output channel.

    Attributes:
        shape: of the weight of an op, in TFLite's layout.
        channel_axis: its axis that holds output channels.
        from_torch: how torch's axes, which are ONNX's, are permuted into this layout.
        normalised: whether a batch normalisation is folded into it, as far as papers count.
        one_scale: whether a runtime may want one scale for all its outputs.
    """

    shape: Callable[[Op], Shape]
    channel_axis: int
    from_torch: tuple[int, ...]
    normalised: bool = True
    one_scale: bool = False

    @property
    def to_torch(self) -> tuple[int, ...]:
        """Return how this layout's axes are permuted into torch's."""
        return tuple(self.from_torch.index(axis) for axis in range(len(self.from_torch)))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpKind:
    """A row of the table.

    Attributes:
        shape: the output's shape for those of the inputs and attributes; raises ValueError with
            the end of a sentence that says why there is none.
        reference: what an op computes before its fused activation, from the values of its inputs
            (any number of samples in place of the batch dimension) and a layer's weight and bias.
        attributes: the class of its attributes.
        inputs: how many tensors it reads, a layer's weights not counted.
        layer: what its weights are like; None if it has none.
        activations: those that it can be fused with.
        keeps_scale: whether its values are among those of its input, in the same number format.
        keeps_range: whether, without data, the range of its input is the best guess of its own.
        fixed_scale: activation -> the output's (scale, zero point) that integer kernels fix.
        finest_scale: activation -> the smallest output scale, as a share of the largest of its
            inputs, that integer kernels take.
    """

    shape: Callable[[Shapes, Any], Shape]
    reference: Callable[[Op, Sequence[Array]], Array]
    attributes: type[Attributes | Window] = Attributes
    inputs: int = 1
    layer: Layer | None = None
    activations: tuple[str, ...] = FUSED_ACTIVATIONS
    keeps_scale: bool = False
    keeps_range: bool = False
    fixed_scale: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    finest_scale: Mapping[str, float] = field(default_factory=dict)

    def macs(self, op: Op) -> int:
        """Count multiply-accumulates; only layers have any."""
        if self.layer is None:
            return 0
        return prod(self.layer.shape(op)) * (prod(op.out_shape) // op.out_shape[-1])


def compute(op: Op, arrays: Sequence[Array]) -> Array:
    """Return what an op gives, its fused activation included, by the reference.

    Args:
        op: the op.
        arrays: the values of its inputs, shaped as it says but for N samples in place of the
            batch dimension of 1; a layer's weight and bias.
    """
    return ACTIVATIONS[op.act](op.rules.reference(op, arrays))


def _map_shape(shapes: Shapes) -> tuple[int, int, int]:
    if len(shapes[0]) != 4:
        raise ValueError(f"reads {shapes[0]}, which is no map (batch, height, width, channels)")
    return shapes[0][1:]


def _conv_shape(shapes: Shapes, conv: Conv) -> Shape:
    height, width, channels = _map_shape(shapes)
    if conv.groups < 1 or channels % conv.groups or conv.out % conv.groups:
        raise ValueError(f"cuts {channels} -> {conv.out} channels into {conv.groups} groups")
    return (shapes[0][0], *conv.positions(height, width), conv.out)


def _depthwise_shape(shapes: Shapes, depthwise: Depthwise) -> Shape:
    height, width, channels = _map_shape(shapes)
    return (shapes[0][0], *depthwise.positions(height, width), channels * depthwise.multiplier)


def _maxpool_shape(shapes: Shapes, window: Window) -> Shape:
    height, width, channels = _map_shape(shapes)
    top, bottom, left, right = window.padding
    if max(top, bottom) >= window.reach[0] or max(left, right) >= window.reach[1]:
        raise ValueError(f"has the window {window.key}, which can lie wholly in its padding")
    return (shapes[0][0], *window.positions(height, width), channels)


def _mean_shape(shapes: Shapes, mean: Mean) -> Shape:
    *_, channels = _map_shape(shapes)
    return (shapes[0][0], 1, 1, channels) if mean.keepdims else (shapes[0][0], channels)


def _dense_shape(shapes: Shapes, dense: Dense) -> Shape:
    if len(shapes[0]) != 2:
        raise ValueError(f"reads {shapes[0]}, which is no vector (batch, units)")
    return shapes[0][0], dense.units


def _broadcast_shape(shapes: Shapes, _: Attributes) -> Shape:
    """Dimensions are equal or 1. One rank, so that the batch of all stands at one place."""
    first, second = shapes
    equal_or_one = all(a == b or 1 in (a, b) for a, b in zip(first, second, strict=False))
    if len(first) != len(second) or not equal_or_one:
        raise ValueError(f"reads {first} and {second}, whose dimensions are neither equal nor 1")
    return tuple(map(max, first, second))


def _convolve(op: Op, arrays: Sequence[Array]) -> Array:
    x, weight, bias = arrays
    conv: Conv = op.attributes
    groups = np.split(weight, conv.groups)
    sums = np.zeros((len(x), *op.out_shape[1:]), x.dtype)
    outputs = np.split(sums, conv.groups, axis=3)  # views
    for row, column, values in conv.over(x, 0):
        shares = np.split(values, conv.groups, axis=3)
        for output, share, group in zip(outputs, shares, groups, strict=True):
            output[...] += share @ group[:, row, column].T
    return sums + bias


def _convolve_depthwise(op: Op, arrays: Sequence[Array]) -> Array:
    x, weight, bias = arrays
    depthwise: Depthwise = op.attributes
    sums = np.zeros((len(x), *op.out_shape[1:]), x.dtype)
    for row, column, values in depthwise.over(x, 0):
        sums += np.repeat(values, depthwise.multiplier, axis=3) * weight[0, row, column]
    return sums + bias


def _maximum(op: Op, arrays: Sequence[Array]) -> Array:
    window: Window = op.attributes
    parts = [values for _, _, values in window.over(arrays[0], -np.inf)]
    largest: Array = np.maximum.reduce(parts)
    return largest


def _average(op: Op, arrays: Sequence[Array]) -> Array:
    mean: Mean = op.attributes
    average: Array = arrays[0].mean((1, 2), keepdims=mean.keepdims)
    return average


KINDS: Mapping[str, OpKind] = {
    "conv": OpKind(
        shape=_conv_shape,
        reference=_convolve,
        attributes=Conv,
        layer=Layer(
            shape=lambda op: (
                op.attributes.out,
                *op.attributes.kernel,
                op.in_shapes[0][3] // op.attributes.groups,
            ),
            channel_axis=0,
            from_torch=(0, 2, 3, 1),
        ),
    ),
    "depthwise": OpKind(
        shape=_depthwise_shape,
        reference=_convolve_depthwise,
        attributes=Depthwise,
        layer=Layer(
            shape=lambda op: (1, *op.attributes.kernel, op.out_shape[3]),
            channel_axis=3,
            from_torch=(1, 2, 3, 0),
        ),
    ),
    "dense": OpKind(
        shape=_dense_shape,
        reference=lambda _, arrays: arrays[0] @ arrays[1].T + arrays[2],
        attributes=Dense,
        layer=Layer(
            shape=lambda op: (op.attributes.units, op.in_shapes[0][1]),
            channel_axis=0,
            from_torch=(0, 1),
            normalised=False,
            one_scale=True,
        ),
    ),
    "add": OpKind(
        shape=_broadcast_shape,
        reference=lambda _, arrays: arrays[0] + arrays[1],
        inputs=2,
        # LiteRT aborts the process beyond 2**20.
        finest_scale=dict.fromkeys(FUSED_ACTIVATIONS, 2.0**-10),
    ),
    "mul": OpKind(
        shape=_broadcast_shape,
        reference=lambda _, arrays: arrays[0] * arrays[1],
        inputs=2,
        keeps_range=True,
    ),
    "mean": OpKind(
        shape=_mean_shape,
        reference=_average,
        attributes=Mean,
        activations=("none",),
        keeps_range=True,
    ),
    "maxpool": OpKind(
        shape=_maxpool_shape,
        reference=_maximum,
        attributes=Window,
        activations=("none",),
        keeps_scale=True,
        keeps_range=True,
    ),
    "act": OpKind(
        shape=lambda shapes, _: shapes[0],
        reference=lambda _, arrays: arrays[0],
        activations=("hardswish", "silu", "sigmoid", "hardsigmoid"),
        fixed_scale={"sigmoid": (1 / 256, -128)},
        # LiteRT refuses a hard-swish beyond 64.
        finest_scale={"hardswish": 2.0**-5},
    ),
}
