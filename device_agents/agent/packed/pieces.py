"""A piece: bytes in some coding, told by its first byte; most codings hold smaller pieces in turn.

Each function is given how many bytes it must make before it makes any, and makes those or raises
Damaged. Parts of a piece stand behind their varint length.

    RAW        the bytes
    HUFFMAN    huffman.py                RANS    rans.py
    DEFLATE    as in RFC 1951, without a header
    PLANES     width u8; the first bytes of all elements, the second, …, a part each
    PALETTE    width u8, number of values u8 (0: 256), how many indices share a byte u8, the values;
               a part of indices, that of the first element lowest: i0 + n * (i1 + n * (i2 + …))
    ROWS       order u8 (0: rows one after the other, 1: side by side), rows varint, cells of a row
               varint, classes u8; a part with the class of each row (u8); a stream of rans.py, in
               which each class has frequencies of its own
    SPARSE     width u8, elements that are not 0 varint; a part of bits (np.packbits), 1 for those,
               and a part of those
"""

import zlib
from typing import Any

import numpy as np

from . import huffman, rans
from .cursor import Cursor, Damaged

RAW, HUFFMAN, RANS, DEFLATE, PLANES, PALETTE, ROWS, SPARSE = range(8)
NAMES = ("raw", "huffman", "rans", "deflate", "planes", "palette", "rows", "sparse")
SIDE_BY_SIDE = 1
_DEEPEST = 6


def decode(cursor: Cursor, size: int, depth: int = 0) -> Any:
    """Return the `size` bytes of a piece, (size,) uint8; raises Damaged."""
    if depth > _DEEPEST:
        raise Damaged("its pieces lie more than %d deep in each other" % _DEEPEST)
    kind = cursor.byte()
    if kind == RAW:
        found = np.frombuffer(cursor.take(size), np.uint8)
    elif kind == HUFFMAN:
        found = huffman.decode(cursor, size)
    elif kind == RANS:
        found = rans.decode(cursor, size)
    elif kind == DEFLATE:
        found = _deflated(cursor, size)
    elif kind in _NESTED:
        found = _NESTED[kind](cursor, size, depth + 1)
    else:
        raise Damaged("no coding has the number %d" % kind)
    if cursor.left:
        raise Damaged("%d bytes are left over" % cursor.left)
    return found


def _deflated(cursor: Cursor, size: int) -> Any:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        # 0 would stand for no limit.
        found = inflater.decompress(bytes(cursor.rest()), size + 1)
    except zlib.error as error:
        raise Damaged("deflate: %s" % error) from error
    if len(found) != size or not inflater.eof or inflater.unused_data:
        raise Damaged("deflate makes %d bytes where %d belong" % (len(found), size))
    return np.frombuffer(found, np.uint8)


def _planes(cursor: Cursor, size: int, depth: int) -> Any:
    width = _width(cursor, size)
    found = np.empty((size // width, width), np.uint8)
    for at in range(width):
        found[:, at] = decode(cursor.part(), size // width, depth)
    return found.reshape(-1)


def _palette(cursor: Cursor, size: int, depth: int) -> Any:
    width = _width(cursor, size)
    count, share = cursor.byte() or 256, cursor.byte()
    if not share or count**share > 256:
        raise Damaged("a byte cannot hold %d indices of %d values" % (share, count))
    values = np.frombuffer(cursor.take(count * width), np.uint8).reshape(count, width)
    elements = size // width
    packed = decode(cursor.part(), -(-elements // share), depth)
    if packed.size and packed.max() >= count**share:
        raise Damaged("it names value %d of %d" % (packed.max(), count))
    # All that a byte may say, written out: (count^share, share * width).
    said = np.arange(count**share)
    table = np.concatenate([values[said // count**at % count] for at in range(share)], axis=1)
    # Looked up as one number each where numpy has one so wide.
    whole = {1: "u1", 2: "u2", 4: "u4", 8: "u8"}.get(table.shape[1])
    wide = table.copy().view(whole)[:, 0] if whole else table
    return np.ascontiguousarray(wide[packed]).view(np.uint8).reshape(-1)[:size]


def _rows(cursor: Cursor, size: int, depth: int) -> Any:
    order, count = cursor.byte(), cursor.varint(size)
    cells, classes = cursor.varint(size), cursor.byte()
    if order > SIDE_BY_SIDE or not count or not cells or size % (count * cells):
        raise Damaged("%d bytes are not %d rows of %d cells" % (size, count, cells))
    of_row = decode(cursor.part(), count, depth)
    if of_row.max() >= classes:
        raise Damaged("it names class %d of %d" % (of_row.max(), classes))
    length = size // count // cells
    side_by_side = order == SIDE_BY_SIDE
    of_cell = np.tile(of_row, cells) if side_by_side else np.repeat(of_row, cells)
    found = rans.decode_classes(cursor, of_cell, length, classes)
    if side_by_side:
        found = found.reshape(cells, count, length).transpose(0, 2, 1)
    return found.reshape(-1)


def _sparse(cursor: Cursor, size: int, depth: int) -> Any:
    width = _width(cursor, size)
    elements = size // width
    count = cursor.varint(elements)
    bits = decode(cursor.part(), -(-elements // 8), depth)
    kept = decode(cursor.part(), count * width, depth)
    # Unpacked now, so that pieces deep in each other do not hold all theirs at once.
    mine = np.unpackbits(bits)[:elements].view(np.bool_)
    there = int(np.count_nonzero(mine))
    if there != count:
        raise Damaged("%d of its elements are not 0, where it says %d" % (there, count))
    # A number for each element: numpy makes no indices of a mask of as many axes.
    found = np.zeros(elements, "u%d" % width)
    found[mine] = kept.view(found.dtype)
    return found.view(np.uint8)


def _width(cursor: Cursor, size: int) -> int:
    width = cursor.byte()
    if width not in (1, 2, 4, 8) or size % width:
        raise Damaged("%d bytes are no elements of %d" % (size, width))
    return width


_NESTED = {PLANES: _planes, PALETTE: _palette, ROWS: _rows, SPARSE: _sparse}
