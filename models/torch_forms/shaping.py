"""Forms of ops that move values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from models.ops.resizing import COORDINATES, nearest_places
from models.torch_forms.axes import in_graph_order

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.graph import Op
    from models.ops import Array, Pad, Resize, Slice
    from models.torch_forms.axes import Form


def _beside(values: Array, x: torch.Tensor) -> torch.Tensor:
    """Return values where a tensor is."""
    return torch.from_numpy(values).to(x.device)


def _one_batch(op: Op) -> bool:
    """Tell whether the first axis is a batch of 1 before and after, of which there may be N."""
    return op.in_shapes[0][:1] == op.out_shape[:1] == (1,)


def _reshape(op: Op, x: torch.Tensor) -> torch.Tensor:
    return x.reshape((len(x), *op.out_shape[1:]) if _one_batch(op) else op.out_shape)


def _concat(op: Op, *parts: torch.Tensor) -> torch.Tensor:
    axis = op.attributes.axis
    if axis:  # a constant stands beside each sample
        batch = max(len(part) for part in parts)
        parts = tuple(part.expand(batch, *part.shape[1:]) for part in parts)
    return torch.cat(parts, axis)


def _slice(op: Op, x: torch.Tensor) -> torch.Tensor:
    part: Slice = op.attributes
    places = [slice(*each) for each in zip(part.begin, part.end, part.step, strict=True)]
    if _one_batch(op):
        places[0] = slice(None)
    return x[tuple(places)]


def _pad(op: Op, x: torch.Tensor) -> torch.Tensor:
    pad: Pad = op.attributes
    if pad.mode == "constant":
        # torch names margins from the last axis on.
        sides = [side for margin in reversed(pad.margins) for side in margin]
        return torch.nn.functional.pad(x, sides, value=pad.value)
    for axis, margin in enumerate(pad.margins):
        if any(margin):
            modes: dict[str, object] = {"mode": pad.mode}
            places = np.pad(np.arange(x.shape[axis]), margin, **modes)  # type: ignore[call-overload]
            x = x.index_select(axis, _beside(places, x))
    return x


def _gather(op: Op, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    axis = op.attributes.axis
    size = x.shape[axis]
    flat = torch.where(indices < 0, indices + size, indices).reshape(-1)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    return x.index_select(axis, flat).reshape(shape)


def _depth_to_space(op: Op, x: torch.Tensor) -> torch.Tensor:
    batch, height, width, channels = x.shape
    block = op.attributes.block
    out = channels // block**2
    if op.attributes.order == "DCR":
        parts = x.reshape(batch, height, width, block, block, out).permute(0, 1, 3, 2, 4, 5)
    else:
        parts = x.reshape(batch, height, width, out, block, block).permute(0, 1, 4, 2, 5, 3)
    return parts.reshape(batch, height * block, width * block, out)


def _space_to_depth(op: Op, x: torch.Tensor) -> torch.Tensor:
    batch, height, width, channels = x.shape
    block = op.attributes.block
    parts = x.reshape(batch, height // block, block, width // block, block, channels)
    moved = parts.permute(0, 1, 3, 2, 4, 5)
    return moved.reshape(batch, height // block, width // block, channels * block**2)


def _resize(op: Op, x: torch.Tensor) -> torch.Tensor:
    """Resize rows and columns one after the other, by places reckoned as the reference does."""
    resize: Resize = op.attributes
    for axis, out in zip((2, 3), resize.size, strict=True):
        size = x.shape[axis]
        if resize.mode == "nearest":
            x = x.index_select(axis, _beside(nearest_places(resize, size, out), x))
            continue
        at = COORDINATES[resize.coordinates](np.arange(out), size, out).clip(0, size - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, size - 1)
        share = _beside((at - low).astype(np.float32), x).to(x.dtype)
        share = share if axis == 3 else share[:, None]
        before = x.index_select(axis, _beside(low, x))
        x = before * (1 - share) + x.index_select(axis, _beside(high, x)) * share
    return x


FORMS: Mapping[str, Form] = {
    "reshape": in_graph_order(_reshape),
    "transpose": in_graph_order(lambda op, x: x.permute(op.attributes.permutation)),
    "concat": in_graph_order(_concat),
    "slice": in_graph_order(_slice),
    "pad": in_graph_order(_pad),
    "gather": in_graph_order(_gather),
    "tile": in_graph_order(lambda op, x: x.tile(op.attributes.repeats)),
    "depthtospace": in_graph_order(_depth_to_space),
    "spacetodepth": in_graph_order(_space_to_depth),
    "resize": _resize,
}
"""Kind -> what torch does for it; see `models.torch_forms`."""
