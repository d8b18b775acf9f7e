"""Devices over SSH, with paramiko: one connection, one SFTP channel, one agent channel.

Every call has a deadline; a lost link ends all of them, within six seconds (`_ssh_socket`).
Where a device is, and how it is trusted, is in `_ssh_config` and `_ssh_client`.
"""

from __future__ import annotations

import posixpath
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import paramiko

from device_agents.errors import DeadlineExceeded, DeviceError, LinkLost, TransferFailed
from device_agents.transports._ssh_client import open_connection
from device_agents.transports._ssh_command import Command
from device_agents.transports._ssh_run import finish
from device_agents.transports._ssh_socket import Stall
from device_agents.transports._ssh_stream import BROKEN, SshStream
from device_agents.transports._words import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from device_agents.api import Completed, DeviceDescription, OnSent, Stream
    from device_agents.transports._ssh_client import Connection

_T = TypeVar("_T")

_TRANSFER_STALL_S = 60.0
_CHANNEL_TIMEOUT_S = 20.0
_DIAGNOSIS_TIMEOUT_S = 10.0
_ENDING_S = 0.5
# How many reads of a file are under way at once: 16 MB, enough for a slow link.
_READ_AHEAD = 512
# A server counts a session for a moment after its end. Together 1.5 s.
_UNTIL_FREE_S = (0.01, 0.03, 0.06, 0.1, 0.3, 0.5, 0.5)
_ENOUGH_TRIES = 4
_BEFORE_AGAIN_S = (0.05, 0.2, 0.5)


def connect(device: DeviceDescription) -> SshTransport:
    """Connect; raises ConfigError, Unreachable, HostKeyError, AuthenticationFailed."""
    return SshTransport(device, open_connection(device))


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
        """Home directory of the user on the device, without links; `/` where there is none."""
        if self._home is None:
            argv = ["sh", "-c", "cd; pwd -P"]
            done = self.run(argv, timeout_s=_CHANNEL_TIMEOUT_S)
            found = done.stdout.decode("utf-8", "replace").removesuffix("\n")
            if not found.startswith("/"):
                said = quote(done.stderr)
                raise DeviceError(
                    f"device {self._name!r}: its shell does not tell the home directory "
                    f"({said or f'code {done.rc}'}); log in and see whether `cd; pwd` works"
                )
            self._home = found
        return self._home

    @property
    def python(self) -> str:
        """Interpreter that runs the agent."""
        return self._python

    def _session(self) -> paramiko.Channel:
        """Open a session; where the server allows few, wait for one, and give up that of SFTP."""
        if not self._link.is_active():
            raise LinkLost(f"device {self._name!r}: the connection is closed")
        said = ""
        for tries, pause_s in enumerate(_UNTIL_FREE_S):
            try:
                channel = self._link.open_session(timeout=_CHANNEL_TIMEOUT_S)
            except paramiko.ChannelException as error:
                said = error.text
            except paramiko.SSHException as error:
                said = str(error)
                if "Timeout" in said or not self._link.is_active():
                    raise LinkLost(
                        f"device {self._name!r}: its SSH server opens no session ({said})"
                    ) from error
            else:
                return channel
            if tries == _ENOUGH_TRIES and self._sftp is not None:
                self._sftp.close()
                self._sftp = None
            time.sleep(pause_s)
        raise DeviceError(
            f"device {self._name!r}: its SSH server allows no further session on this connection "
            f"({said}); set `MaxSessions 10` in its sshd_config, where at least 2 are needed"
        )

    def _asked(self, ask: Callable[[paramiko.Channel], None]) -> paramiko.Channel:
        """Open a session in which the server starts a program; SSHException if it refuses.

        A session that ends before the server has said that the program started is opened again:
        dropbear uses the number of a closed session at once, and may close the new one with it.
        """
        for pause_s in (*_BEFORE_AGAIN_S, None):
            channel = self._session()
            channel.settimeout(_CHANNEL_TIMEOUT_S)
            with Stall(_CHANNEL_TIMEOUT_S, channel.close) as stall:
                try:
                    ask(channel)
                except paramiko.SSHException as error:
                    channel.close()
                    if stall.expired or not self._link.is_active():
                        raise LinkLost(
                            f"device {self._name!r}: its SSH server does not answer ({error})"
                        ) from error
                    if pause_s is None:
                        raise
                else:
                    return channel
            time.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    def _files(self) -> paramiko.SFTPClient:
        if self._sftp is None:
            try:
                channel = self._asked(lambda asked: asked.invoke_subsystem("sftp"))
            except paramiko.SSHException as error:
                raise TransferFailed(self._no_sftp(error)) from error
            channel.settimeout(_TRANSFER_STALL_S)
            with Stall(_CHANNEL_TIMEOUT_S, channel.close) as stall:
                try:
                    self._sftp = paramiko.SFTPClient(channel)
                except (*BROKEN, paramiko.SFTPError) as error:
                    channel.close()
                    if stall.expired:
                        raise
                    raise TransferFailed(self._no_sftp(error)) from error
        return self._sftp

    def _no_sftp(self, error: Exception) -> str:
        command = Command(["true"])
        channel = self._started(command)
        _, noise = finish(self._name, channel, command, b"", _DIAGNOSIS_TIMEOUT_S)
        words = quote(noise)
        if words:
            return (
                f"device {self._name!r}: SFTP does not work because the account's login shell "
                f"prints {words!r}; let its start files print nothing unless the shell is "
                "interactive"
            )
        reason = quote(str(error)) or "the channel ended"
        return (
            f"device {self._name!r}: its SSH server offers no SFTP, by which files are copied "
            f"({reason}); install openssh-sftp-server there (OpenWrt: `opkg install "
            "openssh-sftp-server`) and see `Subsystem sftp` in its sshd_config"
        )

    def _started(self, command: Command) -> paramiko.Channel:
        try:
            return self._asked(lambda channel: channel.exec_command(command.line))
        except BROKEN as error:
            raise LinkLost(
                f"device {self._name!r}: cannot start {command.program}: {error}"
            ) from error

    @property
    def loses_link(self) -> bool:
        """Whether processes there can outlive the link."""
        return True

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> Completed:
        """Run a process to its end; see `Transport.run`."""
        command = Command(argv)
        return finish(self._name, self._started(command), command, stdin, timeout_s)[0]

    def open(self, argv: Sequence[str]) -> Stream:
        """Start a process; see `Transport.open`."""
        command = Command(argv)
        return SshStream(self._name, command, self._started(command))

    def put(self, local_path: str, remote_path: str, *, on_sent: OnSent | None = None) -> None:
        """Copy a file to the device under a temporary name and rename it; see `Transport.put`."""

        def copy(stall: Stall) -> None:
            def moved(sent_bytes: int, of_bytes: int) -> None:
                stall.progress()
                if on_sent is not None:
                    on_sent(sent_bytes, of_bytes)

            files = self._files()
            part = f"{remote_path}.part-{uuid.uuid4().hex[:8]}"
            try:
                self._make_folders(posixpath.dirname(remote_path))
                files.put(local_path, part, callback=moved)
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
