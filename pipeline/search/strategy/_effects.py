"""What single changes of a network do, and which of them to make together.

Effects are taken to add up, which is exact for the latency of a chain of operators and a first
order model of everything else. D decisions, C options of the widest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.search.strategy._genes import Genes

    Floats = npt.NDArray[np.float64]

_CHANGES = 120
"""Single changes that are combined, at most: the pairs and triples of more are too many."""
_PAIRS = 600
"""Pairs that a third change is added to."""
_TOO_SLOW = -1e9
_IMPOSSIBLE = -1e18


class Effects:
    """Gain (merit) and cost (milliseconds) of each option against the one taken; NaN: unknown."""

    def __init__(self, counts: Sequence[int]) -> None:
        self.gain = np.full((len(counts), max(counts)), np.nan)
        self.cost = self.gain.copy()

    def forget(self) -> None:
        """Take nothing for known, as at a network far from the last one."""
        self.gain[:] = self.cost[:] = np.nan

    def learn(self, decision: int, option: int, gain: float, cost_ms: float) -> None:
        """Note what taking an option does; unknown where it or the network before failed."""
        known = np.isfinite(gain) and np.isfinite(cost_ms)
        self.gain[decision, option] = gain if known else np.nan
        self.cost[decision, option] = cost_ms if known else np.nan

    def move(self, old: Genes, new: Genes) -> None:
        """Make effects relative to the options of another network."""
        for d in np.flatnonzero(old != new).tolist():
            for effect in (self.gain, self.cost):
                effect[d, old[d]] = 0.0
                effect[d] -= effect[d, new[d]]

    def exchanges(self, here: Genes, slack_ms: float, count: int) -> list[Genes]:
        """Return networks two or three changes away, those with the most predicted merit first.

        Args:
            here: where the effects were measured, (D,).
            slack_ms: latency that may be added; below 0: that must be saved.
            count: at most so many.
        """
        decision, option, gain, cost = self._changes(here, slack_ms)
        if len(gain) < 2:
            return []
        i, j = np.triu_indices(len(gain), 1)
        i, j = _apart(decision, i, j)
        merit = _merit(gain[i] + gain[j], cost[i] + cost[j], slack_ms)
        price = _price(gain, cost)
        worth = (gain - price * cost)[i] + (gain - price * cost)[j]
        head = np.argsort(-worth, kind="stable")[:_PAIRS]
        a, b = i[head][:, None], j[head][:, None]  # (P, 1)
        c = np.arange(len(gain))[None]  # (1, n)
        third = _merit(gain[a] + gain[b] + gain[c], cost[a] + cost[b] + cost[c], slack_ms)
        taken = (decision[a] == decision[c]) | (decision[b] == decision[c])
        everything = np.concatenate([merit, np.where(taken, _IMPOSSIBLE, third).ravel()])
        promising = everything > (0.0 if slack_ms >= 0 else _IMPOSSIBLE)
        found: dict[bytes, Genes] = {}  # a triple is found up to three times
        for index in _largest(everything, promising, 3 * count):
            pair, last = (index, None) if index < len(i) else divmod(index - len(i), len(gain))
            changes = [i[pair], j[pair]] if last is None else [i[head][pair], j[head][pair], last]
            genes = here.copy()
            genes[decision[changes]] = option[changes]
            found.setdefault(genes.tobytes(), genes)
        return list(found.values())[:count]

    def _changes(self, here: Genes, slack_ms: float) -> tuple[Genes, Genes, Floats, Floats]:
        """Return decision, option, gain and cost of the known changes that do anything."""
        known = np.isfinite(self.gain) & np.isfinite(self.cost)
        known[np.arange(len(here)), here] = False
        known &= (self.gain != 0) | (self.cost != 0)
        decision, option = np.nonzero(known)
        gain, cost = self.gain[known], self.cost[known]
        price = _price(gain, cost)
        # Outside the limit what saves most comes first, within it what is worth its time.
        worth = gain - price * cost if slack_ms >= 0 else -cost
        kept = np.sort(np.argsort(-worth, kind="stable")[:_CHANGES])
        return decision[kept], option[kept], gain[kept], cost[kept]


def _apart(decision: Genes, i: Genes, j: Genes) -> tuple[Genes, Genes]:
    """Return the pairs that change two different decisions."""
    apart = decision[i] != decision[j]
    return i[apart], j[apart]


def _largest(values: Floats, allowed: npt.NDArray[np.bool_], count: int) -> list[int]:
    """Return the indices of the `count` largest allowed values, the largest first."""
    found = np.flatnonzero(allowed)
    if len(found) > count:
        found = np.sort(found[np.argpartition(-values[found], count)[:count]])
    best: list[int] = found[np.argsort(-values[found], kind="stable")].tolist()
    return best


def _price(gain: Floats, cost: Floats) -> float:
    """Return the usual gain per millisecond."""
    total = float(np.abs(cost).sum())
    return float(np.abs(gain).sum()) / total if total > 0 else 0.0


def _merit(gain: Floats, cost: Floats, slack_ms: float) -> Floats:
    merit: Floats = np.where(cost <= slack_ms, gain, _TOO_SLOW - cost)
    return merit
