"""Which middle channels of a block matter most, and how they are put first."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.blocks import BlockModule, ConvBN
    from models.spec import Block


def sort_block(module: BlockModule, kept: Sequence[Block]) -> None:
    """Sort the middle channels of a block by importance, within the segments `kept` uses.

    The block's output does not change: all that is indexed by a middle channel moves with it.
    """
    order = _order(module.project.conv.weight, [block.mid for block in kept])
    _move_outputs(module.expand, order)
    _move_outputs(module.depthwise, order)
    _move(module.project.conv.weight, order, 1)
    if hasattr(module, "se"):
        se = module.se
        _move(se.reduce.weight, order, 1)
        _move(se.expand.weight, order, 0)
        _move(cast("Tensor", se.expand.bias), order, 0)
        hidden = _order(se.expand.weight, [b.se.channels for b in kept if b.se is not None])
        _move(se.reduce.weight, hidden, 0)
        _move(cast("Tensor", se.reduce.bias), hidden, 0)
        _move(se.expand.weight, hidden, 1)


def _order(reader: Tensor, widths: Sequence[int]) -> Tensor:
    """Return channels by falling L1 norm of `reader` (out, channels, 1, 1), width by width."""
    importance = reader.detach().abs().sum((0, 2, 3))
    bounds = sorted({0, *widths, len(importance)})
    parts = [
        start + importance[start:end].argsort(descending=True, stable=True)
        for start, end in pairwise(bounds)
    ]
    return torch.cat(parts)


def _move_outputs(layer: ConvBN, order: Tensor) -> None:
    bn = layer.bn
    for tensor in (layer.conv.weight, bn.weight, bn.bias, bn.running_mean, bn.running_var):
        _move(cast("Tensor", tensor), order, 0)


def _move(tensor: Tensor, order: Tensor, axis: int) -> None:
    with torch.no_grad():
        tensor.copy_(tensor.index_select(axis, order))
