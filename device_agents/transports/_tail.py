"""Keeps the last few kilobytes of a stream that nobody reads otherwise."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_LIMIT_BYTES = 8192


class Tail:
    """Drains a stream in a thread, so that the other end never blocks on a full pipe."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read
        self._kept = b""
        self._thread = threading.Thread(target=self._drain, name="stderr-tail", daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        # Ends with the stream: `read` returns nothing, or fails, once the other end has closed.
        while True:
            try:
                chunk = self._read()
            except (OSError, ValueError):
                return
            if not chunk:
                return
            self._kept = (self._kept + chunk)[-_LIMIT_BYTES:]

    def text(self, *, settle_s: float = 0.0) -> str:
        """Return what was kept; `settle_s` waits that long at most for the stream's end."""
        if settle_s:
            self._thread.join(settle_s)
        return self._kept.decode("utf-8", "replace").strip()
