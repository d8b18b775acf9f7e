"""Packing a file: its weight tensors block by block, and the rest."""

from __future__ import annotations

import hashlib
import io
import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from device_agents.agent.packed import BLOCK_BYTES, MAGIC, VERSION
from device_agents.agent.packed.container import most_held, unpack
from device_agents.agent.packed.cursor import Damaged
from device_agents.agent.packed.pieces import DEFLATE, NAMES
from device_agents.errors import VerificationError
from pipeline.coding.pieces import Shape, smallest
from pipeline.coding.varint import varint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from device_agents.model_files.weights import Weights

# So long a name is shown when a block is damaged. With it and so many tensors, of which each block
# has half of BLOCK_BYTES or is the last, a header is far below HEADER_BYTES.
_NAME_BYTES = 80
_MOST_TENSORS = 1 << 14


@dataclass(frozen=True, slots=True)
class PackedTensor:
    """A tensor that has been packed; `codings` of its blocks, such as ("rans",)."""

    weights: Weights
    stored_bytes: int
    codings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed file.

    Attributes:
        content: of the file.
        sha256: of the file inside.
        tensors: in the order of that.
        rest_bytes: of that, what is in no tensor, and `rest_stored_bytes`, what it takes here.
    """

    content: bytes = field(repr=False)
    sha256: str
    tensors: tuple[PackedTensor, ...]
    rest_bytes: int
    rest_stored_bytes: int


@dataclass(frozen=True, slots=True)
class _Block:
    name: str
    skipped: int
    content: bytes
    piece: bytes

    def entry(self) -> bytes:
        name = self.name.encode("utf-8", "replace")[:_NAME_BYTES]
        sizes = (self.skipped, len(self.content), len(self.piece))
        crc32 = zlib.crc32(self.piece).to_bytes(4, "little")
        return varint(len(name)) + name + b"".join(map(varint, sizes)) + crc32


def pack(
    content: bytes,
    weights: Sequence[Weights] = (),
    *,
    tell: Callable[[str], object] = lambda _: None,
) -> Packed:
    """Return a file packed, which has been unpacked and compared.

    Args:
        content: of the file.
        weights: where tensors lie in it: in order, apart from each other, each with a name. Of more
            than 16,384, the smallest are taken for the rest.
        tell: called with the name of what is packed next.

    Raises:
        VerificationError: it does not unpack to the file, which is a fault of ours.
    """
    blocks: list[_Block] = []
    own = _largest(weights)
    ends: list[int] = []
    rest = bytearray()
    end = 0
    for one in own:
        tell(one.name)
        rest += content[end : one.offset]
        blocks += _tensor_blocks(content, one, skipped=one.offset - end)
        ends.append(len(blocks))
        end = one.offset + one.size
    rest += content[end:]
    tell("the rest")
    blocks += [
        _block("", 0, bytes(rest[at : at + BLOCK_BYTES])) for at in range(0, len(rest), BLOCK_BYTES)
    ]
    blocks = _not_too_small(blocks, len(content))
    made = _assemble(content, blocks)
    _check(made, content)
    return Packed(
        made,
        hashlib.sha256(content).hexdigest(),
        tuple(
            _tensor(one, blocks[start:stop])
            for one, start, stop in zip(own, [0, *ends], ends, strict=False)
        ),
        len(rest),
        sum(len(block.piece) for block in blocks if not block.name),
    )


def _largest(weights: Sequence[Weights]) -> list[Weights]:
    """Return the tensors that get blocks of their own, in order."""
    kept = sorted(weights, key=lambda one: one.size, reverse=True)[:_MOST_TENSORS]
    return sorted(kept, key=lambda one: one.offset)


def _tensor(weights: Weights, blocks: Sequence[_Block]) -> PackedTensor:
    codings = tuple(NAMES[block.piece[0]] for block in blocks)
    return PackedTensor(weights, sum(len(block.piece) for block in blocks), codings)


def _not_too_small(blocks: Sequence[_Block], size: int) -> list[_Block]:
    """Return blocks that may hold a file of `size` bytes.

    One that holds next to nothing looks like one that is made to fill a disk, and is not unpacked;
    so its emptiest blocks are deflated by the fixed code instead, in which a match of 258 bytes
    takes 13 bits: never more than 159:1.
    """
    found = list(blocks)
    stored = sum(len(block.piece) for block in found)
    emptiest = sorted(
        range(len(found)), key=lambda at: len(found[at].piece) / len(found[at].content)
    )
    for at in emptiest:
        if size <= most_held(stored):
            break
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_FIXED)
        piece = bytes([DEFLATE]) + packer.compress(found[at].content) + packer.flush()
        if len(piece) > len(found[at].piece):
            stored += len(piece) - len(found[at].piece)
            found[at] = replace(found[at], piece=piece)
    return found


def _tensor_blocks(content: bytes, weights: Weights, *, skipped: int) -> list[_Block]:
    """Return a tensor's blocks; those of one that needs several end at whole rows if they can."""
    # Of types of less than a byte, and where dimensions lie, a row may have none.
    first = weights.dims[0] if weights.dims else 0
    row = (weights.size // first if first else 0) or weights.width
    whole = row if row <= BLOCK_BYTES and not weights.size % row else weights.width
    longest = BLOCK_BYTES // whole * whole
    found = []
    for start in range(0, weights.size, longest):
        size = min(longest, weights.size - start)
        dims = weights.dims
        if size < weights.size:
            dims = (size // row, *dims[1:]) if whole == row and dims else ()
        at = weights.offset + start
        shape = Shape(weights.width, dims)
        found.append(_block(weights.name, 0 if start else skipped, content[at : at + size], shape))
    return found


def _block(name: str, skipped: int, content: bytes, shape: Shape | None = None) -> _Block:
    return _Block(name, skipped, content, smallest(content, shape))


def _assemble(content: bytes, blocks: Sequence[_Block]) -> bytes:
    header = len(content).to_bytes(8, "little") + hashlib.sha256(content).digest()
    header += varint(len(blocks)) + b"".join(block.entry() for block in blocks)
    text = MAGIC + bytes([VERSION]) + len(header).to_bytes(4, "little") + header
    text += zlib.crc32(text).to_bytes(4, "little")
    return text + b"".join(block.piece for block in blocks)


def _check(made: bytes, content: bytes) -> None:
    target = io.BytesIO()
    try:
        unpack(io.BytesIO(made), len(made), target)
    except Damaged as error:
        raise VerificationError(f"the packed file does not unpack: {error}") from error
    if target.getvalue() != content:
        raise VerificationError("the packed file unpacks to something else than was packed")
