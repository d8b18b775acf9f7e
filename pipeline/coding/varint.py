"""The numbers of packed files, as device_agents/agent/packed/cursor.py reads them."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """Return a whole number from 0 as LEB128: seven bits a byte, the lowest first."""
    text = bytearray()
    while value > 0x7F:
        text.append(value & 0x7F | 0x80)
        value >>= 7
    text.append(value)
    return bytes(text)


def part(piece: bytes) -> bytes:
    """Return a piece behind its length."""
    return varint(len(piece)) + piece
