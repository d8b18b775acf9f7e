"""Bytes read one after the other, never behind their end."""

from typing import Any

# Seven bits each: every number of a packed file is below 2^63.
_VARINT_BYTES = 9


class Damaged(ValueError):
    """A packed file that is cut short, changed or made by something else; the text says how."""


class Newer(ValueError):
    """A packed file of a later layout than this code knows."""


class Cursor:
    """A place in bytes that moves on as they are read; every read raises Damaged at the end."""

    def __init__(self, content: Any) -> None:
        self._content = memoryview(content)
        self._at = 0

    @property
    def left(self) -> int:
        """How many bytes have not been read."""
        return len(self._content) - self._at

    def take(self, count: int) -> memoryview:
        """Return the next `count` bytes."""
        if not 0 <= count <= self.left:
            raise Damaged("%d bytes are missing at byte %d" % (count - self.left, self._at))
        self._at += count
        return self._content[self._at - count : self._at]

    def rest(self) -> memoryview:
        """Return all that is left."""
        return self.take(self.left)

    def byte(self) -> int:
        """Return the next byte."""
        return self.take(1)[0]

    def number(self, width: int) -> int:
        """Return an unsigned number of so many bytes."""
        return int.from_bytes(self.take(width), "little")

    def varint(self, limit: int) -> int:
        """Return a varint of at most `limit`."""
        value = 0
        for shift in range(0, 7 * _VARINT_BYTES, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > limit:
                    raise Damaged("it says %d where %d is the most" % (value, limit))
                return value
        raise Damaged("byte %d is in no number" % self._at)

    def part(self) -> "Cursor":
        """Return a cursor over a part that its length stands before."""
        return Cursor(self.take(self.varint(self.left)))
