"""The encoder of device_agents/agent/packed/huffman.py, which says how a stream is laid out.

Huffman, "A method for the construction of minimum-redundancy codes", 1952. Where a code would be
longer than the decoder takes, counts are halved until none is, which costs next to nothing.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from device_agents.agent.packed.huffman import MOST_BITS
from pipeline.coding.lanes import choose_lanes
from pipeline.coding.varint import varint

if TYPE_CHECKING:
    from pipeline.coding.distributions import Bytes, Counts

_LANE_BYTES = 2.5  # its length, and half a byte of padding
# Symbols that are placed at once: what that needs is 60 times as many bytes.
_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Code:
    """Lengths of codes in bits, (256,), 0 of none; `size` of a stream, about, in bytes."""

    lengths: Counts
    lanes: int
    size: float


def make_code(counts: Counts) -> Code | None:
    """Return the code for symbols that occur so often; None for fewer than two different ones."""
    if np.count_nonzero(counts) < 2:
        return None
    lengths = _lengths(counts)
    coded = float(counts @ lengths) / 8
    lanes = choose_lanes(int(counts.sum()), coded_bytes=coded, lane_bytes=_LANE_BYTES)
    return Code(lengths, lanes, coded + len(_table(lengths)) + _LANE_BYTES * lanes)


def encode(symbols: Bytes, code: Code) -> bytes:
    """Return the stream of symbols (n,), all of which have a code."""
    steps = -(-len(symbols) // code.lanes)
    lengths, codes = code.lengths, _codes(code.lengths)
    padded = np.full(steps * code.lanes, np.where(lengths > 0, lengths, 99).argmin(), np.uint8)
    padded[: len(symbols)] = symbols
    # A lane after the other, (lanes * steps,).
    in_order = padded.reshape(steps, code.lanes).T
    sizes = -(-lengths[in_order].sum(axis=1) // 8)
    text = np.zeros(int(sizes.sum()) + 2, np.uint8)
    starts = 8 * (np.cumsum(sizes) - sizes)
    together = max(1, _CHUNK // steps)
    for first in range(0, code.lanes, together):
        some = in_order[first : first + together]
        widths = lengths[some]
        at = starts[first : first + together, None] + np.cumsum(widths, axis=1) - widths
        _place(text, at.reshape(-1), codes[some].reshape(-1), widths.reshape(-1))
    head = _table(lengths) + varint(code.lanes) + b"".join(varint(int(size)) for size in sizes)
    return head + text[:-2].tobytes()


def _place(text: Bytes, at: Counts, codes: Counts, widths: Counts) -> None:
    """Set the bits of codes from bit `at` on; no two of them overlap, and each fits in 3 bytes."""
    first = at >> 3
    low, high = int(first[0]), int(first[-1]) + 3
    whole = codes << (24 - (at & 7) - widths)
    for byte in range(3):
        some = whole >> (16 - 8 * byte) & 0xFF
        # Sums of bits that do not overlap are exact.
        sums = np.bincount(first + byte - low, some, high - low)
        text[low:high] |= sums.astype(np.uint8)


def _lengths(counts: Counts) -> Counts:
    while True:
        found = _unbounded(counts)
        if found.max() <= MOST_BITS:
            return found
        counts = np.where(counts > 0, (counts + 1) // 2, 0)


def _unbounded(counts: Counts) -> Counts:
    """Return the lengths of Huffman's codes, (256,)."""
    found = np.zeros(256, np.int64)
    waiting = [
        (int(counts[symbol]), symbol, [symbol]) for symbol in map(int, np.flatnonzero(counts))
    ]
    heapq.heapify(waiting)
    while len(waiting) > 1:
        (one, _, few), (other, name, more) = heapq.heappop(waiting), heapq.heappop(waiting)
        found[few + more] += 1
        heapq.heappush(waiting, (one + other, name, few + more))
    return found


def _codes(lengths: Counts) -> Counts:
    """Return the canonical codes, (256,): given out by length, then by symbol."""
    found = np.zeros(256, np.int64)
    code = before = 0
    for symbol in sorted(map(int, np.flatnonzero(lengths)), key=lambda one: (lengths[one], one)):
        code <<= int(lengths[symbol]) - before
        found[symbol], before = code, int(lengths[symbol])
        code += 1
    return found


def _table(lengths: Counts) -> bytes:
    there = np.flatnonzero(lengths)
    first, last = int(there[0]), int(there[-1])
    some = lengths[first : last + 1]
    pairs = np.append(some, 0)[: 2 * -(-len(some) // 2)].reshape(-1, 2).astype(np.uint8)
    return bytes([first, last]) + (pairs[:, 0] | pairs[:, 1] << 4).tobytes()
