"""Layers: ops that own a weight and a bias."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from models.ops.api import FUSED, Array, Attributes, Layer, OpKind, layer_macs, map_shape
from models.window import Pair, Window, window_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.graph import Op
    from models.ops.api import Shape, Shapes


@dataclass(frozen=True, slots=True)
class Dense(Attributes):
    """Of a dense layer over the last axis: its number of units."""

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
class Deconv(Window):
    """Of a transposed convolution: every input position is spread over a window of the output.

    Attributes:
        out: output channels.
        groups: each sees its own share of the inputs.
        extra: rows and columns that the output has more, at its end. `padding` is cut off.
    """

    out: int
    groups: int = 1
    extra: Pair = (0, 0)

    @property
    def key(self) -> str:
        """Return the window, and what differs from the usual."""
        groups = f"g{self.groups}" if self.groups != 1 else ""
        return window_key(self) + groups + (f"e{self.extra}" if any(self.extra) else "")


def _conv_shape(shapes: Shapes, conv: Conv) -> Shape:
    height, width, channels = map_shape(shapes)
    _check_groups(channels, conv)
    return (shapes[0][0], *conv.positions(height, width), conv.out)


def _check_groups(channels: int, conv: Conv | Deconv) -> None:
    if conv.groups < 1 or channels % conv.groups or conv.out % conv.groups:
        raise ValueError(f"cuts {channels} -> {conv.out} channels into {conv.groups} groups")


def _depthwise_shape(shapes: Shapes, depthwise: Depthwise) -> Shape:
    height, width, channels = map_shape(shapes)
    return (shapes[0][0], *depthwise.positions(height, width), channels * depthwise.multiplier)


def _deconv_shape(shapes: Shapes, deconv: Deconv) -> Shape:
    height, width, channels = map_shape(shapes)
    _check_groups(channels, deconv)
    if min(*deconv.kernel, *deconv.stride, *deconv.dilation) < 1 or min(deconv.extra) < 0:
        raise ValueError(f"has the window {deconv.key}, whose numbers cannot all be")
    top, bottom, left, right = deconv.padding
    rows = (height - 1) * deconv.stride[0] + deconv.reach[0] - top - bottom + deconv.extra[0]
    columns = (width - 1) * deconv.stride[1] + deconv.reach[1] - left - right + deconv.extra[1]
    if rows < 1 or columns < 1:
        raise ValueError(f"has the window {deconv.key}, which leaves nothing of the output")
    return shapes[0][0], rows, columns, deconv.out


def _dense_shape(shapes: Shapes, dense: Dense) -> Shape:
    if len(shapes[0]) < 2:
        raise ValueError(f"reads {shapes[0]}, which is no vector (batch, units)")
    return (*shapes[0][:-1], dense.units)


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


def _convolve_transposed(op: Op, arrays: Sequence[Array]) -> Array:
    x, weight, bias = arrays
    deconv: Deconv = op.attributes
    (down, across), (dilate_down, dilate_across) = deconv.stride, deconv.dilation
    top, bottom, left, right = deconv.padding
    _, rows, columns, out = op.out_shape
    # The output before anything is cut off; what `extra` adds may lie in what was cut.
    spread = np.zeros((len(x), top + rows + bottom, left + columns + right, out), x.dtype)
    height, width = x.shape[1:3]
    shares = np.split(x, deconv.groups, axis=3)
    groups = np.split(weight, deconv.groups)
    for output, share, group in zip(
        np.split(spread, deconv.groups, axis=3), shares, groups, strict=True
    ):
        for row in range(deconv.kernel[0]):
            for column in range(deconv.kernel[1]):
                y, x_ = row * dilate_down, column * dilate_across
                place = output[
                    :,
                    y : y + (height - 1) * down + 1 : down,
                    x_ : x_ + (width - 1) * across + 1 : across,
                ]
                place += share @ group[:, row, column].T
    return spread[:, top : top + rows, left : left + columns] + bias


def _deconv_macs(op: Op) -> int:
    _, height, width, _ = op.in_shapes[0]
    return prod(op.weight_shape) * height * width


def _grouped_shape(op: Op) -> Shape:
    conv: Conv | Deconv = op.attributes
    return conv.out, *conv.kernel, op.in_shapes[0][3] // conv.groups


ROWS: Mapping[str, OpKind] = {
    "conv": OpKind(
        shape=_conv_shape,
        reference=_convolve,
        attributes=Conv,
        layer=Layer(shape=_grouped_shape, channel_axis=0, from_torch=(0, 2, 3, 1)),
        macs=layer_macs,
        activations=FUSED,
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
        macs=layer_macs,
        activations=FUSED,
    ),
    "deconv": OpKind(
        shape=_deconv_shape,
        reference=_convolve_transposed,
        attributes=Deconv,
        # Of torch's (in, out / groups, rows, columns), if there is one group.
        layer=Layer(shape=_grouped_shape, channel_axis=0, from_torch=(1, 2, 3, 0)),
        macs=_deconv_macs,
        activations=FUSED,
    ),
    "dense": OpKind(
        shape=_dense_shape,
        reference=lambda _, arrays: arrays[0] @ arrays[1].T + arrays[2],
        attributes=Dense,
        layer=Layer(
            shape=lambda op: (op.attributes.units, op.in_shapes[0][-1]),
            channel_axis=0,
            from_torch=(0, 1),
            normalised=False,
            one_scale=True,
        ),
        macs=layer_macs,
        activations=FUSED,
    ),
}
