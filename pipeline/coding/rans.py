"""The encoder of device_agents/agent/packed/rans.py, which says how a stream is laid out.

rANS is last in, first out: symbols are pushed from the last to the first. Before a group of steps a
state that would not stay below 2^63 gives its low 32 bits away as a word; the decoder takes that up
after the same group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from device_agents.agent.packed.rans import STATE_BITS, WORD_BITS, group_steps, steps_of
from pipeline.coding.distributions import cross_entropy, to_frequencies
from pipeline.coding.lanes import choose_lanes
from pipeline.coding.varint import varint

if TYPE_CHECKING:
    import numpy.typing as npt

    from pipeline.coding.distributions import Bytes, Counts

_BITS = (8, 10, 12, 13, 14)
_CLASSES_BITS = (10, 12)  # the tables of all classes together should stay in the cache
# A state is stored in eight bytes, of which the 31 bits that it begins with and half of those that
# it was filled up by say nothing.
LANE_BYTES = 6.0
_TOP_BITS = STATE_BITS + WORD_BITS


@dataclass(frozen=True, slots=True)
class Code:
    """Frequencies by class, (classes, 256) with the sums 2^bits; `size` of a stream, about."""

    bits: int
    frequencies: Counts
    lanes: int
    size: float


def make_code(counts: Counts) -> Code:
    """Return the code in which symbols that occur so often, (256,), make the smallest stream.

    At least one must occur.
    """

    def of(bits: int) -> Code:
        frequencies, coded = _fit(counts[None], bits)
        lanes = choose_lanes(
            int(counts.sum()), coded_bytes=coded, lane_bytes=LANE_BYTES, group=group_steps(bits)
        )
        return Code(bits, frequencies, lanes, coded + LANE_BYTES * lanes)

    return min(map(of, _BITS), key=lambda code: code.size)


def encode(symbols: Bytes, code: Code) -> bytes:
    """Return the stream of symbols (n,), all of which have a frequency."""
    steps = steps_of(len(symbols), code.lanes, code.bits)
    padded = np.full(steps * code.lanes, code.frequencies.argmax(), np.uint8)
    padded[: len(symbols)] = symbols
    rows = padded.reshape(steps, code.lanes)
    return _stream(code, rows, np.zeros((1, code.lanes), np.intp), steps)


def make_classes_code(counts: Counts, cells: int, length: int) -> Code:
    """Return the code for so many cells of a length; counts by class (classes, 256), none empty."""

    def of(bits: int) -> Code:
        frequencies, coded = _fit(counts, bits)
        lanes = choose_lanes(cells, coded_bytes=coded, lane_bytes=LANE_BYTES, length=length)
        return Code(bits, frequencies, lanes, coded + LANE_BYTES * lanes)

    return min(map(of, _CLASSES_BITS), key=lambda code: code.size)


def encode_classes(cells: Bytes, of_cell: Bytes, code: Code) -> bytes:
    """Return the stream of cells (cells, length) of classes (cells,)."""
    (count, length), lanes = cells.shape, code.lanes
    turns = -(-count // lanes)
    # What is over the cells is of class 0, as the decoder takes it.
    classes = np.zeros(turns * lanes, np.intp)
    classes[:count] = of_cell
    common = code.frequencies.argmax(axis=1).astype(np.uint8)
    padded = np.full((turns * lanes, length), common[0], np.uint8)
    padded[:count] = cells
    rows = padded.reshape(turns, lanes, length).transpose(0, 2, 1).reshape(-1, lanes)
    steps = steps_of(len(rows), 1, code.bits)
    by_turn = classes.reshape(turns, lanes)
    over = np.broadcast_to(common[by_turn[-1]], (steps - len(rows), lanes))
    return _stream(code, np.concatenate([rows, over]), by_turn, length)


def _fit(counts: Counts, bits: int) -> tuple[Counts, float]:
    """Return frequencies by class, and the bytes of the symbols with the tables."""
    frequencies = np.stack([to_frequencies(one, bits) for one in counts])
    coded = 0.0
    for one, code in zip(counts, frequencies, strict=True):
        coded += one.sum() * cross_entropy(one, code) / 8 + len(_table(code))
    return frequencies, coded


def _stream(code: Code, rows: Bytes, classes: npt.NDArray[np.intp], length: int) -> bytes:
    """Return a stream of (steps, lanes) symbols of the class classes[step // length, lane]."""
    group = group_steps(code.bits)
    frequencies = code.frequencies.astype(np.uint64)
    starts = np.cumsum(frequencies, axis=1) - frequencies
    shift, room = np.uint64(code.bits), np.uint64(_TOP_BITS - group * code.bits)
    state = np.full(code.lanes, 1 << STATE_BITS, np.uint64)
    words: list[bytes] = []
    for first in range(len(rows) - group, -1, -group):
        together = rows[first : first + group]
        turn = np.minimum(np.arange(first, first + group) // length, len(classes) - 1)
        places = (classes[turn], together)
        factors = frequencies[places]
        full = (state >= factors.prod(axis=0) << room).nonzero()[0]
        words.append(state[full].astype("<u4").tobytes())
        state[full] >>= np.uint64(WORD_BITS)
        for factor, start in zip(factors[::-1], starts[places][::-1], strict=True):
            quotient, remainder = np.divmod(state, factor)
            state = (quotient << shift) + remainder + start
    head = bytes([code.bits]) + b"".join(map(_table, code.frequencies)) + varint(code.lanes)
    return head + state.astype("<u8").tobytes() + b"".join(reversed(words))


def _table(frequencies: Counts) -> bytes:
    there = np.flatnonzero(frequencies)
    first, last = int(there[0]), int(there[-1])
    text = bytearray([first, last])
    at = first
    for symbol in there.tolist():
        if symbol > at:
            text += varint(0) + varint(symbol - at - 1)
        text += varint(int(frequencies[symbol]))
        at = symbol + 1
    return bytes(text)
