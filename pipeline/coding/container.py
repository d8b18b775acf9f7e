"""Packing a file: its weight tensors block by block, and the rest."""

from __future__ import annotations

import hashlib
import io
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from device_agents.agent.packed import BLOCK_BYTES, MAGIC, VERSION
from device_agents.agent.packed.container import unpack
from device_agents.agent.packed.cursor import Damaged
from device_agents.agent.packed.pieces import NAMES
from device_agents.errors import VerificationError
from pipeline.coding.pieces import Shape, smallest
from pipeline.coding.varint import varint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from device_agents.model_files.weights import Weights


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
        name = self.name.encode("utf-8", "replace")
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
        weights: where tensors lie in it: in order, apart from each other, each with a name.
        tell: called with the name of what is packed next.

    Raises:
        VerificationError: it does not unpack to the file, which is a fault of ours.
    """
    blocks: list[_Block] = []
    tensors: list[PackedTensor] = []
    rest = bytearray()
    end = 0
    for one in weights:
        tell(one.name)
        rest += content[end : one.offset]
        mine = _tensor_blocks(content, one, skipped=one.offset - end)
        blocks += mine
        codings = tuple(NAMES[block.piece[0]] for block in mine)
        tensors.append(PackedTensor(one, sum(len(block.piece) for block in mine), codings))
        end = one.offset + one.size
    rest += content[end:]
    tell("the rest")
    others = [
        _block("", 0, bytes(rest[at : at + BLOCK_BYTES])) for at in range(0, len(rest), BLOCK_BYTES)
    ]
    made = _assemble(content, [*blocks, *others])
    _check(made, content)
    return Packed(
        made,
        hashlib.sha256(content).hexdigest(),
        tuple(tensors),
        len(rest),
        sum(len(block.piece) for block in others),
    )


def _tensor_blocks(content: bytes, weights: Weights, *, skipped: int) -> list[_Block]:
    """Return a tensor's blocks; those of one that needs several end at whole rows if they can."""
    row = weights.size // weights.dims[0] if weights.dims and weights.dims[0] else weights.width
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
