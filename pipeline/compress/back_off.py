"""Leaving ops in float32 until a quantised network loses no more than is allowed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.errors import TargetError
from pipeline.compress.sensitivity import float_groups, leave_real

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.model import Model
    from pipeline.compress.sensitivity import Sensitivity


@dataclass(frozen=True, slots=True)
class BackedOff:
    """A network that holds what it may lose.

    Attributes:
        model: the quantised network.
        left: the ops that were left in float32 for it, in the order of the network.
        drop: what it loses, in points.
        first_drop: what it lost with none of them left.
    """

    model: Model
    left: tuple[str, ...]
    drop: float
    first_drop: float


def back_off(
    model: Model,
    drop_of: Callable[[Model], float],
    find_losses: Callable[[], Sensitivity],
    *,
    most: float,
) -> BackedOff:
    """Leave as few layers in float32 as it takes, the costliest first.

    Args:
        model: quantised throughout.
        drop_of: measures what a network loses, in points of score.
        find_losses: ranks its layers; called only where the whole loses too much.
        most: points that it may lose.

    Raises:
        TargetError: the whole network in float32 loses more.
    """
    first = drop_of(model)
    if first <= most:
        return BackedOff(model, (), first, first)
    groups = float_groups(model.graph, find_losses().layers)
    tried: dict[int, float] = {}

    def left(count: int) -> frozenset[str]:
        if count >= len(groups):
            return frozenset(op.name for op in model.graph.ops)
        return frozenset[str]().union(*groups[:count])

    def holds(count: int) -> bool:
        if count not in tried:
            tried[count] = drop_of(leave_real(model, left(count)))
        return tried[count] <= most

    high = 1
    while not holds(high):
        if high >= len(groups):
            raise TargetError(
                f"the network loses {tried[high]:.2f} points with every layer in float32, more "
                f"than {most:g}: that is the file format's or its runtime's doing, not int8's"
            )
        high = min(2 * high, len(groups))
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    chosen = left(high)
    in_order = tuple(op.name for op in model.graph.ops if op.name in chosen)
    return BackedOff(leave_real(model, chosen), in_order, tried[high], first)
