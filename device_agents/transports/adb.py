"""Phones over adb, through the user's adb client program and server.

The client ends with code 0 when the phone vanishes in mid-command. So each command ends with a
word of ours and the real exit code, and an answer without it is a lost link. adbd tells a command
that its client has gone by SIGHUP to its shell alone; the shell then kills what it started, so
that a command that ran too long does not run on and spoil the next measurement.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from device_agents import android
from device_agents.api import Completed
from device_agents.errors import (
    ConfigError,
    DeadlineExceeded,
    DeviceError,
    EdgewrightError,
    LinkLost,
    TransferFailed,
)
from device_agents.transports._adb_client import REFUSING, find_adb, find_phone, refusal
from device_agents.transports.local import LocalTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from device_agents.api import DeviceDescription, OnSent, Stream
    from device_agents.transports._adb_client import Adb

# The only folder of a phone where its shell user may write and run programs.
_HOME = "/data/local/tmp"

_STATE_TIMEOUT_S = 2.0
_COMMAND_TIMEOUT_S = 20.0
_SLOWEST_BYTES_PER_S = 100_000
# In a transfer, the phone is asked for a sign of life; together below 6 s.
_CHECK_EVERY_S = 1.5
_CHECK_TIMEOUT_S = 3.5

# The command runs in the background of its shell, for a trap waits for what is in the foreground.
_COMMAND = (
    "trap 'kill -9 0' HUP; exec 3<&0; {command} <&3 3<&- & exec 3<&-; wait $!; echo {nonce} $?"
)
# $1 the part, $2 the final name, $3 its SHA-256, $4 its size.
_PLACE = """
if command -v sha256sum > /dev/null; then found=$(sha256sum < "$1"); wanted=$3
else found=$(wc -c < "$1"); wanted=$4; fi
set -- "$1" "$2" $found
if [ "$3" != "$wanted" ]; then echo "it arrived damaged" >&2; exit 1; fi
if [ -d "$2" ]; then echo "a folder has that name" >&2; exit 1; fi
mv -f "$1" "$2"
"""
_FACTS = """
if [ ! -f "$1" ]; then echo "there is no such file" >&2; exit 1; fi
wc -c < "$1" || exit 1
if command -v sha256sum > /dev/null; then sha256sum < "$1"; fi
"""


def connect(device: DeviceDescription) -> AdbTransport:
    """Connect; raises ConfigError, Unreachable, AuthenticationFailed."""
    adb = find_adb(device)
    return AdbTransport(device, adb, find_phone(adb, device))


class AdbTransport:
    """A phone; see `Transport`."""

    def __init__(self, device: DeviceDescription, adb: Adb, serial: str) -> None:
        self._name = device.name
        self._adb = adb
        self._serial = serial
        self._client = adb.client
        # Apart from the others, so that a transfer can be ended alone.
        self._mover = LocalTransport(device.name, python="")
        self._python = device.python or "python3"
        self._aborted = False

    @property
    def home(self) -> str:
        """The shell user's writable folder; phones have no home directory."""
        return _HOME

    @property
    def python(self) -> str:
        """Interpreter that runs the agent."""
        return self._python

    @property
    def loses_link(self) -> bool:
        """Whether processes there can outlive the link: a cable can be pulled."""
        return True

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> Completed:
        """Run a process to its end; see `Transport.run`."""
        nonce = uuid.uuid4().hex
        command = _COMMAND.format(command=shlex.join(argv), nonce=nonce)
        shell = self._shell(command)
        done = self._client.run(shell, stdin=stdin, timeout_s=timeout_s, called=argv[0])
        out, _, end = done.stdout.rpartition(nonce.encode())
        code = re.match(rb" (\d{1,3})\n", end)
        if code is None:
            raise self._lost(f"{argv[0]} ended without an exit code", done.stderr)
        # What a process in the background still wrote stands behind the end.
        return Completed(int(code[1]), out + end[code.end() :], done.stderr)

    def open(self, argv: Sequence[str]) -> Stream:
        """Start a process; see `Transport.open`."""
        return AdbStream(self._state, self._client.open(self._shell(f"exec {shlex.join(argv)}")))

    def _shell(self, command: str) -> list[str]:
        return self._adb.argv("-s", self._serial, "shell", "-T", command)

    def put(self, local_path: str, remote_path: str, *, on_sent: OnSent | None = None) -> None:
        """Copy a file under a temporary name, check and rename it; see `Transport.put`."""
        what = f"copy {local_path} to {remote_path}"
        sha256, size = self._digest(Path(local_path), what)
        part = f"{remote_path}.part-{uuid.uuid4().hex[:8]}"

        def alive() -> None:
            told = self._sign_of_life(what, "stat", "-c", "%s", part)
            if on_sent is not None and told.isdigit():
                on_sent(int(told), size)

        try:
            self._move(what, size, alive, "push", local_path, part)
            self._script(what, _PLACE, part, remote_path, sha256, str(size), size=size)
        except BaseException as error:
            if not isinstance(error, LinkLost):
                with suppress(DeviceError):
                    self.run(["rm", "-f", part], timeout_s=_CHECK_TIMEOUT_S)
            raise

    def get(self, remote_path: str, local_path: str) -> None:
        """Copy a file from the device; see `Transport.get`."""
        what = f"copy {remote_path} to {local_path}"
        told, *hashed = self._script(what, _FACTS, remote_path).splitlines()
        part = Path(f"{local_path}.part-{uuid.uuid4().hex[:8]}")
        try:
            self._move(
                what,
                int(told),
                lambda: self._sign_of_life(what, "true"),
                "pull",
                remote_path,
                str(part),
            )
            sha256, size = self._digest(part, what)
            if size != int(told) or (hashed and hashed[0].split()[0] != sha256):
                raise TransferFailed(f"device {self._name!r}: could not {what}: it arrived damaged")
            part.replace(local_path)
        except OSError as error:
            raise self._failed(what, error.strerror or str(error)) from error
        finally:
            part.unlink(missing_ok=True)

    def _digest(self, path: Path, what: str) -> tuple[str, int]:
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size
        except OSError as error:
            raise self._failed(what, error.strerror or str(error)) from error

    def _script(self, what: str, script: str, *args: str, size: int = 0) -> str:
        timeout_s = _COMMAND_TIMEOUT_S + size / _SLOWEST_BYTES_PER_S
        done = self.run(["sh", "-c", script, "sh", *args], timeout_s=timeout_s)
        if done.rc:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise self._failed(what, said[-1] if said else f"code {done.rc}")
        return done.stdout.decode("utf-8", "replace")

    def _failed(self, what: str, reason: str) -> TransferFailed:
        return TransferFailed(f"device {self._name!r}: could not {what}: {reason}")

    def _move(self, what: str, size: int, alive: Callable[[], object], *words: str) -> None:
        """Let adb copy, and end it when the phone gives no sign of life, for which `alive` asks."""
        argv = self._adb.argv("-s", self._serial, *words)
        ended: list[Completed | DeviceError] = []

        def copy() -> None:
            limit_s = _COMMAND_TIMEOUT_S + size / _SLOWEST_BYTES_PER_S
            try:
                ended.append(self._mover.run(argv, timeout_s=limit_s))
            except DeviceError as error:
                ended.append(error)

        thread = threading.Thread(target=copy, name=f"adb-{words[0]}", daemon=True)
        thread.start()
        thread.join(_CHECK_EVERY_S)
        try:
            while thread.is_alive():
                alive()
                thread.join(_CHECK_EVERY_S)
        finally:
            if thread.is_alive():
                self._end_mover()
                thread.join()
        done = ended[0]
        if isinstance(done, DeadlineExceeded):
            raise LinkLost(
                f"device {self._name!r}: could not {what}: slower than "
                f"{_SLOWEST_BYTES_PER_S // 1000} kB/s"
            ) from done
        if isinstance(done, DeviceError):
            raise done
        if done.rc:
            text = (done.stderr + done.stdout).decode("utf-8", "replace")
            if android.refusal(text) or self._state() != "device":
                raise self._lost(f"could not {what}", done.stderr)
            raise self._failed(what, _reason(text))

    def _sign_of_life(self, what: str, *argv: str) -> bytes:
        """Return what the phone says to a small command, be it that there is none of that name."""
        try:
            return self.run(argv, timeout_s=_CHECK_TIMEOUT_S).stdout.strip()
        except DeadlineExceeded as error:
            raise LinkLost(
                f"device {self._name!r}: could not {what}: no sign of life for "
                f"{_CHECK_TIMEOUT_S:g} s"
            ) from error

    def _end_mover(self) -> None:
        self._mover.abort()
        self._mover = LocalTransport(self._name, python="")
        if self._aborted:  # by another thread, which did not see this one yet
            self._mover.abort()

    def _state(self) -> str:
        """Return what the server says of the phone; asks no phone."""
        try:
            argv = self._adb.argv("-s", self._serial, "get-state")
            done = self._client.run(argv, timeout_s=_STATE_TIMEOUT_S)
        except DeviceError:
            return "unknown"
        said = done.stdout.decode("utf-8", "replace").strip()
        return said or android.refusal(done.stderr.decode("utf-8", "replace")) or "unknown"

    def _lost(self, what: str, stderr: bytes) -> EdgewrightError:
        """Return the reason why a command came to no end."""
        said = stderr.decode("utf-8", "replace").strip()
        if "only supports allocating a pty" in said:
            return ConfigError(
                f"device {self._name!r}: its Android is older than 7 and tells no exit codes; it "
                "cannot be measured by adb"
            )
        state = android.refusal(said) or self._state()
        if state in REFUSING:
            return refusal(self._name, self._serial, state)
        gone = "" if state == "device" else f"; adb says that {self._serial} is {state}"
        told = f"; it said: {said[-500:]}" if said else ""
        return LinkLost(f"device {self._name!r}: {what}{gone}{told}")

    def abort(self) -> None:
        """End what runs, from any thread; see `Transport.abort`."""
        self._aborted = True
        self._client.abort()
        self._mover.abort()

    def close(self) -> None:
        """Do nothing: the server keeps the phone connected, for others too."""


class AdbStream:
    """A process on the phone as a `Stream`; `inner` is the adb client's."""

    def __init__(self, state: Callable[[], str], inner: Stream) -> None:
        self._state = state
        self._inner = inner

    def write(self, data: bytes, *, timeout_s: float) -> None:
        """Write all bytes; see `Stream.write`."""
        try:
            self._inner.write(data, timeout_s=timeout_s)
        except LinkLost as error:
            raise self._explained(error) from error

    def read_line(self, *, timeout_s: float, limit_bytes: int) -> bytes:
        """Return the next line; see `Stream.read_line`."""
        try:
            return self._inner.read_line(timeout_s=timeout_s, limit_bytes=limit_bytes)
        except LinkLost as error:
            raise self._explained(error) from error

    def _explained(self, error: LinkLost) -> LinkLost:
        state = self._state()
        return error if state == "device" else LinkLost(f"{error}; adb says: {state}")

    def stderr_tail(self) -> str:
        """Return the end of the process's stderr."""
        return self._inner.stderr_tail()

    def close(self) -> None:
        """End the process: by the end of its stdin, else by SIGHUP."""
        self._inner.close()


def _reason(text: str) -> str:
    """Return adb's own reason for a failed copy."""
    lines = [line for line in text.splitlines() if "error:" in line] or text.splitlines() or [""]
    return lines[0].rpartition(": remote ")[2].removeprefix("adb: error: ")
