"""How much of what a process on a device writes is kept: a shell that floods must not fill memory.

Streams that are read line by line have the bound of their lines (`_lines`), and what nobody reads
is cut to its end (`_tail`).
"""

from __future__ import annotations

from device_agents.errors import DeviceError

# The longest true answer, a job's output with its result, is 5 MiB.
OUTPUT_LIMIT_BYTES = 16 << 20


class Kept:
    """What one output of a process has brought, up to the limit."""

    def __init__(self, limit_bytes: int = OUTPUT_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._data = bytearray()

    def take(self, chunk: bytes) -> None:
        """Keep the chunk, or of one that passes the limit the part up to it."""
        self._data += chunk[: self._limit_bytes + 1 - len(self._data)]

    @property
    def full(self) -> bool:
        """Whether more came than is kept."""
        return len(self._data) > self._limit_bytes

    @property
    def data(self) -> bytes:
        """What was kept."""
        return bytes(self._data)


def too_much(name: str, program: str, *, limit_bytes: int = OUTPUT_LIMIT_BYTES) -> DeviceError:
    """Return the error for a process on device `name` that was ended because it wrote too much."""
    return DeviceError(
        f"device {name!r}: {program} wrote more than {limit_bytes >> 20} MiB and was ended; see "
        "what that account's shell and its start files print there"
    )
