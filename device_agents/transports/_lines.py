"""Cuts what a stream brings into lines, with a bound on their length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_agents.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable


class Lines:
    """What has arrived of a stream and was not read yet; `name` is the device's, in sentences."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._buffer = bytearray()

    @property
    def pending(self) -> bytes:
        """What was not read yet."""
        return bytes(self._buffer)

    def read(self, more: Callable[[], bytes], *, limit_bytes: int) -> bytes:
        r"""Return the next line with its b"\n"; `more` brings further bytes while there is none.

        Raises AgentError of kind `line_too_long`, and what `more` raises; nothing is lost then.
        """
        return self.read_past(b"\n", more, limit_bytes=limit_bytes)

    def read_past(self, mark: bytes, more: Callable[[], bytes], *, limit_bytes: int) -> bytes:
        """Return everything up to `mark` and the mark itself; see `read`."""
        searched = 0
        while (found := self._buffer.find(mark, searched)) < 0:
            searched = max(0, len(self._buffer) - len(mark) + 1)
            if searched > limit_bytes:
                raise AgentError(
                    f"device {self._name!r} sent a line of more than {limit_bytes} bytes",
                    kind="line_too_long",
                )
            self._buffer += more()
        end = found + len(mark)
        line = bytes(self._buffer[:end])
        del self._buffer[:end]
        return line
