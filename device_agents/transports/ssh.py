"""Devices over SSH, with paramiko: one connection, one SFTP channel, one agent channel.

Making the connection, host keys included, is in `_ssh_client`.
"""

from __future__ import annotations

import posixpath
import shlex
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import paramiko

from device_agents.api import Completed
from device_agents.errors import (
    AgentError,
    DeadlineExceeded,
    DeviceError,
    LinkLost,
    TransferFailed,
)
from device_agents.transports._ssh_client import connected_client
from device_agents.transports._tail import Tail

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from device_agents.api import DeviceDescription, Stream

_T = TypeVar("_T")

_TRANSFER_STALL_S = 60.0
_CHANNEL_TIMEOUT_S = 20.0
# What paramiko raises, depending on the moment, when the connection has gone.
_BROKEN = (OSError, EOFError, paramiko.SSHException)


def connect(device: DeviceDescription) -> SshTransport:
    """Connect; raises ConfigError, Unreachable, HostKeyError, AuthenticationFailed."""
    return SshTransport(device, connected_client(device))


class SshTransport:
    """A connection to one device; see `Transport`."""

    def __init__(self, device: DeviceDescription, client: paramiko.SSHClient) -> None:
        self._name = device.name
        self._client = client
        self._sftp: paramiko.SFTPClient | None = None
        self._home: str | None = None
        self._python = device.python or "python3"

    @property
    def home(self) -> str:
        """Home directory of the user on the device."""
        if self._home is None:
            self._home = self._guard(
                "read the home directory", lambda: self._files().normalize(".")
            )
        return self._home

    @property
    def python(self) -> str:
        """Interpreter that runs the agent."""
        return self._python

    def _files(self) -> paramiko.SFTPClient:
        if self._sftp is None:
            self._sftp = self._client.open_sftp()
            channel = self._sftp.get_channel()
            if channel is not None:
                channel.settimeout(_TRANSFER_STALL_S)
        return self._sftp

    def _channel(self, argv: Sequence[str]) -> paramiko.Channel:
        transport = self._client.get_transport()
        if transport is None or not transport.is_active():
            raise LinkLost(f"device {self._name!r}: the connection is closed")
        try:
            channel = transport.open_session(timeout=_CHANNEL_TIMEOUT_S)
            channel.settimeout(_CHANNEL_TIMEOUT_S)
            channel.exec_command(shlex.join(argv))
        except _BROKEN as error:
            raise LinkLost(f"device {self._name!r}: cannot start {argv[0]}: {error}") from error
        return channel

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> Completed:
        """Run a process to its end; see `Transport.run`."""
        channel = self._channel(argv)
        deadline = time.monotonic() + timeout_s
        errors: list[bytes] = []
        tail = Tail(lambda: _kept(errors, _stderr(channel)))
        out = bytearray()
        try:
            channel.settimeout(timeout_s)
            channel.sendall(stdin)
            channel.shutdown_write()
            while True:
                channel.settimeout(max(0.001, deadline - time.monotonic()))
                chunk = channel.recv(1 << 16)
                if not chunk:
                    break
                out += chunk
            ended = channel.status_event.wait(max(0.0, deadline - time.monotonic()))
            tail.text(settle_s=max(0.001, deadline - time.monotonic()))
        except TimeoutError:
            raise DeadlineExceeded(
                f"device {self._name!r}: {argv[0]} did not end within {timeout_s:g} s"
            ) from None
        except _BROKEN as error:
            raise LinkLost(f"device {self._name!r}: the connection broke: {error}") from error
        finally:
            channel.close()
        if not ended or channel.exit_status < 0:
            raise LinkLost(f"device {self._name!r}: {argv[0]} ended without an exit code")
        return Completed(channel.exit_status, bytes(out), b"".join(errors))

    def open(self, argv: Sequence[str]) -> Stream:
        """Start a process; see `Transport.open`."""
        return SshStream(self._name, self._channel(argv))

    def put(self, local_path: str, remote_path: str) -> None:
        """Copy a file to the device under a temporary name and rename it; see `Transport.put`."""

        def copy() -> None:
            files = self._files()
            self._make_folders(posixpath.dirname(remote_path))
            part = f"{remote_path}.part-{uuid.uuid4().hex[:8]}"
            try:
                files.put(local_path, part)
                files.posix_rename(part, remote_path)
            except BaseException:
                with suppress(OSError, EOFError, paramiko.SSHException):
                    files.remove(part)
                raise

        self._guard(f"copy {local_path} to {remote_path}", copy)

    def get(self, remote_path: str, local_path: str) -> None:
        """Copy a file from the device; see `Transport.get`."""
        part = Path(f"{local_path}.part-{uuid.uuid4().hex[:8]}")
        try:
            self._guard(
                f"copy {remote_path} to {local_path}",
                lambda: self._files().get(remote_path, str(part)),
            )
            part.replace(local_path)
        finally:
            part.unlink(missing_ok=True)

    def _make_folders(self, folder: str) -> None:
        files = self._files()
        missing = []
        while folder not in ("", "/"):
            try:
                files.stat(folder)
                break
            except FileNotFoundError:
                missing.append(folder)
                folder = posixpath.dirname(folder)
        for path in reversed(missing):
            files.mkdir(path)

    def _guard(self, what: str, action: Callable[[], _T]) -> _T:
        try:
            return action()
        except DeviceError:
            raise
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"device {self._name!r}: no progress for {_TRANSFER_STALL_S:g} s; could not {what}"
            ) from error
        except (EOFError, paramiko.SSHException) as error:
            raise LinkLost(
                f"device {self._name!r}: could not {what}: "
                f"{error or 'the connection ended'}; does its SSH server offer SFTP?"
            ) from error
        except OSError as error:
            transport = self._client.get_transport()
            kind = TransferFailed if transport and transport.is_active() else LinkLost
            raise kind(
                f"device {self._name!r}: could not {what}: {error.strerror or error}"
            ) from error

    def abort(self) -> None:
        """End the connection from any thread; see `Transport.abort`."""
        # Not the client: it forgets its transport, which another thread is about to use.
        transport = self._client.get_transport()
        if transport is not None:
            with suppress(Exception):
                transport.close()

    def close(self) -> None:
        """End the connection."""
        with suppress(Exception):
            self._client.close()


def _stderr(channel: paramiko.Channel) -> bytes:
    try:
        return bytes(channel.recv_stderr(1 << 16))
    except _BROKEN:
        # Taking in much makes paramiko answer, which fails when the connection is being closed.
        return b""


def _kept(kept: list[bytes], chunk: bytes) -> bytes:
    kept.append(chunk)
    return chunk


class SshStream:
    """A remote process as a `Stream`."""

    def __init__(self, name: str, channel: paramiko.Channel) -> None:
        self._name = name
        self._channel = channel
        self._buffer = bytearray()
        self._tail = Tail(lambda: _stderr(channel))

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
        except _BROKEN as error:
            raise self._lost() from error

    def read_line(self, *, timeout_s: float, limit_bytes: int) -> bytes:
        """Return the next line; see `Stream.read_line`."""
        deadline = time.monotonic() + timeout_s
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > limit_bytes:
                raise AgentError(
                    f"device {self._name!r} sent a line of more than {limit_bytes} bytes",
                    kind="line_too_long",
                )
            try:
                self._channel.settimeout(max(0.001, deadline - time.monotonic()))
                chunk = self._channel.recv(1 << 16)
            except TimeoutError:
                raise DeadlineExceeded(
                    f"device {self._name!r} did not answer within {timeout_s:g} s"
                ) from None
            except _BROKEN as error:
                raise self._lost() from error
            if not chunk:
                raise self._lost()
            self._buffer += chunk
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        return line

    def _lost(self) -> LinkLost:
        self._channel.status_event.wait(0.2)
        code = self._channel.exit_status
        ended = f"the process ended with code {code}" if code >= 0 else "the connection ended"
        said = self._tail.text(settle_s=0.2)
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
