"""A walk over the fields of a protocol buffer that believes nothing and skips what it is not asked.

Every length is held against the end of what it lies in. The encoding is that of
https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from device_agents.model_files.flatbuffer import DamagedError

if TYPE_CHECKING:
    from collections.abc import Iterator

NUMBER, EIGHT, BYTES, FOUR = 0, 1, 2, 5
"""Wire types."""

Field = tuple[int, int, int, int]
"""(number, wire type, start, end) of a field; of a number `start` is its value."""

Place = tuple[int, int]
"""(start, end) of a message or text."""


class CutError(DamagedError):
    """A field that goes on behind the end."""


def fields(content: Any, start: int, end: int) -> Iterator[Field]:
    """Yield the fields of a message; raises DamagedError."""
    at = start
    while at < end:
        tag, at = _varint(content, at, end)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise DamagedError(f"byte {at} of it is not of the format")
        if kind == NUMBER:
            value, at = _varint(content, at, end)
            yield number, kind, value, at
            continue
        if kind == BYTES:
            size, at = _varint(content, at, end)
        elif kind in (EIGHT, FOUR):
            size = 8 if kind == EIGHT else 4
        else:
            raise DamagedError(f"byte {at} of it is not of the format")
        if at + size > end:
            raise CutError(f"something at byte {at} would end at byte {at + size} of {end}")
        yield number, kind, at, at + size
        at += size


def messages(content: Any, place: Place, wanted: int) -> Iterator[Place]:
    """Yield the messages or texts of a number within a message; raises DamagedError."""
    for number, kind, begin, stop in fields(content, *place):
        if number == wanted and kind == BYTES:
            yield begin, stop


def last(content: Any, place: Place, wanted: int) -> Place | None:
    """Return the last message or text of a number, as protobuf takes it; None: there is none."""
    found = None
    for one in messages(content, place, wanted):
        found = one
    return found


def text(content: Any, place: Place | None) -> str:
    """Return a text; empty where there is none."""
    return "" if place is None else bytes(content[slice(*place)]).decode("utf-8", "replace")


def number(content: Any, place: Place, wanted: int) -> int:
    """Return a number of a message, 0 where it holds none; raises DamagedError."""
    found = 0
    for at, kind, value, _ in fields(content, *place):
        if at == wanted and kind == NUMBER:
            found = value
    return found


def numbers(content: Any, place: Place, most: int) -> list[int]:
    """Return the first numbers that are packed in a place; raises DamagedError."""
    at, end = place
    found: list[int] = []
    while at < end and len(found) < most:
        value, at = _varint(content, at, end)
        found.append(value)
    return found


def _varint(content: Any, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise CutError(f"it ends within a number, at byte {end}")
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise DamagedError(f"byte {at} of it is not of the format")
