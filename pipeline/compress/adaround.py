"""Rounding that is learnt: each weight goes to the code above or below, as suits what it reads.

AdaRound (Nagel et al. 2020, "Up or Down?", section 3): a layer's output is rebuilt from quantised
inputs by a soft rounding, which a regulariser drives to 0 or 1 (equations 22 to 25: a rectified
sigmoid, its exponent falling from 20 to 2 after a fifth of the iterations). Where this differs:
the layer is learnt on positions of its output that are drawn once, so that it costs the same on
maps of any size; the error is counted in variances of the output, for which the paper's weight of
the regulariser is meant; and of each output channel the better of the learnt and the nearest
rounding is taken, so that it is never worse on these positions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from models.torch_forms import ACTIVATIONS, run_op
from models.torch_forms.axes import channels_last

if TYPE_CHECKING:
    from models.graph import Op
    from models.window import Window

_ZETA, _GAMMA = 1.1, -0.1
_WEIGHT = 0.01
_EXPONENTS = 20.0, 2.0
_WARM = 0.2
_RATE = 0.01
_BATCH = 256

_POSITIONS = 8192
_HELD_BYTES = 64 << 20
"""Of what a layer reads at the positions that are drawn, at most."""

LEARNT = frozenset({"conv", "depthwise", "dense"})
"""Kinds whose rounding is learnt; a transposed convolution is rounded to nearest."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a layer reads, and what it should make of it.

    Attributes:
        patches: (P, groups, K), of quantised inputs.
        targets: (P, out), before the activation, of the network in real numbers.
    """

    patches: torch.Tensor
    targets: torch.Tensor


def count_positions(op: Op) -> int:
    """Return how many positions of a layer's output are drawn at most."""
    each = 4 * prod(op.weight_shape[1:-1]) * op.in_shapes[0][-1]
    return max(min(_POSITIONS, _HELD_BYTES // each), 1)


def see(
    op: Op,
    x: torch.Tensor,
    real: torch.Tensor,
    layer: list[torch.Tensor],
    count: int,
    draws: torch.Generator,
) -> Seen:
    """Draw positions of a layer's output in a batch.

    Args:
        op: the layer.
        x: what it reads, quantised.
        real: what it reads in real numbers.
        layer: its weight and bias in real numbers.
        count: of positions, at most; all, if there are fewer.
        draws: of positions.
    """
    whole = run_op(replace(op, act="none"), [real], layer)
    outputs = channels_last(whole)
    rows = outputs.reshape(-1, outputs.shape[-1])
    picks = torch.randperm(len(rows), generator=draws)[:count]
    targets = rows[picks]
    if op.kind == "dense":
        inputs = channels_last(x)
        return Seen(inputs.reshape(-1, 1, inputs.shape[-1])[picks], targets)
    window: Window = op.attributes
    top, bottom, left, right = window.padding
    padded = functional.pad(x, (left, right, top, bottom))
    (rows_reach, columns_reach), (down, across) = window.reach, window.stride
    views = padded.unfold(2, rows_reach, down).unfold(3, columns_reach, across)
    views = views[..., :: window.dilation[0], :: window.dilation[1]]  # (N, C, H, W, kh, kw)
    height, width = views.shape[2:4]
    place = picks % (height * width)
    found = views[picks // (height * width), :, place // width, place % width]
    groups = op.in_shapes[0][-1] // layer[0].permute(op.layer.to_torch).shape[1]
    return Seen(found.reshape(len(picks), groups, -1), targets)


def learn_rounding(
    op: Op,
    layer: list[torch.Tensor],
    scales: torch.Tensor,
    largest: int,
    seen: Seen,
    iterations: int,
    draws: torch.Generator,
) -> torch.Tensor:
    """Return the codes of a layer's weight, in the graph's layout.

    Args:
        op: the layer.
        layer: its weight, in the graph's layout, and bias in real numbers.
        scales: of each output channel, or one for all.
        largest: code.
        seen: what it reads and should give.
        iterations: of Adam.
        draws: of batches.
    """
    laid = layer[0].permute(op.layer.to_torch)
    groups = seen.patches.shape[1]
    out = len(laid)
    steps = (laid.reshape(out, -1) / scales.reshape(-1, 1)).reshape(groups, out // groups, -1)
    unit = scales.expand(out).reshape(groups, -1, 1)
    act = ACTIVATIONS[op.act]

    def rebuilt(codes: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        sums = torch.einsum("pgk,gok->pgo", patches, codes * unit)
        return act(sums.reshape(len(patches), out) + layer[1])

    wanted = act(seen.targets)
    below = torch.floor(steps)
    nearest = torch.clamp(torch.round(steps), -largest, largest)
    share = (steps - below - _GAMMA) / (_ZETA - _GAMMA)
    soft = (-torch.log(1 / share - 1)).requires_grad_()
    variance = float(wanted.var(correction=0)) or 1.0
    optimizer = torch.optim.Adam([soft], lr=_RATE)
    warm = int(_WARM * iterations)
    for step in range(iterations):
        rows = torch.randint(len(wanted), (_BATCH,), generator=draws)
        up = torch.clamp(torch.sigmoid(soft) * (_ZETA - _GAMMA) + _GAMMA, 0, 1)
        codes = torch.clamp(below + up, -largest, largest)
        error = (rebuilt(codes, seen.patches[rows]) - wanted[rows]).square()
        loss = error.sum(1).mean() / variance
        if step >= warm:
            first, last = _EXPONENTS
            exponent = last + (first - last) * (1 - (step - warm) / max(iterations - warm, 1))
            loss = loss + _WEIGHT * (1 - (2 * up - 1).abs().pow(exponent)).sum()
        optimizer.zero_grad()
        torch.autograd.backward([loss])
        optimizer.step()
    with torch.no_grad():
        learnt = torch.clamp(below + (soft >= 0), -largest, largest)
        errors = [
            (rebuilt(codes, seen.patches) - wanted).square().sum(0) for codes in (learnt, nearest)
        ]
        better = (errors[0] < errors[1]).reshape(groups, -1, 1)
        chosen = torch.where(better, learnt, nearest).reshape(laid.shape)
    return chosen.permute(op.layer.from_torch)
