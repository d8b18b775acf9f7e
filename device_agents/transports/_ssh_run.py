"""Runs one process on a device over SSH to its end, within a deadline and with bounded output."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from device_agents.api import Completed
from device_agents.errors import DeadlineExceeded, LinkLost
from device_agents.transports._bounds import Kept, too_much
from device_agents.transports._ssh_command import NOISE_LIMIT_BYTES
from device_agents.transports._ssh_stream import BROKEN, stderr_chunk
from device_agents.transports._tail import Tail
from device_agents.transports._words import quote

if TYPE_CHECKING:
    import paramiko

    from device_agents.transports._ssh_command import Command


def finish(
    name: str, channel: paramiko.Channel, command: Command, stdin: bytes, timeout_s: float
) -> tuple[Completed, bytes]:
    """Return what the started process did, and what the login shell printed before it.

    Raises DeadlineExceeded, LinkLost, and DeviceError when it was not started or wrote too much.
    """
    deadline = time.monotonic() + timeout_s
    out, errors = Kept(), Kept()
    tail = Tail(lambda: _kept(errors, stderr_chunk(channel), channel))
    # In a thread of its own: the process may write more than fits before it reads on.
    feeder = threading.Thread(target=_feed, args=(channel, stdin), name="stdin", daemon=True)
    try:
        channel.settimeout(timeout_s)
        feeder.start()
        _gather(name, channel, out, deadline, command.mark)
        if not out.full:
            _await_exit(channel, deadline)
            tail.text(settle_s=max(0.001, deadline - time.monotonic()))
    except TimeoutError:
        late = f"device {name!r}: {command.program} did not end within {timeout_s:g} s"
        if command.mark not in out.data:
            late += ", and the login shell has not started it"
            said = quote(out.data or errors.data)
            late += f": it says {said!r}" if said else ""
        raise DeadlineExceeded(late) from None
    except BROKEN as error:
        raise LinkLost(f"device {name!r}: the connection broke: {error}") from error
    finally:
        channel.close()
    if out.full or errors.full:
        raise too_much(name, command.program)
    noise, mark, own = out.data.partition(command.mark)
    if not mark:
        raise command.not_started(name, channel.exit_status, noise or errors.data)
    if channel.exit_status < 0:
        raise LinkLost(f"device {name!r}: {command.program} ended without an exit code")
    return Completed(channel.exit_status, own, command.own(errors.data)), noise


def _gather(name: str, channel: paramiko.Channel, out: Kept, deadline: float, mark: bytes) -> None:
    """Take in stdout to its end, or up to its limit; raises TimeoutError, DeviceError."""
    begun = False
    while not out.full:
        channel.settimeout(max(0.001, deadline - time.monotonic()))
        chunk = channel.recv(1 << 16)
        if not chunk:
            return
        out.take(chunk)
        begun = begun or mark in out.data
        if not begun and len(out.data) > NOISE_LIMIT_BYTES:
            raise too_much(name, "the login shell", limit_bytes=NOISE_LIMIT_BYTES)


def _await_exit(channel: paramiko.Channel, deadline: float) -> None:
    """Wait for the exit code, for which the channel's own wait has no limit."""
    if not channel.status_event.wait(max(0.0, deadline - time.monotonic())):
        raise TimeoutError


def _kept(kept: Kept, chunk: bytes, channel: paramiko.Channel) -> bytes:
    kept.take(chunk)
    if kept.full:
        channel.close()
    return chunk


def _feed(channel: paramiko.Channel, data: bytes) -> None:
    # What the process does not take is its own affair; the deadline is the reader's.
    with suppress(*BROKEN):
        channel.sendall(data)
        channel.shutdown_write()
