"""How often symbols occur, what a code of them costs, and frequencies that a coder can use.

Entropies are in bits a symbol: H(p) = -sum p log2 p; H(p, q) = -sum p log2 q is what symbols of p
cost in a code made for q; KL(p||q) = H(p, q) - H(p) is what that wastes (Shannon 1948; Kullback and
Leibler 1951).
"""

from __future__ import annotations

from heapq import heapify, heapreplace
from math import inf, log1p
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]
    Counts = npt.NDArray[np.int64]


def count_bytes(symbols: Bytes) -> Counts:
    """Return how often each byte occurs, (256,)."""
    return np.bincount(symbols.reshape(-1), minlength=256).astype(np.int64, copy=False)


def entropy(counts: npt.ArrayLike) -> float:
    """Return H(p) of counts of any shape; 0 of no symbols."""
    return cross_entropy(counts, counts)


def cross_entropy(counts: npt.ArrayLike, code: npt.ArrayLike) -> float:
    """Return H(p, q), with q in proportion to `code`; inf where that lacks a symbol of p."""
    symbols, weights = np.asarray(counts, np.float64), np.asarray(code, np.float64)
    there = symbols > 0
    if not there.any():
        return 0.0
    with np.errstate(divide="ignore"):
        bits = np.log2(weights.sum()) - np.log2(weights[there])
    # Never -0.0, which a single symbol gives.
    return abs(float(symbols[there] @ bits) / float(symbols.sum()))


def to_frequencies(counts: Counts, bits: int) -> Counts:
    """Return whole numbers with the sum 2^bits, (256,), that code `counts` in the fewest bits.

    Each symbol that occurs gets at least 1. Units are given, or taken back, one by one where that
    saves most, or costs least; since the cost is convex, that is optimal.
    """
    total = 1 << bits
    share = counts * (total / counts.sum())
    found = np.where(counts > 0, np.maximum(share.astype(np.int64), 1), 0)
    missing = total - int(found.sum())
    step = 1 if missing > 0 else -1

    def change(symbol: int) -> tuple[float, int]:
        """Return the bits that one unit more, or less, costs."""
        units = int(found[symbol])
        return (-int(counts[symbol]) * log1p(step / units) if units + step else inf), symbol

    waiting = [change(int(symbol)) for symbol in np.flatnonzero(counts)]
    heapify(waiting)
    for _ in range(abs(missing)):
        symbol = waiting[0][1]
        found[symbol] += step
        heapreplace(waiting, change(symbol))
    return found
