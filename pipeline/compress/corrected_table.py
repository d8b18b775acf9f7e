"""What widths of groups cost together: a table of single groups, corrected by whole networks.

A sum of the table is wrong where groups share layers: a product of two widths is no sum of them.
At first it is taken as it is. Then savings are scaled by what the last network saved, and between
a network above the target and one below it the line through the nearest two holds, so that the
sum to aim at is found as a root is (regula falsi).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipeline.compress.allocation import allocate

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pipeline.compress.allocation import Allocation, Choice

_BESIDE = 20
"""How many sums beside the best one are looked at where that gives what has been tried."""

_SLOPES = (0.2, 5.0)
"""Between these what is measured changes with the sum; anything else is noise."""


@dataclass(frozen=True, slots=True)
class _Point:
    """A network: its sum of the table, and what it took."""

    table_ms: float
    measured_ms: float


@dataclass(slots=True, eq=False)
class CorrectedTable:
    """The table of a network, and what was learnt of it.

    Attributes:
        groups: what every width of each group costs and keeps; the whole group last.
        whole_ms: what the whole network takes.
        target_ms: what is to be reached; networks nearest to it count.
    """

    groups: Sequence[Sequence[Choice]]
    whole_ms: float
    target_ms: float
    _points: list[_Point] = field(default_factory=list, init=False)

    def sum_ms(self, found: Allocation) -> float:
        """Return the sum of the table for an allocation, not corrected."""
        return self.whole_ms + found.cost_ms

    def learn(self, found: Allocation, measured_ms: float) -> None:
        """Learn what a network took."""
        self._points.append(_Point(self.sum_ms(found), measured_ms))

    def predict(self, found: Allocation) -> float:
        """Return the latency that an allocation should be measured as, in milliseconds."""
        point, slope = self._line()
        return point.measured_ms + (self.sum_ms(found) - point.table_ms) * slope

    def choose(
        self, aim_ms: float, *, tried: Collection[tuple[int, ...]], more_than: float | None
    ) -> Allocation | None:
        """Return what should take `aim_ms`, or what is nearest to it and of use; None without any.

        Args:
            aim_ms: a latency.
            tried: widths that were measured already.
            more_than: importance that must be exceeded, of a network that met the target; None
                where none has, and what is faster is of use.
        """
        point, slope = self._line()
        best_ms = point.table_ms + (aim_ms - point.measured_ms) / slope
        least_ms = sum(min(choice.cost_ms for choice in group) for group in self.groups)
        end_ms = self.whole_ms + least_ms if more_than is None else self._above().table_ms
        if more_than is None and len(self._points) > 1:
            # Two misses say that the line is wrong: half of what is left gets there for sure.
            fastest_ms = min(point.table_ms for point in self._points)
            best_ms = min(best_ms, (fastest_ms + end_ms) / 2)
        for table_ms in np.linspace(best_ms, end_ms, _BESIDE + 1):
            found = allocate(self.groups, float(table_ms) - self.whole_ms)
            if found.widths not in tried and (more_than is None or found.kept > more_than):
                return found
        return None

    def _above(self) -> _Point:
        above = [point for point in self._points if point.measured_ms > self.target_ms]
        whole = _Point(self.whole_ms, self.whole_ms)
        return min([*above, whole], key=lambda point: point.measured_ms)

    def _line(self) -> tuple[_Point, float]:
        """Return a point of the line that holds, and its slope."""
        below = [point for point in self._points if point.measured_ms <= self.target_ms]
        if below:
            first, second = max(below, key=lambda point: point.measured_ms), self._above()
        else:
            first, second = self._above(), _Point(self.whole_ms, self.whole_ms)
        run_ms = second.table_ms - first.table_ms
        if run_ms <= 0:  # one point, or two that noise has put in disorder
            return first, 1.0
        slope = (second.measured_ms - first.measured_ms) / run_ms
        return first, float(np.clip(slope, *_SLOPES))
