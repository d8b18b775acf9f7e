"""How torch holds what the graph says: maps with channels first, all else as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from models.graph import Op

    Form = Callable[..., torch.Tensor]


def channels_first(x: torch.Tensor) -> torch.Tensor:
    """Return a map (N, H, W, C) as a view (N, C, H, W); other tensors as they are."""
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Return a map (N, C, H, W) as a view (N, H, W, C); other tensors as they are."""
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x


def in_graph_order(form: Form) -> Form:
    """Make a form of one that computes with the axes of the graph, maps too."""

    def run(op: Op, *inputs: torch.Tensor) -> torch.Tensor:
        return channels_first(form(op, *map(channels_last, inputs)))

    return run
