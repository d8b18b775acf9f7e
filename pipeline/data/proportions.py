"""What a share of a few hundred images can tell: 95 % intervals of one share and of two.

All are score intervals, which hold their level also at 0 or 100 % and for few images: one takes the
shares that a test of the data would not refuse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

_Z95 = 1.959964
_HALVINGS = 60
"""Of [-1, 1]: to the last digit of a float."""


def wilson(share: float, n: int) -> tuple[float, float] | None:
    """Return the 95 % score interval of a share of `n` images (Wilson 1927), or None.

    scipy has it too, and takes 0.8 s to import for these five lines.
    """
    if n < 1 or not 0 <= share <= 1:  # NaN is not
        return None
    centre = share + _Z95**2 / (2 * n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + _Z95**2 / (4 * n * n))
    scale = 1 + _Z95**2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


@dataclass(frozen=True, slots=True)
class Paired:
    """Two networks on the same `n` images.

    Attributes:
        only_first: images that the first names rightly and the second does not.
        only_second: the other way about.
    """

    n: int
    only_first: int
    only_second: int

    @classmethod
    def of(cls, first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> Paired:
        """Count from what each names rightly, (n,) in the same order of images."""
        if first.shape != second.shape or not len(first):
            raise ValueError(f"no pairs: {first.shape} and {second.shape} answers")
        return cls(len(first), int(np.sum(first & ~second)), int(np.sum(second & ~first)))

    @property
    def difference(self) -> float:
        """Accuracy of the first less that of the second, -1..1."""
        return (self.only_first - self.only_second) / self.n

    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval of the difference: Tango's score interval.

        Tango, "Equivalence test and confidence interval for the difference in proportions for the
        paired-sample design", Statistics in Medicine 17 (1998), 891-908. It excludes 0 exactly
        where McNemar's test (1947, without a correction) finds a difference at 5 %.
        """
        low = _root(lambda delta: self._z(delta) - _Z95)
        high = _root(lambda delta: self._z(delta) + _Z95)
        return low, high

    def _z(self, delta: float) -> float:
        """Return the score statistic of the difference being `delta`; falls as delta grows."""
        n, b, c = self.n, self.only_first, self.only_second
        distance = b - c - n * delta
        linear = (2 * n - b + c) * delta - b - c
        # The share of `only_second` that is most likely at this delta: a root of equation (9).
        root = math.sqrt(max(0.0, linear**2 + 8 * n * c * delta * (1 - delta)))
        share = (root - linear) / (4 * n)
        variance = n * (2 * share + delta * (1 - delta))
        if variance <= 0:  # at the ends of [-1, 1]
            return math.copysign(math.inf, distance) if distance else 0.0
        return distance / math.sqrt(variance)


def enough(paired: Paired, limit: float) -> int | None:
    """Return about how many images would tell the same difference from `limit`.

    The interval's half narrows with the square root of their number. None where the difference is
    the limit itself, which no number of images would tell.
    """
    low, high = paired.interval()
    found = paired.difference
    apart = abs(found - limit)
    half = found - low if found > limit else high - found
    if apart * paired.n < 0.5:  # less than half an image
        return None
    needed = paired.n * (half / apart) ** 2
    return int(float(f"{needed:.2g}"))


def _root(falling: Callable[[float], float]) -> float:
    """Return where a falling function on [-1, 1] crosses 0."""
    low, high = -1.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2
