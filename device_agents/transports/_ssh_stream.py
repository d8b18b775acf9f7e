"""One process on a device over SSH, its stdin and stdout in lines."""

from __future__ import annotations

import time
from contextlib import suppress

import paramiko

from device_agents.errors import DeadlineExceeded, DeviceError, LinkLost
from device_agents.transports._lines import Lines
from device_agents.transports._tail import Tail

# What paramiko raises, depending on the moment, when the connection has gone.
BROKEN = (OSError, EOFError, paramiko.SSHException)
# A shell says so when there is no such program, or none that it may run.
_NOT_STARTED = (126, 127)
# nologin(8) says so on stdout, in place of a shell.
_NO_LOGIN = "account is currently not available"


def stderr_chunk(channel: paramiko.Channel) -> bytes:
    """Return what there is on stderr; nothing at its end."""
    try:
        return bytes(channel.recv_stderr(1 << 16))
    except BROKEN:
        # Taking in much makes paramiko answer, which fails when the connection is being closed.
        return b""


class SshStream:
    """A remote process as a `Stream`."""

    def __init__(self, name: str, program: str, channel: paramiko.Channel) -> None:
        self._name = name
        self._program = program
        self._channel = channel
        self._lines = Lines(name)
        self._line = ""
        self._tail = Tail(lambda: stderr_chunk(channel))

    def write(self, data: bytes, *, timeout_s: float) -> None:
        """Write all bytes; see `Stream.write`."""
        deadline = time.monotonic() + timeout_s
        view = memoryview(data)
        try:
            while view:
                self._channel.settimeout(max(0.001, deadline - time.monotonic()))
                view = view[self._channel.send(bytes(view[: 1 << 16])) :]
        except TimeoutError:
            raise DeadlineExceeded(
                f"device {self._name!r} took no input for {timeout_s:g} s"
            ) from None
        except BROKEN as error:
            raise self._lost() from error

    def read_line(self, *, timeout_s: float, limit_bytes: int) -> bytes:
        """Return the next line; see `Stream.read_line`."""
        deadline = time.monotonic() + timeout_s

        def more() -> bytes:
            try:
                self._channel.settimeout(max(0.001, deadline - time.monotonic()))
                chunk = self._channel.recv(1 << 16)
            except TimeoutError:
                raise DeadlineExceeded(
                    f"device {self._name!r} did not answer within {timeout_s:g} s"
                ) from None
            except BROKEN as error:
                raise self._lost() from error
            if not chunk:
                raise self._lost()
            return bytes(chunk)

        line = self._lines.read(more, limit_bytes=limit_bytes)
        self._line = line[:200].decode("utf-8", "replace").strip()
        return line

    def _lost(self) -> DeviceError:
        self._channel.status_event.wait(0.2)
        code = self._channel.exit_status
        said = self._tail.text(settle_s=0.2)
        if code in _NOT_STARTED:
            return DeviceError(
                f"device {self._name!r}: cannot run {self._program} ({said or 'no such program'}); "
                "install Python 3.9 or newer there, or set `python` in its profile to the path of "
                "an interpreter"
            )
        if _NO_LOGIN in self._line:
            return DeviceError(
                f"device {self._name!r}: the account may not run programs there ({self._line}); "
                "give it a login shell or correct `user` in the profile"
            )
        ended = f"the process ended with code {code}" if code >= 0 else "the connection ended"
        return LinkLost(
            f"device {self._name!r}: {ended} before the answer was complete"
            + (f"; it said: {said[-500:]}" if said else "")
        )

    def stderr_tail(self) -> str:
        """Return the end of the process's stderr."""
        return self._tail.text()

    def close(self) -> None:
        """End the process: the agent exits when its stdin ends."""
        with suppress(Exception):
            self._channel.shutdown_write()
            self._channel.close()
