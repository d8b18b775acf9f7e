"""Devices over SSH, with paramiko: one connection, one SFTP channel, one agent channel.

Every call has a deadline; a lost link ends all of them, within six seconds (`_ssh_socket`).
Where a device is, and how it is trusted, is in `_ssh_config` and `_ssh_client`.
"""

from __future__ import annotations

import posixpath
import shlex
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import paramiko

from device_agents.api import Completed
from device_agents.errors import (
    DeadlineExceeded,
    DeviceError,
    LinkLost,
    TransferFailed,
)
from device_agents.transports._ssh_client import connected
from device_agents.transports._ssh_socket import Stall
from device_agents.transports._ssh_stream import BROKEN, SshStream, stderr_chunk
from device_agents.transports._tail import Tail

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from device_agents.api import DeviceDescription, Stream
    from device_agents.transports._ssh_client import Connection

_T = TypeVar("_T")

_TRANSFER_STALL_S = 60.0
_CHANNEL_TIMEOUT_S = 20.0
_DIAGNOSIS_TIMEOUT_S = 10.0
_ENDING_S = 0.5
# How many reads of a file are under way at once: 16 MB, enough for a slow link.
_READ_AHEAD = 512


def connect(device: DeviceDescription) -> SshTransport:
    """Connect; raises ConfigError, Unreachable, HostKeyError, AuthenticationFailed."""
    return SshTransport(device, connected(device))


class SshTransport:
    """A connection to one device; see `Transport`."""

    def __init__(self, device: DeviceDescription, connection: Connection) -> None:
        self._name = device.name
        self._connection = connection
        self._link = connection.transport
        self._sftp: paramiko.SFTPClient | None = None
        self._home: str | None = None
        self._python = device.python or "python3"

    @property
    def home(self) -> str:
        """Home directory of the user on the device."""
        if self._home is None:
            self._home = self._guard(
                "read the home directory", lambda _: self._files().normalize(".")
            )
        return self._home

    @property
    def python(self) -> str:
        """Interpreter that runs the agent."""
        return self._python

    def _files(self) -> paramiko.SFTPClient:
        if self._sftp is None:
            channel = self._link.open_session(timeout=_CHANNEL_TIMEOUT_S)
            channel.settimeout(_TRANSFER_STALL_S)
            with Stall(_CHANNEL_TIMEOUT_S, channel.close):
                channel.invoke_subsystem("sftp")
                try:
                    self._sftp = paramiko.SFTPClient(channel)
                except paramiko.SFTPError as error:
                    channel.close()
                    raise TransferFailed(self._no_sftp(str(error))) from error
        return self._sftp

    def _no_sftp(self, error: str) -> str:
        said = self.run(["true"], timeout_s=_DIAGNOSIS_TIMEOUT_S).stdout.decode("utf-8", "replace")
        words = f"prints {said.strip()[:200]!r}" if said.strip() else f"answers wrongly ({error})"
        return (
            f"device {self._name!r}: SFTP does not work because the account's login shell {words}; "
            "let its start files print nothing unless the shell is interactive"
        )

    def _channel(self, argv: Sequence[str]) -> paramiko.Channel:
        if not self._link.is_active():
            raise LinkLost(f"device {self._name!r}: the connection is closed")
        try:
            channel = self._link.open_session(timeout=_CHANNEL_TIMEOUT_S)
            channel.settimeout(_CHANNEL_TIMEOUT_S)
            with Stall(_CHANNEL_TIMEOUT_S, channel.close):
                channel.exec_command(shlex.join(argv))
        except BROKEN as error:
            raise LinkLost(f"device {self._name!r}: cannot start {argv[0]}: {error}") from error
        return channel

    @property
    def loses_link(self) -> bool:
        """Whether processes there can outlive the link."""
        return True

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> Completed:
        """Run a process to its end; see `Transport.run`."""
        channel = self._channel(argv)
        deadline = time.monotonic() + timeout_s
        errors: list[bytes] = []
        tail = Tail(lambda: _kept(errors, stderr_chunk(channel)))
        # In a thread of its own: the process may write more than fits before it reads on.
        feeder = threading.Thread(target=_feed, args=(channel, stdin), name="stdin", daemon=True)
        out = bytearray()
        late = DeadlineExceeded(
            f"device {self._name!r}: {argv[0]} did not end within {timeout_s:g} s"
        )
        try:
            channel.settimeout(timeout_s)
            feeder.start()
            while True:
                channel.settimeout(max(0.001, deadline - time.monotonic()))
                chunk = channel.recv(1 << 16)
                if not chunk:
                    break
                out += chunk
            # The channel's own wait for the exit code has no limit.
            if not channel.status_event.wait(max(0.0, deadline - time.monotonic())):
                raise late
            tail.text(settle_s=max(0.001, deadline - time.monotonic()))
        except TimeoutError:
            raise late from None
        except BROKEN as error:
            raise LinkLost(f"device {self._name!r}: the connection broke: {error}") from error
        finally:
            channel.close()
        if channel.exit_status < 0:
            raise LinkLost(f"device {self._name!r}: {argv[0]} ended without an exit code")
        return Completed(channel.exit_status, bytes(out), b"".join(errors))

    def open(self, argv: Sequence[str]) -> Stream:
        """Start a process; see `Transport.open`."""
        return SshStream(self._name, argv[0], self._channel(argv))

    def put(self, local_path: str, remote_path: str) -> None:
        """Copy a file to the device under a temporary name and rename it; see `Transport.put`."""

        def copy(stall: Stall) -> None:
            files = self._files()
            part = f"{remote_path}.part-{uuid.uuid4().hex[:8]}"
            try:
                self._make_folders(posixpath.dirname(remote_path))
                files.put(local_path, part, callback=stall.progress)
                files.posix_rename(part, remote_path)
            except BaseException as error:
                with suppress(OSError, EOFError, paramiko.SSHException):
                    files.remove(part)
                if isinstance(error, OSError) and error.errno is None:
                    raise TransferFailed(self._why_not(local_path, remote_path)) from error
                raise

        self._guard(f"copy {local_path} to {remote_path}", copy)

    def _why_not(self, local_path: str, remote_path: str) -> str:
        """Say why a file could not be written: of a full or read-only disk SFTP says `Failure`."""
        folder = posixpath.dirname(remote_path)
        script = (
            'd=$1; until [ -d "$d" ]; do d=$(dirname "$d"); done; t=$d/.part-$$; '
            '(: > "$t") && rm "$t"; df -Pk "$d" | tail -n 1'
        )
        done = self.run(["sh", "-c", script, "sh", folder or "/"], timeout_s=_DIAGNOSIS_TIMEOUT_S)
        needed_kb = -(-Path(local_path).stat().st_size // 1024)
        words = done.stdout.decode("utf-8", "replace").split()
        free_kb = int(words[3]) if len(words) > 3 and words[3].isdecimal() else None
        said = done.stderr.decode("utf-8", "replace").strip()
        could_not = f"device {self._name!r}: could not copy {local_path} to {remote_path}: "
        if free_kb is not None and free_kb < needed_kb:
            return (
                f"{could_not}its disk is full: {free_kb} kB are free in {folder} and {needed_kb} "
                "kB are needed; free some space there or set `directory` in its profile"
            )
        if said:
            reason = said.splitlines()[0].rpartition(": ")[2]
            return (
                f"{could_not}{reason}; make {folder} writable there or set `directory` in its "
                "profile"
            )
        return f"{could_not}its SFTP server says only `Failure`; look into {folder} there"

    def get(self, remote_path: str, local_path: str) -> None:
        """Copy a file from the device; see `Transport.get`."""
        part = Path(f"{local_path}.part-{uuid.uuid4().hex[:8]}")

        def copy(stall: Stall) -> None:
            self._files().get(
                remote_path,
                str(part),
                callback=stall.progress,
                max_concurrent_prefetch_requests=_READ_AHEAD,
            )

        try:
            self._guard(f"copy {remote_path} to {local_path}", copy)
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

    def _guard(self, what: str, action: Callable[[Stall], _T]) -> _T:
        """Run an SFTP action; a transfer that stalls ends with its connection."""
        stall = Stall(_TRANSFER_STALL_S, self.abort)
        try:
            with stall:
                return action(stall)
        except DeviceError:
            raise
        except (*BROKEN, paramiko.SFTPError) as error:
            if stall.expired or isinstance(error, TimeoutError):
                raise DeadlineExceeded(
                    f"device {self._name!r}: no progress for {_TRANSFER_STALL_S:g} s; could not "
                    f"{what}"
                ) from error
            if not isinstance(error, OSError):
                # The channel ends a moment before its connection does.
                self._link.join(_ENDING_S)
            if not self._link.is_active():
                raise LinkLost(
                    f"device {self._name!r}: the connection was lost; could not {what}"
                ) from error
            hint = "" if isinstance(error, OSError) else "; does its SSH server offer SFTP?"
            reason = getattr(error, "strerror", None) or error or "the SFTP channel ended"
            raise TransferFailed(
                f"device {self._name!r}: could not {what}: {reason}{hint}"
            ) from error

    def abort(self) -> None:
        """End the connection from any thread; see `Transport.abort`."""
        self._connection.close()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def _feed(channel: paramiko.Channel, data: bytes) -> None:
    # What the process does not take is its own affair; the deadline is the reader's.
    with suppress(*BROKEN):
        channel.sendall(data)
        channel.shutdown_write()


def _kept(kept: list[bytes], chunk: bytes) -> bytes:
    kept.append(chunk)
    return chunk
