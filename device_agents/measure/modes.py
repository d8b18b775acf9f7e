"""Do the times come in two kinds, as on slow and fast cores? Pure functions.

The values are cut in two where that explains most of their variance (of their logarithms), and it
counts by how much: the test of Engelman and Hartigan (1969). Values of one kind, with whatever
tail, leave a good part unexplained, so tails and spikes are no second mode: see docs/measuring.md
for how often it errs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# A mode holds at least this share of the values, and two of them.
_LEAST_SHARE = 0.10
_LEAST_VALUES = 2
# From this many values on, this share goes at either end: single spikes say nothing of modes.
_MANY_VALUES = 40
_TRIMMED = 0.05
# Of a mode so many are near its middle: nearer than a quarter of the way to the other's.
_NEAR_SHARE = 0.85
# More would take longer and tell no more.
_MOST_VALUES = 2000


@dataclass(frozen=True, slots=True)
class Modes:
    """Two kinds of times: `slow_share` of the values are `factor` times as long as the others."""

    slow_share: float
    factor: float


def two_modes(values: Sequence[float], least_gap: float) -> Modes | None:
    """Return the modes of positive values, of which one is slower by the share `least_gap`.

    None: fewer than four values, one kind, or two that differ less.
    """
    # Thinned by rank: by time a pattern of slow invokes could be missed or doubled.
    ordered = [math.log(value) for value in sorted(values)[:: 1 + len(values) // _MOST_VALUES]]
    cut = int(len(ordered) * _TRIMMED) if len(ordered) >= _MANY_VALUES else 0
    kept = ordered[cut : len(ordered) - cut]
    least = max(_LEAST_VALUES, math.ceil(len(kept) * _LEAST_SHARE))
    if len(kept) < 2 * least:
        return None
    total, variance = math.fsum(kept), _squares(kept)
    explained, place = 0.0, 0
    low = math.fsum(kept[: least - 1])
    for count in range(least, len(kept) - least + 1):
        low += kept[count - 1]
        rest = len(kept) - count
        between = count * rest / len(kept) * (low / count - (total - low) / rest) ** 2
        if between > explained:
            explained, place = between, count
    if not place or explained < _needed(len(kept)) * variance:
        return None
    fast, slow = kept[:place], kept[place:]
    gap = median(slow) - median(fast)
    if math.exp(gap) <= 1.0 + least_gap or not (_is_narrow(fast, gap) and _is_narrow(slow, gap)):
        return None
    return Modes((len(slow) + cut) / len(ordered), math.exp(gap))


def _is_narrow(values: Sequence[float], gap: float) -> bool:
    """Tell whether most values are near their middle, as those of a tail are not."""
    middle = median(values)
    near = sum(abs(value - middle) <= gap / 4.0 for value in values)
    return near >= _NEAR_SHARE * len(values)


def _needed(count: int) -> float:
    """Return the share of the variance that two modes explain and one kind of values does not.

    By simulation (normal, uniform, exponential, Student's t with 3 degrees, log-normal) one kind
    is above it in at most 1 of 100 draws of 4 to 20 values, and in 1 of 1000 of more.
    """
    return 1.0 - min(0.1, max(0.0, count - 3.0) / 300.0)


def _squares(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values)
