"""Stand-ins for devices: a loopback OpenSSH server with keys of its own, and a test deadline.

The server runs unprivileged on 127.0.0.1; only the invoking user can log in. It proves host keys,
SFTP and the agent protocol, and nothing about arm.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from profiles.schema import DeviceProfile

if TYPE_CHECKING:
    from collections.abc import Iterator

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
_READY_S = 10.0

_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication yes
PrintMotd no
PrintLastLog no
X11Forwarding no
UseDNS no
Subsystem sftp internal-sftp
LogLevel VERBOSE
"""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def keygen(path: Path) -> Path:
    """Make an ed25519 key pair; return the private key's path."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=30
    )
    return path


def host_line(port: int, public_key: Path) -> str:
    """Return the known_hosts line for a server on this machine."""
    return f"[127.0.0.1]:{port} {' '.join(public_key.read_text().split()[:2])}\n"


class LoopbackSsh:
    """A running sshd; `profile()` reaches it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.known_hosts = folder / "known_hosts"
        self.identity = keygen(folder / "client")
        keygen(folder / "host")
        keys = folder / "authorized_keys"
        keys.write_text((folder / "client.pub").read_text())
        keys.chmod(0o600)
        self.known_hosts.write_text(host_line(self.port, folder / "host.pub"))
        (folder / "sshd_config").write_text(_CONFIG.format(port=self.port, folder=folder))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it listens."""
        if SSHD is None:
            pytest.skip("no sshd found; install the package openssh-server")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        log = self.folder / "sshd.log"
        with log.open("wb") as stderr:
            # The absolute path is mandatory: sshd executes itself again per connection.
            self._process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")], stderr=stderr
            )
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"sshd ended: {log.read_text()}")
            with socket.socket() as sock:
                sock.settimeout(1.0)
                if sock.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise RuntimeError(f"sshd did not listen within {_READY_S} s: {log.read_text()}")

    def stop(self) -> None:
        """Stop the server; sessions that run go on."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)

    def cut(self) -> None:
        """Stop the server and every session it has: the device is gone."""
        if self._process is not None:
            sessions = subprocess.run(
                ["pgrep", "-P", str(self._process.pid)], capture_output=True, text=True, check=False
            ).stdout.split()
            self.stop()
            for pid in sessions:
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)

    def profile(self, directory: Path | str, **changes: Any) -> DeviceProfile:
        """Return a profile of this server, with fields replaced by `changes`."""
        values: dict[str, Any] = {
            "name": "lab",
            "transport": "ssh",
            "address": "127.0.0.1",
            "port": self.port,
            "user": getpass.getuser(),
            "identity_file": str(self.identity),
            "known_hosts": str(self.known_hosts),
            "python": sys.executable,
            "directory": str(directory),
            "connect_timeout_s": 10.0,
        }
        return DeviceProfile(**{**values, **changes})


@contextmanager
def loopback_ssh(folder: Path) -> Iterator[LoopbackSsh]:
    """Run a server for a `with` block."""
    server = LoopbackSsh(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


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
