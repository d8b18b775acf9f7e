"""A FlatBuffers reader that believes nothing: every offset is held against the end of the file.

The generated readers follow whatever offset they find, so a damaged file ends them anywhere. Here a
`Schema` says of each table which fields are tables, vectors, strings or numbers, and `verify`
walks all of it once, before anything is read.

Format: https://flatbuffers.dev/internals.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Content = Any  # bytes or a read-only mmap: what struct reads from

Schema = "Mapping[str, Mapping[int, str]]"
"""Table -> field -> kind: `u8` to `i64`, `f32` (numbers), `[i32]` (a vector of them), `string`,
`Table` (one), `[Table]` (a vector of tables), `any` (a table whose fields are not known)."""

_NUMBERS = {"u8": "B", "i8": "b", "u16": "H", "u32": "I", "i32": "i", "f32": "f"} | {
    "i64": "q",
    "u64": "Q",
}
_WIDTHS = {kind: struct.calcsize("<" + code) for kind, code in _NUMBERS.items()}
_DEEPEST = 64


class DamagedError(ValueError):
    """A file that ends too early or points outside itself; the text says where."""


@dataclass(slots=True)
class Reader:
    """Reads tables of one file; a table is named by its position."""

    content: Content
    schema: Mapping[str, Mapping[int, str]]
    _seen: set[tuple[int, str]] = field(default_factory=set)

    def root(self) -> int:
        """Return the root table."""
        return self._target(0)

    def verify(self, table: int, kind: str, depth: int = 0) -> None:
        """Walk a table and everything below it; raises DamagedError.

        What several tables share is walked once, so the time grows with the file and no faster.
        """
        if (table, kind) in self._seen:
            return
        self._seen.add((table, kind))
        if depth > _DEEPEST:
            raise DamagedError(f"its tables lie more than {_DEEPEST} deep in each other")
        size = self._layout(table)[2]
        if kind == "any":
            return
        for number, wanted in self.schema[kind].items():
            place = self._place(table, number)
            if place is None:
                continue
            offset = place - table
            if offset + _WIDTHS.get(wanted, 4) > size:
                raise DamagedError(f"field {number} of a {kind} at byte {table} overruns it")
            self._verify_field(place, wanted, depth)

    def number(self, table: int, number: int, kind: str, default: Any = 0) -> Any:
        """Return a number of a table, or its default where the table holds none."""
        place = self._place(table, number)
        return default if place is None else self._number(kind, place)

    def numbers(self, table: int, number: int, kind: str) -> tuple[Any, ...] | None:
        """Return a vector of numbers; None where the table holds none."""
        place = self._place(table, number)
        if place is None:
            return None
        start, count = self._vector(place, _WIDTHS[kind])
        return struct.unpack_from(f"<{count}{_NUMBERS[kind]}", self.content, start)

    def span(self, table: int, number: int, width: int = 1) -> tuple[int, int]:
        """Return (first byte, count) of a vector of elements so wide; (0, 0) without one."""
        place = self._place(table, number)
        return (0, 0) if place is None else self._vector(place, width)

    def length(self, table: int, number: int) -> int:
        """Return how many elements a vector of bytes or tables has; 0 where there is none."""
        return self.span(table, number)[1]

    def text(self, table: int, number: int, most: int | None = None) -> str:
        """Return a string, of at most so many bytes; empty where the table holds none."""
        place = self._place(table, number)
        if place is None:
            return ""
        start, count = self._vector(place, 1)
        count = count if most is None else min(count, most)
        return bytes(self.content[start : start + count]).decode("utf-8", "replace")

    def table(self, table: int, number: int) -> int | None:
        """Return a table that a field refers to."""
        place = self._place(table, number)
        return None if place is None else self._target(place)

    def tables(self, table: int, number: int) -> list[int]:
        """Return the tables of a vector."""
        place = self._place(table, number)
        return [] if place is None else list(self._elements(place))

    def _verify_field(self, place: int, wanted: str, depth: int) -> None:
        if wanted in _NUMBERS:
            return
        if wanted == "string":
            self._vector(place, 1)
        elif wanted.startswith("["):
            element = wanted[1:-1]
            if element in _NUMBERS:
                self._vector(place, _WIDTHS[element])
                return
            for target in self._elements(place):
                self.verify(target, element, depth + 1)
        else:
            self.verify(self._target(place), wanted, depth + 1)

    def _elements(self, place: int) -> Iterator[int]:
        start, count = self._vector(place, 4)
        return (self._target(start + 4 * index) for index in range(count))

    def _vector(self, place: int, width: int) -> tuple[int, int]:
        """Return (first element, count) of the vector that a field refers to."""
        start = self._target(place)
        count = self._number("u32", start)
        end = start + 4 + count * width
        if end > len(self.content):
            raise DamagedError(
                f"a vector at byte {start} would end at byte {end} of {len(self.content)}"
            )
        return start + 4, count

    def _target(self, place: int) -> int:
        return place + int(self._number("u32", place))

    def _layout(self, table: int) -> tuple[int, int, int]:
        """Return (vtable, bytes of the vtable, bytes of the table)."""
        vtable = table - int(self._number("i32", table))
        slots, size = self._number("u16", vtable), self._number("u16", vtable + 2)
        if slots < 4 or slots % 2 or vtable + slots > len(self.content):
            raise DamagedError(f"the table at byte {table} has no layout")
        if size < 4 or table + size > len(self.content):
            raise DamagedError(f"the table at byte {table} would end behind the file")
        return vtable, slots, size

    def _place(self, table: int, number: int) -> int | None:
        """Return where a field lies; None where the table does not hold it."""
        vtable, slots, _ = self._layout(table)
        if 4 + 2 * number + 2 > slots:
            return None
        offset = int(self._number("u16", vtable + 4 + 2 * number))
        return table + offset if offset else None

    def _number(self, kind: str, place: int) -> Any:
        if place < 0 or place + _WIDTHS[kind] > len(self.content):
            raise DamagedError(f"it points to byte {place} of {len(self.content)}")
        return struct.unpack_from("<" + _NUMBERS[kind], self.content, place)[0]
