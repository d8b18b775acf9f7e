"""Forms of layers, pools and normalisations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from models.torch_forms.axes import channels_first, channels_last, in_graph_order

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.graph import Op
    from models.ops import AvgPool, Deconv
    from models.torch_forms.axes import Form
    from models.window import Window


def _convolve(op: Op, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    # The stored layout is channels_last in memory: this is a view.
    weight = weight.permute(op.layer.to_torch)
    groups = x.shape[1] // weight.shape[1]
    window: Window = op.attributes
    x, padding = _padded(window, x)
    return functional.conv2d(x, weight, bias, window.stride, padding, window.dilation, groups)


def _convolve_transposed(
    op: Op, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    deconv: Deconv = op.attributes
    groups, (out, height, width, share) = deconv.groups, weight.shape
    # (out, rows, columns, in / groups) to torch's (in, out / groups, rows, columns).
    parts = weight.reshape(groups, out // groups, height, width, share).permute(0, 4, 1, 2, 3)
    kernel = parts.reshape(groups * share, out // groups, height, width)
    whole = functional.conv_transpose2d(
        x, kernel, None, deconv.stride, groups=groups, dilation=deconv.dilation
    )
    top, bottom, left, right = deconv.padding
    down, across = deconv.extra
    cut = functional.pad(whole, (-left, across - right, -top, down - bottom))
    return cut + bias[:, None, None]


def _dense(_: Op, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return channels_first(functional.linear(channels_last(x), weight, bias))


def _maxpool(op: Op, x: torch.Tensor) -> torch.Tensor:
    window: Window = op.attributes
    top, bottom, left, right = window.padding
    # torch pads a pool by at most half its kernel.
    fits = top <= window.kernel[0] // 2 and left <= window.kernel[1] // 2
    padding = (top, left)
    if not fits or (top, left) != (bottom, right):
        x, padding = functional.pad(x, (left, right, top, bottom), value=float("-inf")), (0, 0)
    return functional.max_pool2d(x, window.kernel, window.stride, padding, window.dilation)


def _avgpool(op: Op, x: torch.Tensor) -> torch.Tensor:
    pool: AvgPool = op.attributes
    total = _sum_windows(pool, x)
    if pool.count_padding:
        return total / (pool.kernel[0] * pool.kernel[1])
    return total / _sum_windows(pool, torch.ones_like(x[:1, :1]))


def _sum_windows(window: Window, x: torch.Tensor) -> torch.Tensor:
    """Return the sum of what each window reads, zeros outside."""
    channels = x.shape[1]
    ones = x.new_ones((channels, 1, *window.kernel))
    x, padding = _padded(window, x)
    return functional.conv2d(x, ones, None, window.stride, padding, window.dilation, channels)


def _padded(window: Window, x: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
    """Return a map and the zeros that torch can still add on both sides: all, where it can."""
    top, bottom, left, right = window.padding
    if (top, left) == (bottom, right):
        return x, (top, left)
    return functional.pad(x, (left, right, top, bottom)), (0, 0)


def batch_norm(  # of the op and of torch
    op: Op,
    x: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    *,
    momentum: float = 0.0,
) -> torch.Tensor:
    """Normalise by the given statistics; with a momentum by the batch's, and move them in place."""
    # Maps have their channels there already.
    middle = x if x.ndim == 4 else x.movedim(-1, 1)
    epsilon = op.attributes.epsilon
    moved = functional.batch_norm(
        middle, mean, variance, scale, shift, momentum > 0, momentum, epsilon
    )
    return moved if x.ndim == 4 else moved.movedim(1, -1)


def _layer_norm(op: Op, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    shape = op.in_shapes[0][-op.attributes.axes_count :]
    # Its parameters may have as many axes as a map, and then come as one.
    scale, shift = channels_last(scale), channels_last(shift)
    last = functional.layer_norm(channels_last(x), shape, scale, shift, op.attributes.epsilon)
    return channels_first(last)


def _l2_norm(op: Op, x: torch.Tensor) -> torch.Tensor:
    squares = x.square().sum(op.attributes.axis, keepdim=True)
    return x / squares.clamp_min(op.attributes.epsilon).sqrt()


FORMS: Mapping[str, Form] = {
    "conv": _convolve,
    "depthwise": _convolve,
    "deconv": _convolve_transposed,
    "dense": _dense,
    "maxpool": _maxpool,
    "avgpool": _avgpool,
    "mean": lambda op, x: x.mean((2, 3), keepdim=op.attributes.keepdims),
    "batchnorm": batch_norm,
    "layernorm": _layer_norm,
    "l2norm": in_graph_order(_l2_norm),
}
"""Kind -> what torch does for it; see `models.torch_forms`."""
