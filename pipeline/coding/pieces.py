"""The smallest piece (device_agents/agent/packed/pieces.py) that was found for some bytes.

Codings are tried by what they come to, their tables counted: a size is first reckoned where that is
exact enough to tell that a coding cannot win, then it is written and counted.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.agent.packed.pieces import (
    DEFLATE,
    HUFFMAN,
    PALETTE,
    PLANES,
    RANS,
    RAW,
    ROWS,
    SPARSE,
)
from pipeline.coding import huffman, rans
from pipeline.coding.distributions import count_bytes, entropy
from pipeline.coding.rows import Order, class_rows
from pipeline.coding.varint import part, varint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.coding.distributions import Bytes

_VALUES = 256
_SHARED_VALUES = 16
"""Of so few, at least two fit into a byte together."""

# A table of values pays only where values repeat: looked for in a sample before all are sorted.
_SAMPLE = 1 << 12
# From here on deflate is tried on a sample first: it takes long and rarely wins.
_DEFLATE_BYTES = 1 << 18
_DEFLATE_SAMPLE = 1 << 16
_DEFLATE_HOPE = 1.03
_FEW_ZEROS = 1 / 16
_PATTERN = 0.95


@dataclass(frozen=True, slots=True)
class Shape:
    """How bytes are divided: into elements of `width` bytes, of a tensor with `dims`, if any."""

    width: int = 1
    dims: tuple[int, ...] = ()


def smallest(content: bytes | Bytes, shape: Shape | None = None) -> bytes:
    """Return the smallest piece found that decodes to these bytes.

    Args:
        content: bytes.
        shape: of the tensor that they are; for a width that does not divide them they are bytes.
    """
    data = np.frombuffer(content, np.uint8) if isinstance(content, bytes) else content.reshape(-1)
    given = shape or Shape()
    if given.width not in (1, 2, 4, 8) or len(data) % given.width:
        given = Shape()
    return min(_candidates(data, given), key=len)


def _candidates(data: Bytes, shape: Shape) -> Iterator[bytes]:
    if shape.width == 1:
        yield _leaf(data)
        yield from _in_rows(data, shape.dims)
    else:
        yield bytes([RAW]) + data.tobytes()
    elements = data.view(f"<u{shape.width}")
    values = few_values(elements)
    if values is not None and (shape.width > 1 or len(values) <= _SHARED_VALUES):
        yield from _palettes(elements, values, shape)
    elif shape.width > 1:
        if _zeros(elements) > _FEW_ZEROS:
            yield _sparse(elements, shape.width)
        planes = data.reshape(-1, shape.width).T
        inner = Shape(1, shape.dims)
        yield bytes([PLANES, shape.width]) + b"".join(
            part(smallest(np.ascontiguousarray(plane), inner)) for plane in planes
        )
        return
    if _in_pattern(elements):
        yield _sparse(elements, shape.width)


def _leaf(data: Bytes) -> bytes:
    """Return the smallest piece without others in it."""
    best = bytes([RAW]) + data.tobytes()
    if not len(data):
        return best
    counts = count_bytes(data)
    by_rans = rans.make_code(counts)
    # Reckoned to a byte or two, which must not decide.
    if by_rans.size < len(best) + 16:
        best = min(best, bytes([RANS]) + rans.encode(data, by_rans), key=len)
    by_huffman = huffman.make_code(counts)
    if by_huffman is not None and by_huffman.size < len(best) + 16:
        best = min(best, bytes([HUFFMAN]) + huffman.encode(data, by_huffman), key=len)
    if _deflate_may_win(data, len(best)):
        best = min(best, bytes([DEFLATE]) + _deflate(data), key=len)
    return best


def _deflate(data: Bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    return packer.compress(data.tobytes()) + packer.flush()


def _deflate_may_win(data: Bytes, size: int) -> bool:
    if len(data) <= _DEFLATE_BYTES:
        return True
    starts = [(len(data) - _DEFLATE_SAMPLE) * third // 3 for third in range(4)]
    samples = [data[start : start + _DEFLATE_SAMPLE] for start in starts]
    ratio = sum(len(_deflate(some)) for some in samples) / (4 * _DEFLATE_SAMPLE)
    return ratio < _DEFLATE_HOPE * size / len(data)


def few_values(elements: Any) -> Any:
    """Return the values, sorted, of elements that have at most 256; None of others."""
    if not len(elements) or len(np.unique(elements[:_SAMPLE])) > _VALUES:
        return None
    if elements.dtype.itemsize == 1:
        return np.flatnonzero(np.bincount(elements, minlength=_VALUES)).astype(np.uint8)
    # Not all at once: a large float tensor shows in its first part that it has more.
    found = elements[:0]
    for start in range(0, len(elements), 1 << 18):
        found = np.union1d(found, elements[start : start + (1 << 18)])
        if len(found) > _VALUES:
            return None
    return found


def _palettes(elements: Any, values: Any, shape: Shape) -> Iterator[bytes]:
    """Yield pieces of the places in a table of values, several to a byte and, if wide, one."""
    indices = np.searchsorted(values, elements).astype(np.uint8)
    count = len(values)
    together = next(n for n in range(8, 0, -1) if count**n <= _VALUES)
    head = bytes([PALETTE, shape.width, count % _VALUES])
    table = values.astype(f"<u{shape.width}").tobytes()
    if together > 1:
        padded = np.append(indices, np.zeros(-len(indices) % together, np.uint8))
        digits = padded.reshape(-1, together).astype(np.int64)
        packed = digits @ count ** np.arange(together)
        yield head + bytes([together]) + table + part(_leaf(packed.astype(np.uint8)))
    if shape.width > 1:
        yield (
            head
            + bytes([1])
            + table
            + part(min((_leaf(indices), *_in_rows(indices, shape.dims)), key=len))
        )


def _zeros(elements: Any) -> float:
    """Return the share of elements that are 0; of none, 0."""
    return 1 - float(np.count_nonzero(elements)) / len(elements) if len(elements) else 0.0


def _in_pattern(elements: Any) -> bool:
    """Tell whether zeros lie in a pattern, such as 2:4, which a code of single values misses."""
    share = _zeros(elements)
    if not _FEW_ZEROS < share < 1:
        return False
    by_chance = 8 * entropy([share, 1 - share])
    return entropy(count_bytes(np.packbits(elements != 0))) < _PATTERN * by_chance


def _sparse(elements: Any, width: int) -> bytes:
    there = elements != 0
    kept = elements[there]
    head = bytes([SPARSE, width]) + varint(len(kept))
    bits = part(_leaf(np.packbits(there)))
    return head + bits + part(smallest(kept.view(np.uint8), Shape(width)))


def _in_rows(data: Bytes, dims: tuple[int, ...]) -> Iterator[bytes]:
    """Yield pieces with a code for each class of rows: of the first axis, or of the last."""
    for order in Order:
        found = class_rows(data, dims, order)
        if found is None:
            continue
        head = bytes([ROWS, order]) + varint(len(found.of_row)) + varint(found.cells_of_row)
        code = rans.make_classes_code(found.counts, *found.cells.shape)
        classes = bytes([len(found.counts)]) + part(_leaf(found.of_row))
        yield head + classes + rans.encode_classes(found.cells, found.of_cell, code)
