"""What the line that shows a wait says, kept instead of drawn: a pipe has no such line."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest
    from rich.text import Text


class Lines:
    """Every state of every such line."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[str] = []
        monkeypatch.setattr("pipeline.cli.options.show_waiting", self._waiting)

    @contextmanager
    def _waiting(self, text: str) -> Iterator[Lines]:
        self.shown.append(text)
        yield self

    def update(self, text: Text) -> None:
        """Keep what would be drawn."""
        self.shown.append(str(text))
