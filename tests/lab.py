"""Stand-ins for devices, and a deadline for tests.

The loopback OpenSSH server is that of `scripts.lab.sshd`.
A test is skipped where none is installed.
"""

from __future__ import annotations

import signal
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from device_agents import transports
from device_agents.api import Failure, Measurement
from scripts.lab import link, sshd
from scripts.lab.sshd import LoopbackSsh, children, free_port, host_line, keygen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from device_agents.api import DeviceDescription

__all__ = [
    "LoopbackSsh",
    "children",
    "cut_python",
    "deadline",
    "failed",
    "free_port",
    "host_line",
    "keygen",
    "linked_ssh",
    "loopback_ssh",
    "measured",
    "poll",
    "unchecked",
    "works",
    "wrapped_python",
]


@contextmanager
def loopback_ssh(folder: Path, **options: Any) -> Iterator[LoopbackSsh]:
    """Run a server for a `with` block."""
    if sshd.SSHD is None:
        pytest.skip("no sshd found; install the package openssh-server")
    with sshd.loopback_ssh(folder, **options) as server:
        yield server


@contextmanager
def linked_ssh(folder: Path, **options: Any) -> Iterator[tuple[LoopbackSsh, link.Link]]:
    """Run a server that is reached only over a simulated link."""
    if link.why_not():
        pytest.skip(link.why_not())
    with (
        link.running(folder) as wire,
        loopback_ssh(folder, address=wire.device, prefix=wire.prefix, **options) as server,
    ):
        yield server, wire


@contextmanager
def deadline(seconds: int) -> Iterator[None]:
    """Fail the test that runs longer; works in the main thread."""

    def expired(*_: object) -> None:
        # Not an OSError, which the code under test would take for a lost link.
        pytest.fail(f"the test took more than {seconds} s")

    old = signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def unchecked(_: object) -> None:
    """Take a deployment as it is: for tests that are about something else than its outputs."""


def wrapped_python(path: Path, before: str) -> Path:
    """Write a shell script that runs `before`, then this Python with the same arguments."""
    path.write_text(f'#!/bin/sh\n{before}\nexec "{sys.executable}" "$@"\n')
    path.chmod(0o755)
    return path


def cut_python(path: Path, length: int) -> Path:
    """Write a script that runs this Python and lets only `length` bytes of its stdout through."""
    # The shell closes its own copy of stdout, so that the stream ends when `head` does.
    path.write_text(
        f'#!/bin/sh\nexec 3<&0\n"{sys.executable}" "$@" <&3 | head -c {length} &\n'
        "exec >&- 3<&- <&-\nwait\n"
    )
    path.chmod(0o755)
    return path


def poll(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Return what `condition` gives once it is true; for things that another process does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.005)
    raise TimeoutError(condition)


def measured(found: object) -> Measurement:
    """Return a measurement; fails the test for anything else."""
    assert isinstance(found, Measurement), found
    return found


def failed(found: object) -> Failure:
    """Return a failure that says why in one line; fails the test for anything else."""
    assert isinstance(found, Failure), found
    assert "\n" not in found.reason
    return found


def works(device: DeviceDescription) -> bool:
    """Return whether a command on a device, over a connection of its own, answers."""
    transport = transports.connect(device)
    try:
        return transport.run(["echo", "here"], timeout_s=20).stdout == b"here\n"
    finally:
        transport.close()
