"""This machine as a device: the agent is a child process; same file, same protocol, same path.

The child gets a session of its own, so that Ctrl-C on the host does not reach it in mid-write. It
ends with the host all the same: its stdin then ends.
"""

from __future__ import annotations

import os
import select
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from device_agents.api import Completed
from device_agents.errors import DeadlineExceeded, LinkLost, TransferFailed
from device_agents.transports._bounds import Kept, too_much
from device_agents.transports._lines import Lines
from device_agents.transports._tail import Tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from device_agents.api import DeviceDescription, OnSent, Stream

_CLOSE_GRACE_S = 2.0


def connect(device: DeviceDescription) -> LocalTransport:
    """Return the transport of this machine; `python` defaults to the running interpreter."""
    return LocalTransport(device.name, python=device.python or sys.executable)


class LocalTransport:
    """Runs processes and copies files on this machine."""

    def __init__(self, name: str, *, python: str) -> None:
        self._name = name
        self._python = python
        self._running: list[subprocess.Popen[bytes]] = []
        self._aborted = False

    @property
    def home(self) -> str:
        """Home directory of the current user."""
        return str(Path.home())

    @property
    def python(self) -> str:
        """Interpreter that runs the agent."""
        return self._python

    @property
    def loses_link(self) -> bool:
        """Whether processes there can outlive the link: no, they end with the host."""
        return False

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float,
        called: str = "",
    ) -> Completed:
        """Run a process to its end; see `Transport.run`. `called` names it in errors."""
        process = self._start(argv)
        program = called or argv[0]
        deadline = time.monotonic() + timeout_s
        # In a thread of its own: the process may write more than fits before it reads on.
        threading.Thread(target=_feed, args=(process, stdin), name="stdin", daemon=True).start()
        try:
            out, errors = _gathered(process, deadline)
            rc = process.wait(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            raise DeadlineExceeded(
                f"device {self._name!r}: {program} did not end within {timeout_s:g} s"
            ) from None
        finally:
            if process.returncode is None:
                _kill_group(process)
            _let_go(process)
        if self._aborted:
            raise LinkLost(f"device {self._name!r}: {program} was aborted")
        if out.full or errors.full:
            raise too_much(self._name, program)
        return Completed(rc, out.data, errors.data)

    def open(self, argv: Sequence[str]) -> Stream:
        """Start a process; see `Transport.open`."""
        return LocalStream(self._name, self._start(argv))

    def _start(self, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        self._running = [process for process in self._running if process.returncode is None]
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise LinkLost(
                f"device {self._name!r}: cannot start {argv[0]!r}: {error.strerror}; "
                "correct `python` in its profile"
            ) from error
        self._running.append(process)
        if self._aborted:  # by another thread, which did not see this process yet
            _kill_group(process)
        return process

    def put(self, local_path: str, remote_path: str, *, on_sent: OnSent | None = None) -> None:
        """Copy a file; see `Transport.put`."""
        self._copy(local_path, remote_path)
        if on_sent is not None:
            size = Path(remote_path).stat().st_size
            on_sent(size, size)

    def get(self, remote_path: str, local_path: str) -> None:
        """Copy a file; see `Transport.get`."""
        self._copy(remote_path, local_path)

    def _copy(self, source: str, target: str) -> None:
        part = None
        try:
            folder = Path(target).parent
            folder.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(dir=folder, prefix=".part-")
            os.close(handle)
            shutil.copyfile(source, part)
            Path(part).replace(target)
        except OSError as error:
            if part is not None:
                Path(part).unlink(missing_ok=True)
            raise TransferFailed(
                f"device {self._name!r}: cannot copy {source} to {target}: {error.strerror}"
            ) from error

    def abort(self) -> None:
        """Kill what this transport started; see `Transport.abort`."""
        self._aborted = True
        for process in tuple(self._running):
            if process.returncode is None:
                _kill_group(process)

    def close(self) -> None:
        """Do nothing: each stream ends its own process."""


class LocalStream:
    """A child process as a `Stream`."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise LinkLost(f"device {name!r}: the process has no pipes")
        self._name = name
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout
        self._lines = Lines(name)
        os.set_blocking(self._stdin.fileno(), False)
        self._errors = process.stderr
        errors = process.stderr.fileno()
        self._tail = Tail(lambda: os.read(errors, 4096))

    def write(self, data: bytes, *, timeout_s: float) -> None:
        """Write all bytes; see `Stream.write`."""
        deadline = time.monotonic() + timeout_s
        view = memoryview(data)
        try:
            poll = select.poll()
            poll.register(self._stdin.fileno(), select.POLLOUT)
            while view:
                if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000.0):
                    raise DeadlineExceeded(
                        f"device {self._name!r} took no input for {timeout_s:g} s"
                    )
                view = view[os.write(self._stdin.fileno(), view) :]
        except (OSError, ValueError) as error:
            raise self._lost() from error

    def read_line(self, *, timeout_s: float, limit_bytes: int) -> bytes:
        """Return the next line; see `Stream.read_line`."""
        deadline = time.monotonic() + timeout_s
        poll = select.poll()

        def more() -> bytes:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000.0):
                raise DeadlineExceeded(
                    f"device {self._name!r} did not answer within {timeout_s:g} s"
                )
            chunk = os.read(self._stdout.fileno(), 1 << 16)
            if not chunk:
                raise self._lost()
            return chunk

        try:
            poll.register(self._stdout.fileno(), select.POLLIN)
            return self._lines.read(more, limit_bytes=limit_bytes)
        except (OSError, ValueError) as error:
            raise self._lost() from error

    def _lost(self) -> LinkLost:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)
        code = self._process.poll()
        ended = "closed its output" if code is None else f"ended with code {code}"
        said = self._tail.text(settle_s=0.2)
        return LinkLost(
            f"device {self._name!r}: the process {ended} before its answer was complete"
            + (f"; it said: {said[-500:]}" if said else "")
        )

    def stderr_tail(self) -> str:
        """Return the end of the process's stderr."""
        return self._tail.text()

    def close(self) -> None:
        """End the process: first by the end of its stdin, then by force."""
        with suppress(OSError):
            self._stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_GRACE_S)
        _kill_group(self._process)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_GRACE_S)
        self._tail.text(settle_s=_CLOSE_GRACE_S)
        for pipe in (self._stdout, self._errors):
            with suppress(OSError):
                pipe.close()


def _feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    # What the process does not take is its own affair; the deadline is the reader's.
    with suppress(OSError, ValueError):
        rest = memoryview(data)
        while rest and process.stdin is not None:
            rest = rest[os.write(process.stdin.fileno(), rest) :]
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()


def _gathered(process: subprocess.Popen[bytes], deadline: float) -> tuple[Kept, Kept]:
    """Take in both outputs to their ends; raises TimeoutError. At a limit the process is killed."""
    kept = Kept(), Kept()
    with selectors.DefaultSelector() as waiting:
        for pipe, output in zip((process.stdout, process.stderr), kept, strict=True):
            if pipe is not None:
                waiting.register(pipe, selectors.EVENT_READ, output)
        while waiting.get_map():
            ready = waiting.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                chunk = os.read(key.fd, 1 << 16)
                key.data.take(chunk)
                if not chunk:
                    waiting.unregister(key.fileobj)
                elif key.data.full:
                    _kill_group(process)
                    return kept
    return kept


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """Wait for a killed process, and not for what it started elsewhere that holds its pipes."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(_CLOSE_GRACE_S)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and what it started; its group outlives it while a child runs."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
