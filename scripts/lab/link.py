"""A network link with settable delay, loss and cuts, and a place behind it for a device.

The device side is a network namespace, so that two real TCP stacks talk over it: they retransmit,
back off and give up as they do over Wi-Fi, which no proxy in user space can show. Two TUN devices,
one in each namespace, hand their packets to one process, which holds them back, drops them or
passes them on; it needs no netem. Root and /dev/net/tun are needed.

Nothing is left behind, however it ends: the namespaces have no names, the TUN devices live as long
as the process that holds them, and that ends with its parent's pipe; the device side is a process
namespace too, whose programs the kernel kills with its first process.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import shlex
import signal
import struct
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.files import replace_file
from scripts.lab.images import LabError, find
from scripts.lab.sshd import loopback_ssh, print_profile

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).resolve().parents[2]
_TUN = Path("/dev/net/tun")
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x1001
_CLONE_NEWNET = 0x40000000
_CLONE_NEWPID = 0x20000000
_PR_SET_PDEATHSIG = 1
_MTU = 1400
_BURST = 64
# How soon new settings are seen at the latest.
_LOOK_S = 0.01
_START_S = 20.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How the link behaves, in each of the two directions."""

    delay_ms: float = 0.0
    loss: float = 0.0
    up: bool = True


def why_not() -> str:
    """Return why no link can be made on this computer; empty when one can."""
    if os.geteuid() != 0:
        return "a simulated link needs root"
    if not os.access(_TUN, os.R_OK | os.W_OK):
        return f"a simulated link needs {_TUN}"
    missing = [name for name in ("ip", "nsenter") if find(name) is None]
    if missing:
        return (
            f"a simulated link needs {' and '.join(missing)}; install it: apt-get install "
            "iproute2 util-linux"
        )
    return ""


class Link:
    """A running link: `host` and `device` are the addresses of its two ends."""

    def __init__(self, folder: Path, holder: str, host: str, device: str) -> None:
        self._file = folder / "settings.json"
        self._holder = holder
        self.settings = Settings()
        self.host = host
        self.device = device

    @property
    def prefix(self) -> list[str]:
        """What to put before a command so that it runs on the device's side."""
        return ["nsenter", "-t", self._holder, "-n", "-p", "--"]

    def set(self, **changes: Any) -> None:
        """Change some of the fields of `Settings`; they hold after about 10 ms."""
        self.settings = replace(self.settings, **changes)
        write_settings(self._file, self.settings)


@contextmanager
def running(folder: Path) -> Iterator[Link]:
    """Run a link for a `with` block; raises LabError where that is impossible."""
    reason = why_not()
    if reason:
        raise LabError(reason)
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "settings.json"
    write_settings(settings, Settings())
    command = [sys.executable, "-m", "scripts.lab.link", "serve", str(folder)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_ROOT, start_new_session=True
    )
    assert process.stdin is not None  # noqa: S101  # PIPE above
    assert process.stdout is not None  # noqa: S101
    try:
        ready, _, _ = select.select([process.stdout], [], [], _START_S)
        line = process.stdout.readline() if ready else b""
        if not line:
            raise LabError("the link did not start; its process said why on stderr")
        holder, host, device = line.decode().split()
        yield Link(folder, holder, host, device)
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(_START_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        settings.unlink(missing_ok=True)


def write_settings(file: Path, settings: Settings) -> None:
    """Replace the file that the link's process looks at."""
    replace_file(file, json.dumps(asdict(settings)).encode())


def read_settings(file: Path) -> Settings:
    """Return what the file says."""
    return Settings(**json.loads(file.read_text()))


def _addresses(number: int) -> tuple[str, str]:
    # From the block that is reserved for tests of network devices, a pair per process.
    first = number % 0x7FFF * 4 + 1
    base = f"198.{18 + (first >> 16)}.{first >> 8 & 255}"
    return f"{base}.{first & 255}", f"{base}.{(first & 255) + 1}"


def _serve(folder: Path) -> None:
    """Be the link until stdin ends; says first which process holds the device's side, and where."""
    number = os.getpid()
    host, device = _addresses(number)
    here = _tun(f"ew{number}h", host, device)
    libc = ctypes.CDLL(None, use_errno=True)
    _unshare(libc, _CLONE_NEWNET)
    # This process has left the host's network; the first device stays there all the same.
    there = _tun(f"ew{number}d", device, host)
    _ip("link", "set", "lo", "up")
    # Last, because the next process to be started is the first of its namespace.
    _unshare(libc, _CLONE_NEWPID)
    holder = os.fork()
    if not holder:
        _hold(libc, (here, there))
    print(holder, host, device, flush=True)
    _carry(here, there, folder / "settings.json")


def _unshare(libc: ctypes.CDLL, flag: int) -> None:
    if libc.unshare(flag) != 0:
        raise OSError(ctypes.get_errno(), "no namespace of its own for the device's side")


def _hold(libc: ctypes.CDLL, private: tuple[int, ...]) -> None:
    """Be the first process of the device's side: everything there ends when this one does."""
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    for descriptor in (0, 1, *private):
        os.close(descriptor)
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            signal.sigtimedwait([signal.SIGCHLD], 1.0)


def _tun(name: str, own: str, peer: str) -> int:
    descriptor = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN_NO_PI))
    _ip("addr", "add", own, "peer", peer, "dev", name)
    _ip("link", "set", name, "up", "mtu", str(_MTU))
    return descriptor


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=_START_S, stdin=subprocess.DEVNULL)


def _carry(here: int, there: int, file: Path) -> None:
    """Move packets between the two devices until stdin ends."""
    rng = random.Random(0)  # noqa: S311  # a simulation
    other = {here: there, there: here}
    due: list[tuple[float, int, int, bytes]] = []
    settings, seen, number = read_settings(file), 0, 0
    while True:
        now = time.monotonic()
        changed = file.stat().st_mtime_ns
        if changed != seen:
            settings, seen = read_settings(file), changed
        wait_s = min(_LOOK_S, max(0.0, due[0][0] - now)) if due else _LOOK_S
        ready, _, _ = select.select([here, there, 0], [], [], wait_s)
        if 0 in ready and not os.read(0, 1024):
            return
        now = time.monotonic()
        for source in ready:
            if source in other:
                for packet in _packets(source):
                    number += 1
                    if settings.up and rng.random() >= settings.loss:
                        arrives = now + settings.delay_ms / 1000.0
                        heapq.heappush(due, (arrives, number, other[source], packet))
        if not settings.up:
            due.clear()
        while due and due[0][0] <= now:
            with suppress(OSError):  # full or down: lost, as on a real link
                os.write(due[0][2], due[0][3])
            heapq.heappop(due)


def _packets(source: int) -> Iterator[bytes]:
    for _ in range(_BURST):
        try:
            yield os.read(source, 1 << 16)
        except BlockingIOError:
            return


def _start(folder: Path) -> None:
    with (
        running(folder) as link,
        loopback_ssh(folder, address=link.device, prefix=link.prefix) as server,
    ):
        print(f"# {link.host} here, {link.device} on the device's side; Ctrl-C ends it")
        print_profile(server.profile(folder / "device"))
        quoted = shlex.quote(str(folder))
        print(f"# scripts/lab/link set {quoted} --delay-ms 300 --loss 0.05")
        print(f"# scripts/lab/link cut {quoted}", flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()


def _share(text: str) -> float:
    share = float(text)
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return share


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/lab/link", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    words = {
        "start": "run a link with an SSH server behind it; prints its profile",
        "set": "change how a running link behaves",
        "cut": "let nothing pass any more, and tell nobody",
        "heal": "let everything pass again",
        "serve": "carry the packets; what `start` runs",
    }
    for command, help_text in words.items():
        added = commands.add_parser(command, help=help_text)
        added.add_argument("folder", type=Path, help="where settings and keys of the link lie")
        if command == "set":
            added.add_argument("--delay-ms", type=float, help="in each direction")
            added.add_argument("--loss", type=_share, help="share of the packets, 0 to 1")
    return parser


def main() -> int:
    """Be the program `scripts/lab/link`."""
    asked = _parser().parse_args()
    if asked.command == "serve":
        _serve(asked.folder)
        return 0
    if asked.command == "start":
        try:
            _start(asked.folder.resolve())
        except LabError as error:
            print(f"link: {error}", file=sys.stderr)
            return 1
        return 0
    file = asked.folder / "settings.json"
    if not file.is_file():
        words = f"no link runs in {asked.folder}; start one: scripts/lab/link start {asked.folder}"
        print(words, file=sys.stderr)
        return 2
    changes = {"cut": {"up": False}, "heal": {"up": True}}.get(asked.command) or {
        key: value for key in ("delay_ms", "loss") if (value := getattr(asked, key)) is not None
    }
    write_settings(file, replace(read_settings(file), **changes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
