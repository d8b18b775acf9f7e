"""Changes values in the text of a flat TOML file, and leaves all else as a person wrote it."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def change(text: str, lines: Mapping[str, str | None]) -> str:
    """Return `text` without the statements of the keys, and with their lines, but None, at its end.

    Comments and all other keys stay.
    """
    rows, kept = text.splitlines(), []
    while rows:
        count, key = _statement(rows)
        if key not in lines:
            kept += rows[:count]
        del rows[:count]
    kept += [line for line in lines.values() if line is not None]
    return "\n".join([*kept, ""])


def _statement(rows: Sequence[str]) -> tuple[int, str]:
    """Return how many rows the first statement takes, and its key; a comment has none."""
    for count in range(1, len(rows) + 1):
        try:
            found = tomllib.loads("\n".join(rows[:count]))
        except tomllib.TOMLDecodeError:
            continue
        return count, next(iter(found), "")
    return 1, ""
