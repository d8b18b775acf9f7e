"""Numbers of things, in words."""

from __future__ import annotations


def number_of(count: int, one: str, more: str = "") -> str:
    """Return "1 process" or "2 processes"; without `more` an s makes more of one."""
    return f"{count} {one if count == 1 else more or f'{one}s'}"
