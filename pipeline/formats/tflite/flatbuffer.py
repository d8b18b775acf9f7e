"""A FlatBuffers builder fast enough for a search, filled by the official schema's functions.

The generated schema writes through a few methods of a builder (`StartObject`,
`PrependInt32Slot`, …). `Builder` has those methods, but packs a table at once instead of field by
field and copies weights once, into the file, instead of three times. Weights are 16-byte aligned
as the schema asks, which neither official converter's files are.

Format: https://flatbuffers.dev/internals. A file is built from its end, and an offset counts bytes
from that end, so that everything a table refers to has its place before the table is written.
"""

# ruff: noqa: N802 - generated code calls these methods by their own names

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

ALIGNMENT = 16

_Layout = tuple[tuple[int, int], ...]
"""(slot, width in bytes) of the fields a table holds, in their order in memory."""


class Builder:
    """Collects chunks of a file from the end backwards; `offset` is its size so far."""

    def __init__(self) -> None:
        self.offset = 0
        self._chunks: list[Any] = []
        self._shared: dict[tuple[str, bytes], int] = {}
        self._vtables: dict[tuple[int, _Layout], int] = {}
        self._slots = 0
        self._words: list[tuple[int, int, bool]] = []
        self._bytes: list[tuple[int, int]] = []

    # What generated code calls.

    def StartObject(self, slots: int) -> None:
        """Begin a table with room for `slots` fields."""
        self._slots = slots
        self._words, self._bytes = [], []

    def PrependUOffsetTRelativeSlot(self, slot: int, value: int, default: int) -> None:
        """Refer to something already written."""
        if value != default:
            self._words.append((slot, value, True))

    def PrependInt32Slot(self, slot: int, value: int, default: int) -> None:
        """Set a 4-byte field unless it has its default."""
        if value != default:
            self._words.append((slot, value & 0xFFFFFFFF, False))

    PrependUint32Slot = PrependInt32Slot

    def PrependFloat32Slot(self, slot: int, value: float, default: float) -> None:
        """Set a 4-byte field of a real number unless it has its default."""
        if value != default:
            self._words.append((slot, *struct.unpack("<I", struct.pack("<f", value)), False))

    def PrependInt8Slot(self, slot: int, value: int, default: int) -> None:
        """Set a 1-byte field unless it has its default."""
        if value != default:
            self._bytes.append((slot, value & 0xFF))

    PrependUint8Slot = PrependInt8Slot
    PrependBoolSlot = PrependInt8Slot

    def EndObject(self) -> int:
        """Write the table: offset to its vtable, 4-byte fields, 1-byte fields."""
        size = 4 + 4 * len(self._words) + len(self._bytes)
        padding = -size % 4
        table = self.offset + size + padding
        layout = (
            *((slot, 4) for slot, _, _ in self._words),
            *((slot, 1) for slot, _ in self._bytes),
        )
        words = [
            table - 4 - 4 * index - value if relative else value
            for index, (_, value, relative) in enumerate(self._words)
        ]
        key = (self._slots, layout)
        vtable = self._vtables.get(key)
        added = b""
        if vtable is None:
            added = _vtable(self._slots, layout, size)
            vtable = self._vtables[key] = table + len(added)
        head = struct.pack(f"<i{len(words)}I", vtable - table, *words)
        self._push(head + bytes(value for _, value in self._bytes) + bytes(padding))
        if added:
            self._push(added)
        return table

    # What the writer calls.

    def vector(self, payload: Any, count: int, alignment: int = 4) -> int:
        """Write `count` elements given as bytes, their first one aligned."""
        size = len(payload)
        self._push(bytes(-(self.offset + size) % alignment))
        self._push(payload)
        self._push(struct.pack("<I", count))
        return self.offset

    def array(self, values: npt.NDArray[Any]) -> int:
        """Write an array's bytes as a vector of bytes, aligned for any use."""
        little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        payload = little.reshape(-1).view(np.uint8)
        return self.vector(payload.data, len(payload), ALIGNMENT)

    def shared(self, kind: str, payload: bytes, count: int, alignment: int = 4) -> int:
        """Write a vector once per kind and content."""
        key = (kind, payload)
        if key not in self._shared:
            self._shared[key] = self.vector(payload, count, alignment)
        return self._shared[key]

    def ints(self, values: Sequence[int]) -> int:
        """Write a vector of int32."""
        return self.shared("i", struct.pack(f"<{len(values)}i", *values), len(values))

    def string(self, text: str) -> int:
        """Write a string: a vector of bytes that ends in a zero which does not count."""
        payload = text.encode()
        padding = bytes(1 + -(len(payload) + 1) % 4)
        return self.shared("s", payload + padding, len(payload))

    def references(self, offsets: Sequence[int]) -> int:
        """Write a vector of references to tables."""
        first = self.offset + 4 * len(offsets)
        places = [first - 4 * index - offset for index, offset in enumerate(offsets)]
        return self.vector(struct.pack(f"<{len(places)}I", *places), len(places))

    def finish(self, root: int, identifier: bytes) -> bytes:
        """Return the file whose root table is `root`."""
        self._push(bytes(-(self.offset + 8) % ALIGNMENT))
        self._push(struct.pack("<I4s", self.offset + 8 - root, identifier))
        return b"".join(reversed(self._chunks))

    def _push(self, chunk: Any) -> None:
        self._chunks.append(chunk)
        self.offset += len(chunk)


def _vtable(slots: int, layout: _Layout, size: int) -> bytes:
    """Return a vtable: its size, the table's size, each field's place in the table or 0."""
    places, at = [0] * slots, 4
    for slot, width in layout:
        places[slot], at = at, at + width
    while places and not places[-1]:
        places.pop()
    length = 4 + 2 * len(places)
    return struct.pack(f"<{2 + len(places)}H", length, size, *places) + bytes(-length % 4)
