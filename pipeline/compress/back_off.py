"""Leaving ops in float32 until a quantised network loses no more than is allowed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.errors import TargetError
from pipeline.compress.joined import join_groups
from pipeline.compress.sensitivity import float_groups, leave_real

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from models.model import Model
    from pipeline.compress.judging import Lost
    from pipeline.compress.sensitivity import LayerLoss


@dataclass(frozen=True, slots=True)
class BackedOff:
    """A network that holds what it may lose.

    Attributes:
        model: the quantised network.
        left: the ops that were left in float32 for it, in the order of the network.
        lost: what it loses.
        first: what it lost with none of them left.
        tried: how many ops a file had left, and what it lost, in the order of the trials.
        throughout: the network with none of them left; None where it is `model`.
    """

    model: Model
    left: tuple[str, ...]
    lost: Lost
    first: Lost
    tried: tuple[tuple[int, Lost], ...] = ()
    throughout: Model | None = None


def back_off(
    model: Model,
    judge: Callable[[Model], Lost],
    find_losses: Callable[[], Sequence[LayerLoss]],
    *,
    most: float,
) -> BackedOff:
    """Leave as few layers in float32 as it takes, the costliest first, joined where that is alike.

    Until the file loses no more than it may, and is one that would be handed over. How many of the
    costliest is found by doubling, then by halving what is between: of n layers
    2 * ceil(log2(n)) + 2 files at most are written and judged, 18 of 200.

    Args:
        model: quantised throughout.
        judge: measures what a network loses.
        find_losses: ranks its layers; called only where the whole loses too much.
        most: points that it may lose.

    Raises:
        TargetError: the whole network in float32 loses more.
    """
    first = judge(model)
    if first.holds(most):
        return BackedOff(model, (), first, first, ((0, first),))
    losses = find_losses()
    groups = join_groups(
        model.graph,
        losses,
        float_groups(model.graph, losses),
        () if model.quantization is None else model.quantization.float_ops,
    )
    tried: dict[int, Lost] = {}

    def left(count: int) -> frozenset[str]:
        if count >= len(groups):
            return frozenset(op.name for op in model.graph.ops)
        return frozenset[str]().union(*groups[:count])

    def holds(count: int) -> bool:
        if count not in tried:
            tried[count] = judge(leave_real(model, left(count)))
        return tried[count].holds(most)

    high = 1
    while not holds(high):
        if high >= len(groups):
            raise TargetError(
                f"with every layer in float32 {tried[high].words}, at most {most:g} points asked, "
                f"of {1 + len(tried)} files tried: that is the file format's or its runtime's "
                "doing, not int8's"
            )
        high = min(2 * high, len(groups))
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    chosen = left(high)
    in_order = tuple(op.name for op in model.graph.ops if op.name in chosen)
    trials = ((0, first), *((len(left(count)), lost) for count, lost in tried.items()))
    return BackedOff(leave_real(model, chosen), in_order, tried[high], first, trials, model)
