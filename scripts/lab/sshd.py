"""A loopback OpenSSH server with keys of its own: the cheapest stand-in for a device.

It proves host keys, SFTP, the agent protocol and what happens when a connection breaks, and
nothing about arm. Unprivileged, only the invoking user can log in; run by root, any user can whose
home and keys are readable. With `prefix` the server runs elsewhere, such as behind a simulated
link; `address` is where it listens there.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiles.schema import DeviceProfile
from scripts.lab.images import LabError, find

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SSHD = find("sshd")
_READY_S = 10.0

_CONFIG = """\
Port {port}
ListenAddress {address}
PidFile "{folder}/sshd.pid"
AuthorizedKeysFile "{folder}/authorized_keys"
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication yes
PrintMotd no
PrintLastLog no
X11Forwarding no
UseDNS no
LogLevel VERBOSE
"""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def keygen(path: Path, *, kind: str = "ed25519", passphrase: str = "") -> Path:
    """Make a key pair, in place of one of that name; return the private key's path."""
    path.unlink(missing_ok=True)  # ssh-keygen would ask
    size = ["-b", "2048"] if kind == "rsa" else []
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, *size, "-N", passphrase, "-f", str(path)],
        check=True,
        timeout=60,
    )
    return path


def host_line(port: int, public_key: Path, *, address: str = "127.0.0.1") -> str:
    """Return the known_hosts line for a server with that public key."""
    return f"[{address}]:{port} {' '.join(public_key.read_text().split()[:2])}\n"


def children(pid: int) -> list[int]:
    """Return the process ids of a process's children; none of one that is gone."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in found.split()]


def until_listening(process: subprocess.Popen[bytes], address: str, port: int, log: Path) -> None:
    """Wait until the server listens; raises LabError with its log when it ends or takes long."""
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise LabError(f"the SSH server ended: {log.read_text().strip()}")
        with socket.socket() as sock:
            sock.settimeout(1.0)
            if sock.connect_ex((address, port)) == 0:
                return
        time.sleep(0.01)
    raise LabError(
        f"the SSH server did not listen within {_READY_S:g} s: {log.read_text().strip()}"
    )


class LoopbackSsh:
    """A running sshd; `profile()` reaches it.

    `options` are lines of sshd_config; without a `Subsystem` among them SFTP is sshd's own.
    """

    def __init__(
        self,
        folder: Path,
        *,
        address: str = "127.0.0.1",
        host_keys: Sequence[str] = ("ed25519",),
        options: Sequence[str] = (),
        prefix: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self.address = address
        self.port = free_port()
        self.known_hosts = folder / "known_hosts"
        self.identity = keygen(folder / "client")
        self.host_keys = {kind: keygen(folder / f"host_{kind}", kind=kind) for kind in host_keys}
        keys = folder / "authorized_keys"
        keys.write_text((folder / "client.pub").read_text())
        keys.chmod(0o644)
        self.known_hosts.write_text("".join(self.host_line(kind) for kind in host_keys))
        lines = [_CONFIG.format(port=self.port, address=address, folder=folder)]
        lines += [f'HostKey "{path}"\n' for path in self.host_keys.values()]
        lines += [f"{line}\n" for line in options]
        if not any(line.startswith("Subsystem") for line in options):
            lines.append("Subsystem sftp internal-sftp\n")
        (folder / "sshd_config").write_text("".join(lines))
        self._prefix = list(prefix)
        self._process: subprocess.Popen[bytes] | None = None

    def host_line(self, kind: str = "ed25519") -> str:
        """Return the known_hosts line for one of the server's keys."""
        public = self.host_keys[kind].with_suffix(".pub")
        return host_line(self.port, public, address=self.address)

    def start(self) -> None:
        """Start the server and wait until it listens."""
        if SSHD is None:
            raise LabError("no sshd found; install it: apt-get install openssh-server")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        log = self.folder / "sshd.log"
        with log.open("wb") as stderr:
            # It must not outlive who started it, where there is setpriv (Linux).
            tie = [setpriv, "--pdeathsig", "TERM"] if (setpriv := find("setpriv")) else []
            # The absolute path is mandatory: sshd executes itself again per connection.
            command = [
                *tie,
                *self._prefix,
                SSHD,
                "-D",
                "-e",
                "-f",
                str(self.folder / "sshd_config"),
            ]
            self._process = subprocess.Popen(command, stderr=stderr)
        until_listening(self._process, self.address, self.port, log)

    def stop(self) -> None:
        """Stop the server; sessions that run go on."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)

    def sessions(self) -> list[int]:
        """Return the process ids of the connections that the server has."""
        return children(self._process.pid) if self._process is not None else []

    def cut(self) -> None:
        """Stop the server and every session it has: the device is gone."""
        sessions = self.sessions()
        self.stop()
        for pid in sessions:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def profile(self, directory: Path | str, **changes: Any) -> DeviceProfile:
        """Return a profile of this server, with fields replaced by `changes`."""
        values: dict[str, Any] = {
            "name": "lab",
            "transport": "ssh",
            "address": self.address,
            "port": self.port,
            "user": getpass.getuser(),
            "identity_file": str(self.identity),
            "known_hosts": str(self.known_hosts),
            "python": sys.executable,
            "directory": str(directory),
            "connect_timeout_s": 10.0,
        }
        return DeviceProfile(**{**values, **changes})

    def config_entry(self, alias: str, *lines: str) -> str:
        """Return a block for an SSH configuration that reaches this server as `alias`."""
        own = (
            f"HostName {self.address}",
            f"Port {self.port}",
            f"User {getpass.getuser()}",
            f"IdentityFile {self.identity}",
            "IdentitiesOnly yes",
            f"UserKnownHostsFile {self.known_hosts}",
        )
        return "\n  ".join((f"Host {alias}", *lines, *own)) + "\n"


@contextmanager
def loopback_ssh(folder: Path, **options: Any) -> Iterator[LoopbackSsh]:
    """Run a server for a `with` block."""
    server = LoopbackSsh(folder, **options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def main() -> int:
    """Run a server as a device until Ctrl-C or SIGTERM; prints its profile."""
    argparse.ArgumentParser(
        prog="scripts/lab/sshd",
        description="Runs a loopback SSH server as a device until Ctrl-C and prints the profile "
        "that reaches it. Needs Debian's openssh-server. What it proves and what not: docs/lab.md.",
    ).parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with (
            suppress(KeyboardInterrupt),
            tempfile.TemporaryDirectory(prefix="edgewright-sshd-") as name,
            loopback_ssh(Path(name)) as server,
        ):
            print_profile(server.profile(server.folder / "device"))
            print("# a device profile; Ctrl-C ends the server", flush=True)
            signal.pause()
    except LabError as error:
        print(f"sshd: {error}", file=sys.stderr)
        return 1
    return 0


def print_profile(profile: DeviceProfile) -> None:
    """Print what a profile file that reaches the server holds."""
    keys = ("transport", "address", "port", "identity_file", "known_hosts", "python", "directory")
    for key in keys:
        print(f"{key} = {json.dumps(getattr(profile, key))}")


if __name__ == "__main__":
    sys.exit(main())
