"""What a device said, fit for a sentence of ours."""

from __future__ import annotations

_LIMIT = 200


def quote(said: bytes | str, *, limit: int = _LIMIT) -> str:
    """Return it as one short printable line; `;` is replaced, since it begins our own advice."""
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    text = "".join(char if char.isprintable() else " " for char in text[: 10 * limit])
    words = " ".join(text.replace(";", ",").split())
    return words if len(words) <= limit else f"{words[:limit]}…"
