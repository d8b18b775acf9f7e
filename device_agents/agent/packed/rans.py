"""Range asymmetric numeral systems (rANS), decoded in many lanes at once.

Duda, "Asymmetric numeral systems", arXiv:1311.2540; interleaved as in Giesen, "Interleaved entropy
coders", arXiv:1402.3392. Symbol i belongs to lane i mod L, so a step of all lanes is a handful of
numpy calls over L numbers and gives L symbols in a row. Unusual here: the states have 63 bits and
are filled up by 32, and only once in a group of 31 // bits steps. A state that begins the group at
2^31 or more has bits enough for all of it, so the filling, which is what vectorises badly, comes
half or a third as often. The encoder (pipeline/coding/rans.py) mirrors the groups.

A stored stream is: bits u8, the frequencies (of each class), lanes varint, a state (u64) of each
lane, words (u32). Of the frequencies: first and last symbol u8, a varint for each from one to the
other; a 0 is followed by a varint, how many more zeros there are.
"""

from itertools import repeat
from typing import Any, Iterator, Tuple

import numpy as np

from .cursor import Cursor, Damaged

FEWEST_BITS, MOST_BITS = 8, 14
"""Of a probability: they are whole numbers of 2^-bits."""

STATE_BITS = 31
WORD_BITS = 32
MOST_CLASSES = 16
MOST_LANES = 1 << 12
MOST_STEPS = 1 << 14
"""Bounds the time that a hostile file takes: a step costs the same, whether of one lane or many."""


def group_steps(bits: int) -> int:
    """Return how many steps a lane takes before it may have to be filled up."""
    return STATE_BITS // bits


def steps_of(count: int, lanes: int, bits: int) -> int:
    """Return the steps for `count` symbols, in whole groups; what is over them is padding."""
    group = group_steps(bits)
    return -(-count // (lanes * group)) * group


def decode(cursor: Cursor, count: int) -> Any:
    """Return `count` symbols, (count,) uint8; raises Damaged."""
    bits, tables = _tables(cursor, 1)
    lanes = cursor.varint(MOST_LANES)
    steps = steps_of(count, lanes, bits) if lanes else 0
    return _decode(cursor, lanes, steps, tables, bits).reshape(-1)[:count]


def decode_classes(cursor: Cursor, of_cell: Any, length: int, classes: int) -> Any:
    """Return the symbols of cells, (cells, length) uint8, each of a class with its own frequencies.

    A lane has cell after cell; cell i belongs to lane i mod L.

    Args:
        cursor: over a stream.
        of_cell: the class of each cell, (cells,) below `classes`, at least one.
        length: symbols of a cell.
        classes: how many there are, at most MOST_CLASSES.

    Raises:
        Damaged: the stream is none of so many symbols.
    """
    if classes > MOST_CLASSES:
        raise Damaged("it has %d classes, and %d are the most" % (classes, MOST_CLASSES))
    bits, tables = _tables(cursor, classes)
    # Lanes without a cell would hold padding alone, as long as a cell.
    lanes = cursor.varint(min(MOST_LANES, len(of_cell)))
    turns = -(-len(of_cell) // lanes) if lanes else 0
    steps = steps_of(turns * length, 1, bits)
    padded = np.zeros(turns * lanes, np.uint8)
    padded[: len(of_cell)] = of_cell
    found = _decode(cursor, lanes, steps, tables, bits, padded.reshape(turns, lanes), length)
    by_cell = found[: turns * length].reshape(turns, length, lanes).transpose(0, 2, 1)
    return by_cell.reshape(turns * lanes, length)[: len(of_cell)]


def _tables(cursor: Cursor, classes: int) -> Tuple[int, Any]:
    """Return the bits of probabilities, and by class the frequencies, (classes, 256)."""
    bits = cursor.byte()
    if not FEWEST_BITS <= bits <= MOST_BITS:
        raise Damaged("its probabilities have %d bits" % bits)
    return bits, np.array([_frequencies(cursor, bits) for _ in range(classes)])


def _frequencies(cursor: Cursor, bits: int) -> Any:
    """Return how often each symbol is expected, (256,) int64, in sum 2^bits."""
    found = np.zeros(256, np.int64)
    symbol, last = cursor.byte(), cursor.byte()
    while symbol <= last:
        found[symbol] = cursor.varint(1 << bits)
        symbol += 1 if found[symbol] else 1 + cursor.varint(last - symbol)
    if found.sum() != 1 << bits:
        raise Damaged("its probabilities are not 1 together")
    return found


def _decode(
    cursor: Cursor,
    lanes: int,
    steps: int,
    tables: Any,
    bits: int,
    classes: Any = None,
    length: int = 1,
) -> Any:
    """Return (steps, lanes) symbols; a lane has the class classes[step // length, lane], if any."""
    if not lanes or steps > MOST_STEPS:
        raise Damaged("it takes %d steps of %d lanes" % (steps, lanes))
    stored = np.frombuffer(cursor.take(8 * lanes), "<u8")
    # As Python's own numbers: numpy before 2 takes no such shift of its unsigned ones.
    if int(stored.min()) >> STATE_BITS == 0 or int(stored.max()) >> (STATE_BITS + WORD_BITS):
        raise Damaged("a state is out of its range")
    if cursor.left % 4:
        raise Damaged("a word is cut")
    state, words, used = stored.astype(np.int64), np.frombuffer(cursor.rest(), "<u4"), 0
    # By class and slot, the low bits of a state: a symbol, how frequent it is, and the slot among
    # its slots.
    symbols, factors, offsets = (np.concatenate(every) for every in zip(*map(_by_slot, tables)))
    found = np.empty((steps, lanes), np.uint8)
    slot, factor, offset = (np.empty(lanes, np.int64) for _ in range(3))
    mask, least, group = (1 << bits) - 1, 1 << STATE_BITS, group_steps(bits)
    starts = None if classes is None else _starts(classes, bits, length)
    for first in range(0, steps, group):
        for step in range(first, first + group):
            np.bitwise_and(state, mask, slot)
            if starts is not None:
                np.add(slot, next(starts), slot)
            # "clip" looks nothing up outside either, and is the mode that writes without a buffer.
            symbols.take(slot, 0, found[step], "clip")
            factors.take(slot, 0, factor, "clip")
            offsets.take(slot, 0, offset, "clip")
            np.right_shift(state, bits, state)
            np.multiply(state, factor, state)
            np.add(state, offset, state)
        low = (state < least).nonzero()[0]
        if len(low):
            more = words[used : used + len(low)]
            used += len(low)
            if len(more) < len(low):
                raise Damaged("its words end too early")
            state[low] = state[low] << WORD_BITS | more
    if used != len(words) or (state != least).any():
        raise Damaged("its words do not end where its symbols do")
    return found


def _starts(classes: Any, bits: int, length: int) -> Iterator[Any]:
    """Yield where the slots of the class of each lane start, (lanes,) int64, step by step."""
    for turn in classes:
        found = turn.astype(np.int64) << bits
        yield from repeat(found, length)
    # The last group may go on behind the last cell.
    yield from repeat(found)


def _by_slot(frequencies: Any) -> Tuple[Any, Any, Any]:
    """Return symbol, its frequency and the place among its slots, by slot."""
    symbols = np.repeat(np.arange(256, dtype=np.uint8), frequencies)
    before = np.cumsum(frequencies) - frequencies
    return symbols, frequencies[symbols], np.arange(len(symbols)) - before[symbols]
