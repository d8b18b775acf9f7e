"""The byte stream under an SSH connection, and how its loss is noticed within six seconds.

A TCP connection is there as long as acknowledgements come: kernels give them, however busy a
device's programs are, to data under way and to the keepalive probes of an idle connection. When the
last one came is asked of our kernel, whose own limit (TCP_USER_TIMEOUT) counts from the first loss
of a whole stretch of them, and so ends a lossy link over which data still gets through. Where the
last leg is not a TCP connection of ours (a jump host, a ProxyCommand) the SSH server is asked
instead, and silence ends the connection.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, Self

from device_agents.transports._tail import Tail

if TYPE_CHECKING:
    from collections.abc import Callable

    import paramiko

LOST_S = 5.0
_KERNEL_LOST_S = 3 * LOST_S
_LOOK_S = 0.25
_LAST_ACK_MS = struct.Struct("=56xI")  # tcpi_last_ack_recv of Linux's struct tcp_info
_ASK_S = 1.0
_TCP_RTO_MAX_MS = 44  # Linux 6.15; Python has no name for it
# level, option, value. Options that this system does not have are left out.
_OPTIONS = (
    # A new channel costs 48 ms without it and 3 ms with it.
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    # Probes every second: several fit into LOST_S, so that a link that loses 5 % of them stays.
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", 4),
    # Should the process be too busy to ask.
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", int(_KERNEL_LOST_S * 1000)),
    # Without it the gaps between tries double, and a silence of 3.5 s already ends the connection.
    (socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, 1500),
)
_STOP_S = 2.0
_OPENING_BYTES = 1 << 16


class ByteStream(Protocol):
    """What paramiko needs of a socket."""

    def recv(self, size: int, /) -> bytes:
        """Return some bytes, nothing at the end; raises TimeoutError."""

    def send(self, data: bytes, /) -> int:
        """Send some of the bytes; raises TimeoutError."""

    def settimeout(self, timeout_s: float | None, /) -> None:
        """Set the limit of `recv` and `send`."""

    def close(self) -> None:
        """End the stream."""


def tcp(host: str, port: int, *, timeout_s: float) -> socket.socket:
    """Connect; raises OSError."""
    sock = socket.create_connection((host, port), timeout_s)
    for level, option, value in _OPTIONS:
        number = getattr(socket, option, None) if isinstance(option, str) else option
        if number is not None:
            with suppress(OSError):
                sock.setsockopt(level, number, value)
    threading.Thread(target=_mind, args=(sock,), name="ssh-mind", daemon=True).start()
    return sock


def _mind(sock: socket.socket) -> None:
    """Hang up once nothing has been acknowledged for LOST_S; ends when the socket is closed."""
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError):
        while True:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_ACK_MS.size)
            (silent_ms,) = _LAST_ACK_MS.unpack(info)
            if silent_ms > LOST_S * 1000:
                sock.shutdown(socket.SHUT_RDWR)
                return
            time.sleep(_LOOK_S)


class ProxyCommand:
    """A ProxyCommand of the SSH configuration as a byte stream.

    Run by the user's shell, as by `ssh`. Its two ends are one socket pair, which is what paramiko's
    own class lacks: that one reads until its time is over and never sees an end.
    """

    def __init__(self, command: str) -> None:
        self.command = command
        self._sock, far = socket.socketpair()
        shell = os.environ.get("SHELL") or "/bin/sh"
        try:
            # A group of its own: Ctrl-C is for us, and `close` ends all that it started.
            self._process = subprocess.Popen(
                [shell, "-c", f"exec {command}"],
                stdin=far.fileno(),
                stdout=far.fileno(),
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except BaseException:
            self._sock.close()
            raise
        finally:
            far.close()
        assert self._process.stderr is not None  # noqa: S101  # stderr=PIPE above
        self._errors = self._process.stderr
        self._tail = Tail(lambda: os.read(self._errors.fileno(), 1 << 16))

    def said(self) -> str:
        """Return the end of what the command wrote on stderr."""
        return self._tail.text(settle_s=0.2)

    def recv(self, size: int) -> bytes:
        """See ByteStream."""
        return self._sock.recv(size)

    def send(self, data: bytes) -> int:
        """See ByteStream."""
        return self._sock.send(data)

    def settimeout(self, timeout_s: float | None) -> None:
        """See ByteStream."""
        self._sock.settimeout(timeout_s)

    def close(self) -> None:
        """End the command and what it started."""
        self._sock.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_STOP_S)
        self._tail.text(settle_s=_STOP_S)
        self._errors.close()


class Listened:
    """A byte stream that ends by itself when, once guarded, nothing is heard for LOST_S.

    Attributes:
        opening: what was heard up to the server's version, which begins with `SSH-`. A server that
            refuses says why instead; one that goes on and on without it is hung up on.
        ended: whether the other side has hung up.
    """

    def __init__(self, inner: ByteStream, clock: Callable[[], float] = time.monotonic) -> None:
        self._inner = inner
        self._clock = clock
        self._heard = clock()
        self.opening = b""
        self.ended = False
        self._versioned = False
        self._guarded = False
        self._closed = False  # paramiko reads it

    def guard(self, transport: paramiko.Transport) -> None:
        """From now on ask the server every second whether it is there, and mind its silence.

        Of a TCP connection acknowledgements are minded from its beginning.
        """
        if isinstance(self._inner, socket.socket):
            return
        self._heard = self._clock()
        self._guarded = True
        threading.Thread(target=_ask, args=(transport,), name="ssh-ask", daemon=True).start()

    def recv(self, size: int) -> bytes:
        """See ByteStream."""
        try:
            data = self._inner.recv(size)
        except TimeoutError:
            if self._guarded and self._clock() - self._heard > LOST_S:
                return b""
            raise
        except OSError:
            self.ended = True
            raise
        self.ended = not data
        self._heard = self._clock()
        if not self._versioned:
            self.opening += data
            self._versioned = b"SSH-" in self.opening
            if not self._versioned and len(self.opening) > _OPENING_BYTES:
                return b""
        return data

    def send(self, data: bytes) -> int:
        """See ByteStream."""
        try:
            return self._inner.send(data)
        except TimeoutError:
            raise
        except OSError:
            self.ended = True
            raise

    def settimeout(self, timeout_s: float | None) -> None:
        """See ByteStream."""
        self._inner.settimeout(timeout_s)

    def close(self) -> None:
        """End the stream; both paramiko's thread and its caller do."""
        if self._closed:
            return
        self._closed = True
        # A channel says goodbye to its jump host, which may be gone.
        with suppress(Exception):
            self._inner.close()

    def said(self) -> str:
        """Return what a ProxyCommand wrote on stderr."""
        return self._inner.said() if isinstance(self._inner, ProxyCommand) else ""


def _ask(transport: paramiko.Transport) -> None:
    """Make the server say something; any byte of it counts, not this answer alone."""
    with suppress(Exception):
        while True:
            transport.join(_ASK_S)
            if not transport.is_active():
                return
            transport.global_request("keepalive@openssh.com", wait=True)


class Stall:
    """Calls `end` when the body of a `with` makes no progress for `limit_s`."""

    def __init__(self, limit_s: float, end: Callable[[], None]) -> None:
        self.limit_s = limit_s
        self.expired = False
        self._end = end
        self._done = threading.Event()
        self._due = 0.0
        self._thread = threading.Thread(target=self._watch, name="ssh-stall", daemon=True)

    def progress(self, *_: object) -> None:
        """Note that there is progress; takes what callbacks of transfers are given."""
        self._due = time.monotonic() + self.limit_s

    def __enter__(self) -> Self:
        self.progress()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def _watch(self) -> None:
        while not self._done.wait(max(0.0, self._due - time.monotonic())):
            if time.monotonic() >= self._due:
                self.expired = True
                self._end()
                return
