"""Canonical Huffman codes, decoded in several lanes at once.

Symbol i belongs to lane i mod L; each lane has bits of its own, the highest of a byte first, padded
to whole bytes. A code has at most 15 bits, so a table of all continuations is small and its lengths
take half a byte each. Codes are given out by length, then by symbol.

A stored stream is: first and last symbol u8, the code lengths of all from one to the other (two to
a byte, 0: no code), lanes varint, the bytes of each lane varint, the lanes.
"""

from typing import Any

import numpy as np

from .cursor import Cursor, Damaged

MOST_BITS = 15
MOST_LANES = 1 << 12
MOST_STEPS = 1 << 14


def decode(cursor: Cursor, count: int) -> Any:
    """Return `count` symbols, (count,) uint8; raises Damaged."""
    lengths = _lengths(cursor)
    lanes = cursor.varint(MOST_LANES)
    steps = -(-count // lanes) if lanes else 0
    if not lanes or steps > MOST_STEPS:
        raise Damaged("%d symbols lie in %d lanes" % (count, lanes))
    sizes = [cursor.varint(cursor.left) for _ in range(lanes)]
    if sum(sizes) != cursor.left:
        raise Damaged("its lanes have %d bytes where %d are" % (sum(sizes), cursor.left))
    return _decode(cursor.rest(), np.array(sizes), steps, lengths)[:count]


def _lengths(cursor: Cursor) -> Any:
    """Return the length of each symbol's code, (256,) int64, of a code that is complete."""
    first, last = cursor.byte(), cursor.byte()
    if last < first:
        raise Damaged("its symbols end at %d before they begin at %d" % (last, first))
    count = last - first + 1
    pairs = np.frombuffer(cursor.take(-(-count // 2)), np.uint8)
    found = np.zeros(256, np.int64)
    found[first : last + 1] = np.stack([pairs & 15, pairs >> 4], 1).reshape(-1)[:count]
    shares = (1 << MOST_BITS) >> found[found > 0]
    if shares.sum() != 1 << MOST_BITS:
        raise Damaged("its codes are not complete")
    return found


def _decode(packed: Any, sizes: Any, steps: int, lengths: Any) -> Any:
    longest = int(lengths.max())
    # By the next `longest` bits: the symbol whose code they begin with, and the length of that.
    order = np.argsort(np.where(lengths > 0, lengths, MOST_BITS + 1), kind="stable")
    order = order[: np.count_nonzero(lengths)]
    counts = 1 << (longest - lengths[order])
    symbols = np.repeat(order.astype(np.uint8), counts)
    widths = np.repeat(lengths[order], counts)
    # The 32 bits from every second byte on hold any code that begins in the first 16 of them.
    padded = np.frombuffer(bytes(packed) + bytes(6 - len(packed) % 2), ">u2").astype(np.uint32)
    windows = padded[:-1] << np.uint32(16) | padded[1:]
    ends = 8 * np.cumsum(sizes)
    at = ends - 8 * sizes
    found = np.empty((steps, len(sizes)), np.uint8)
    word, low, bits, width = (np.empty(len(sizes), np.int64) for _ in range(4))
    mask = (1 << longest) - 1
    for row in found:
        np.right_shift(at, 4, word)
        np.bitwise_and(at, 15, low)
        np.subtract(32 - longest, low, low)
        bits[:] = windows.take(word, mode="clip")
        np.right_shift(bits, low, bits)
        np.bitwise_and(bits, mask, bits)
        symbols.take(bits, 0, row, "clip")
        widths.take(bits, 0, width, "clip")
        np.add(at, width, at)
    if ((at + 7) // 8 * 8 != ends).any():
        raise Damaged("a lane does not end where its symbols do")
    return found.reshape(-1)
