"""Rounding to codes in torch, and what passes for its gradient in training.

Rounding has the gradient 0 nearly everywhere. A straight-through estimator (Bengio, Léonard and
Courville 2013, section 3) lets gradients pass as if nothing had been rounded, but for values that
no code reaches, which get none. The scale itself can be learnt: Esser et al. 2020, equation 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

if TYPE_CHECKING:
    from models.codes import QParams


def round_to_codes(x: torch.Tensor, params: QParams) -> torch.Tensor:
    """Return the numbers that the codes of real values stand for."""
    low, high = params.limits
    codes = torch.clamp(torch.round(x / params.scale) + params.zero_point, low, high)
    return (codes - params.zero_point) * params.scale


def fake_quantize(
    x: torch.Tensor, params: QParams, scale: torch.Tensor | None = None
) -> torch.Tensor:
    """Return what `round_to_codes` gives, with gradients straight through.

    Args:
        x: real values, N samples along the first axis.
        params: of their codes.
        scale: of one number, that of `params`, where it is learnt and wants a gradient.
    """
    return cast("torch.Tensor", _Rounding.apply(x, scale, params))  # type: ignore[no-untyped-call]


def pass_straight(x: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    """Return other values of the same shape, whose gradient goes to `x` as it is."""
    return cast("torch.Tensor", _Straight.apply(x, rounded))  # type: ignore[no-untyped-call]


class _Rounding(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, scale: torch.Tensor | None, params: QParams
    ) -> torch.Tensor:
        rounded = round_to_codes(x, params)
        # Both are held by the ops before and after it anyway.
        ctx.save_for_backward(x, rounded if scale is not None else None)
        ctx.params = params
        return rounded

    @staticmethod
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        x, rounded = ctx.saved_tensors
        scale, zero_point = ctx.params.scale, ctx.params.zero_point
        low, high = (code - zero_point for code in ctx.params.limits)
        inside = (x >= (low - 0.5) * scale) & (x <= (high + 0.5) * scale)
        of_x = gradient * inside
        if rounded is None:
            return of_x, None, None
        # Of each value: how far its code moved it, in codes; of one beyond the codes, the last.
        steps = (rounded - x * inside) / scale
        # Normalised as in section 2.2 there, so that scales move no faster than weights.
        share = (max(high, -low) * max(x[0].numel(), 1)) ** -0.5
        return of_x, (gradient * steps).sum() * share, None


class _Straight(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        return rounded.view_as(x)

    @staticmethod
    def backward(_ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None
