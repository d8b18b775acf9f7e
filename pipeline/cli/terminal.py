"""The console of everything that is drawn: what others say cannot steer it.

Unusual: markup and emoji codes are off, so `[red]` in the name of a device is its name, and every
text is cleaned and cut on its way into a table or a line. Commands print plain lines with
`pipeline.cli.options.echo`, which does the same.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import TextColumn
from rich.text import Text

from device_agents.plain_text import plain

WORDS_CHARS = 200


class CleanConsole(Console):
    """A console that cleans what it shows."""

    def __init__(self, **how: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **how)

    def render_str(self, text: str, **how: Any) -> Text:
        """Return the text as it may be shown."""
        return super().render_str(plain(text), **how)


def brief(text: str) -> Text:
    """Return a few words for a bar or a spinner."""
    return Text(plain(text, limit=WORDS_CHARS).replace("\n", " "))


def words_column(template: str, style: str = "none") -> TextColumn:
    """Return a column of a progress bar that takes words as they are; clean them with `brief`."""
    return TextColumn(template, style=style, markup=False)
