"""One process on a device over SSH, its stdin and stdout in lines."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import paramiko

from device_agents.errors import AgentError, DeadlineExceeded, DeviceError, LinkLost
from device_agents.transports._bounds import too_much
from device_agents.transports._lines import Lines
from device_agents.transports._ssh_command import NOISE_LIMIT_BYTES
from device_agents.transports._tail import Tail

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_agents.transports._ssh_command import Command

# What paramiko raises, depending on the moment, when the connection has gone.
BROKEN = (OSError, EOFError, paramiko.SSHException)
# A shell ends so when it may not run the program, and when there is none.
_NOT_ALLOWED, _NOT_FOUND = 126, 127


def stderr_chunk(channel: paramiko.Channel) -> bytes:
    """Return what there is on stderr; nothing at its end."""
    try:
        return bytes(channel.recv_stderr(1 << 16))
    except BROKEN:
        # Taking in much makes paramiko answer, which fails when the connection is being closed.
        return b""


class SshStream:
    """A remote process as a `Stream`."""

    def __init__(self, name: str, command: Command, channel: paramiko.Channel) -> None:
        self._name = name
        self._command = command
        self._channel = channel
        self._lines = Lines(name)
        self._begun = False
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

        if not self._begun:
            self._skip_noise(more)
        return self._lines.read(more, limit_bytes=limit_bytes)

    def _skip_noise(self, more: Callable[[], bytes]) -> None:
        """Drop what the login shell printed before the process began."""
        try:
            self._lines.read_past(self._command.mark, more, limit_bytes=NOISE_LIMIT_BYTES)
        except AgentError as error:
            raise too_much(self._name, "the login shell", limit_bytes=NOISE_LIMIT_BYTES) from error
        self._begun = True

    def _lost(self) -> DeviceError:
        self._channel.status_event.wait(0.2)
        code = self._channel.exit_status
        said = self._said(settle_s=0.2)
        if not self._begun:
            noise = self._lines.pending + self._unread() or said.encode()
            return self._command.not_started(self._name, code, noise)
        program = self._command.program
        if code == _NOT_FOUND:
            return DeviceError(
                f"device {self._name!r}: cannot run {program} ({said or 'no such program'}); "
                "install Python 3.9 or newer there, or set `python` in its profile to the path of "
                "an interpreter"
            )
        if code == _NOT_ALLOWED:
            return DeviceError(
                f"device {self._name!r}: may not run {program} ({said or 'not allowed'}); is it "
                "executable, and its file system not mounted noexec? Else set `python` in its "
                "profile to the path of an interpreter that is"
            )
        ended = f"the process ended with code {code}" if code >= 0 else "the connection ended"
        return LinkLost(
            f"device {self._name!r}: {ended} before the answer was complete"
            + (f"; it said: {said[-500:]}" if said else "")
        )

    def _unread(self) -> bytes:
        """Return what has arrived and nobody has read: a write may fail before the first read."""
        try:
            return (
                bytes(self._channel.recv(NOISE_LIMIT_BYTES)) if self._channel.recv_ready() else b""
            )
        except BROKEN:
            return b""

    def stderr_tail(self) -> str:
        """Return the end of the process's stderr."""
        return self._said()

    def _said(self, *, settle_s: float = 0.0) -> str:
        return self._command.own_text(self._tail.text(settle_s=settle_s))

    def close(self) -> None:
        """End the process: the agent exits when its stdin ends."""
        with suppress(Exception):
            self._channel.shutdown_write()
            self._channel.close()
