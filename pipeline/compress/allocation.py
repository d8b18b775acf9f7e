"""How wide each of several groups stays where time is short: a multiple-choice knapsack.

Of each group one width is chosen, so that what is kept is most and what it takes fits. Solved
exactly by dynamic programming over latency in equal parts, as HALP does (Shen et al., Structural
Pruning via Latency-Saliency Knapsack, NeurIPS 2022); costs are rounded up to a part, so what is
chosen always fits, and all that is given away is less than a part for each group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS = 4000
"""What the budget is divided into: 50 groups give away 1.25 % of it at most."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A width that a group can have.

    Attributes:
        width: channels that stay.
        cost_ms: latency beside that of the whole group; below 0 where it saves.
        kept: importance of what stays.
    """

    width: int
    cost_ms: float
    kept: float


@dataclass(frozen=True, slots=True)
class Allocation:
    """A choice for each group.

    Attributes:
        choices: in the order of the groups.
        slack_ms: of the budget, this much at most was given away by rounding.
    """

    choices: tuple[Choice, ...]
    slack_ms: float

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of each group."""
        return tuple(choice.width for choice in self.choices)

    @property
    def cost_ms(self) -> float:
        """The sum of what they cost."""
        return sum(choice.cost_ms for choice in self.choices)

    @property
    def kept(self) -> float:
        """The sum of what they keep."""
        return sum(choice.kept for choice in self.choices)


def allocate(
    groups: Sequence[Sequence[Choice]], budget_ms: float, *, parts: int = PARTS
) -> Allocation:
    """Choose a width for each group, so that most is kept within a budget.

    Of choices that keep as much, those that cost less. If not even the cheapest of each group fit,
    those are returned; their cost tells.

    Args:
        groups: what can be chosen of each, one at least.
        budget_ms: what the costs may add up to.
        parts: that the budget beyond the cheapest choices is divided into.
    """
    cheapest = [min(choice.cost_ms for choice in group) for group in groups]
    left_ms = budget_ms - sum(cheapest)
    part_ms = max(left_ms, 0.0) / parts
    # kept[b] is the most that the groups so far keep in b parts; of each, which choice that was.
    kept, chosen = np.zeros(parts + 1), []
    sizes = []
    for group, least_ms in zip(groups, cheapest, strict=True):
        best = np.full(parts + 1, -np.inf)
        of = np.zeros(parts + 1, np.int64)
        size = [_parts(choice.cost_ms - least_ms, part_ms) for choice in group]
        for place in sorted(range(len(group)), key=lambda place: group[place].cost_ms):
            if size[place] > parts:
                continue
            here = np.full(parts + 1, -np.inf)
            here[size[place] :] = kept[: parts + 1 - size[place]] + group[place].kept
            better = here > best
            best[better], of[better] = here[better], place
        kept = best
        chosen.append(of)
        sizes.append(size)
    at = int(np.argmax(kept))  # the first of equals: it costs least
    picked: list[Choice] = []
    for group, of, size in zip(reversed(groups), reversed(chosen), reversed(sizes), strict=True):
        place = int(of[at])
        picked.append(group[place])
        at -= size[place]
    return Allocation(tuple(reversed(picked)), part_ms * len(groups))


def _parts(cost_ms: float, part_ms: float) -> int:
    """Return how many parts a cost takes, rounded up; too many where there are none to take."""
    if cost_ms <= 0:
        return 0
    # A cost of exactly so many parts takes no more for being divided in floating point.
    return int(min(np.ceil(cost_ms / part_ms - 1e-9), 2**40)) if part_ms > 0 else 2**40
