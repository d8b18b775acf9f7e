"""Text from outside, made fit for a terminal, a page or a log: cleaned, and cut to a bound.

What a device, a file or another user says may hold escape codes that steer a terminal, controls
that turn the direction of writing, or 100 kB without an end. Everything that is shown goes through
`plain`: where it leaves the program, and where it becomes part of a sentence.
"""

from __future__ import annotations

import re

SENTENCE_CHARS = 4000
CUT = " … "

# Whole sequences: colours and cursor moves, titles and links, then what is one sign long.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"
    r"|\x1b[ -/]*[0-~]"
)
_KEPT = frozenset("\n\N{NO-BREAK SPACE}\N{THIN SPACE}\N{NARROW NO-BREAK SPACE}")


def plain(said: object, *, limit: int = SENTENCE_CHARS) -> str:
    """Return a text without anything by which a terminal could be steered; lines stay.

    Args:
        said: anything; `str()` of it.
        limit: a longer text loses its middle, so that what is wrong and what to do both stay.
    """
    text = cut(str(said), 4 * limit)  # so that cleaning is bounded, too
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c in _KEPT else " " for c in _ESCAPES.sub("", text))
    return cut(text, limit)


def hide_passwords(text: str) -> str:
    """Return a text, such as a traceback or a command line, without what may be a password."""
    text = re.sub(r":(?!/{1,3}[^\s:@]*@)\S+@", ":***@", text)  # a URL of a user alone stays
    return re.sub(r"(password\s*=\s*)[^\s&'\"]+", r"\1***", text)


def cut(text: str, limit: int) -> str:
    """Return the text with at most `limit` characters, the middle left out."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    return text[: limit - tail - len(CUT)] + CUT + text[len(text) - tail :]
