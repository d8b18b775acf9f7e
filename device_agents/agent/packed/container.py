"""The file around the pieces: what it holds, and unpacking it block by block."""

import hashlib
import zlib
from typing import IO, Any, Iterator, List, NamedTuple, Tuple

from . import BLOCK_BYTES, MAGIC, VERSION, pieces
from .cursor import Cursor, Damaged, Newer

MOST_BYTES = 2 << 30
"""Of the file inside; the same as of any model file (device_agents/bounded.py)."""

# A piece is never stored in more than its bytes and the number of its coding.
_SPARE_BYTES = 1
HEADER_BYTES = 1 << 21
"""At most; its blocks take some twenty times as much where they are held."""

_FIXED_BYTES = len(MAGIC) + 1 + 4
# A constant tensor has no entropy at all, and could be of any length. Beyond this a file is made to
# fill a disk: the encoder stays within it.
_EXPANSION = 1024
_SMALL_BYTES = 64 << 20
_PATIENCE_BYTES = 1 << 20


class Block(NamedTuple):
    """A tensor's bytes, or a part of the rest (no name): where they go, and how they are stored."""

    name: str
    offset: int
    size: int
    stored: int
    crc32: int


class Header(NamedTuple):
    """What a packed file says of itself; `size` and `sha256` are those of the file inside."""

    size: int
    sha256: str
    blocks: Tuple[Block, ...]


def is_packed(head: bytes) -> bool:
    """Tell by its first bytes whether a file is packed."""
    return head[: len(MAGIC)] == MAGIC


def read_header(source: IO[bytes], stored_bytes: int, most_bytes: int = MOST_BYTES) -> Header:
    """Read the header of a packed file of so many bytes; the source stands at the first block then.

    Raises:
        Newer: the file is of a later version.
        Damaged: it is no packed file, or not as it was written.
    """
    fixed = source.read(_FIXED_BYTES)
    if not is_packed(fixed):
        raise Damaged("it does not begin as a packed file does")
    if len(fixed) < _FIXED_BYTES:
        raise Damaged("it ends within its header")
    if fixed[len(MAGIC)] > VERSION:
        raise Newer(
            "it is of version %d of the layout, and this edgewright reads up to version %d"
            % (fixed[len(MAGIC)], VERSION)
        )
    length = int.from_bytes(fixed[-4:], "little")
    if length > HEADER_BYTES:
        raise Damaged("its header would have %d bytes" % length)
    text = source.read(length + 4)
    if len(text) < length + 4:
        raise Damaged("it ends within its header")
    if zlib.crc32(fixed + text[:-4]) != int.from_bytes(text[-4:], "little"):
        raise Damaged("its header is not as it was written")
    if fixed[len(MAGIC)] != VERSION:
        raise Damaged("no layout has the version %d" % fixed[len(MAGIC)])
    header = _header(Cursor(text[:-4]), most_bytes)
    inside = sum(block.stored for block in header.blocks)
    if _FIXED_BYTES + length + 4 + inside != stored_bytes:
        raise Damaged("it has %d bytes, of which its blocks are %d" % (stored_bytes, inside))
    if header.size > most_held(stored_bytes):
        raise Damaged("its %d bytes say that they hold %d" % (stored_bytes, header.size))
    return header


def most_held(stored_bytes: int) -> int:
    """Return how many bytes a packed file of so many may hold."""
    return max(_SMALL_BYTES, _EXPANSION * stored_bytes)


def _header(cursor: Cursor, most_bytes: int) -> Header:
    size, sha256 = cursor.number(8), cursor.take(32).hex()
    if size > most_bytes:
        raise Damaged("it holds %d bytes, and %d are the most that is taken" % (size, most_bytes))
    blocks: List[Block] = []
    end = tensors = others = 0
    for _ in range(cursor.varint(cursor.left)):
        name = str(cursor.take(cursor.varint(cursor.left)), "utf-8", "replace")
        skipped, made = cursor.varint(size), cursor.varint(BLOCK_BYTES)
        stored, crc32 = cursor.varint(made + _SPARE_BYTES), cursor.number(4)
        offset = end + skipped if name else others
        if name:
            end, tensors = offset + made, tensors + made
        else:
            others += made
        blocks.append(Block(name, offset, made, stored, crc32))
    if cursor.left or end > size or tensors + others != size:
        raise Damaged("its blocks do not make the %d bytes that it is to hold" % size)
    return Header(size, sha256, tuple(blocks))


def unpack(
    source: IO[bytes], stored_bytes: int, target: Any, most_bytes: int = MOST_BYTES
) -> Header:
    """Unpack a file into an empty one that can be read too, and hold its hash against the header's.

    Memory is bounded by a dozen blocks, however pieces lie in each other; an honest file takes less
    than half of that.

    Raises:
        Newer: see `read_header`.
        Damaged: the same, or a block or the whole is not what was packed; the target is worthless.
    """
    header = read_header(source, stored_bytes, most_bytes)
    gaps = _gaps(header)
    start, left = next(gaps, (0, 0))
    for block in header.blocks:
        found = memoryview(read_block(source, block))
        if block.name:
            target.seek(block.offset)
            target.write(found)
            continue
        while found:
            if not left:
                start, left = next(gaps)
            target.seek(start)
            written = target.write(found[:left])
            start, left, found = start + written, left - written, found[written:]
    if sha256_of(target) != header.sha256:
        raise Damaged("what it holds has not the hash of the file that was packed")
    return header


def read_block(source: IO[bytes], block: Block) -> Any:
    """Return the bytes of the block that the source stands at, (size,) uint8; raises Damaged."""
    text = source.read(block.stored)
    named = "tensor %.80r" % block.name if block.name else "the rest"
    if len(text) < block.stored:
        raise Damaged("it ends within %s" % named)
    if zlib.crc32(text) != block.crc32:
        raise Damaged("%s is not as it was written" % named)
    try:
        return pieces.decode(Cursor(text), block.size)
    except Damaged as error:
        raise Damaged("%s: %s" % (named, error)) from error


def _gaps(header: Header) -> Iterator[Tuple[int, int]]:
    """Yield (offset, bytes) of what the tensors leave."""
    at = 0
    for block in header.blocks:
        if block.name:
            if block.offset > at:
                yield at, block.offset - at
            at = block.offset + block.size
    if at < header.size:
        yield at, header.size - at


def sha256_of(file: IO[bytes]) -> str:
    """Return the hash of an open file, read from its start."""
    file.seek(0)
    found = hashlib.sha256()
    for text in iter(lambda: file.read(_PATIENCE_BYTES), b""):
        found.update(text)
    return found.hexdigest()
