"""A Raspberry-Pi-like userland of another processor, run by the host's kernel and QEMU's user mode.

It proves that the real wheels load and compute the same, that the doctor recognises the board, and
what happens when the sensors say that it is hot. Its times mean nothing: QEMU translates every
instruction. Needs root, for a name space of its own: everything in it (processes, mounts, what was
written) ends with it, since only the image below it is on disk, and that is never written.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.lab import debian, reaching
from scripts.lab.images import LabError, need, step
from scripts.lab.sshd import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from profiles.schema import DeviceProfile
    from scripts.lab.debian import Image, System

PACKAGES = "qemu-user-static binfmt-support mmdebstrap openssh-client util-linux"
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_READY_S = 30.0

# Arguments: folder, image, port, environment of the sessions. In this order: /proc first, then the
# file over it. The scratch file system is one of memory, which goes when the name space goes.
_START = """\
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$1/scratch"
mkdir "$1/scratch/upper" "$1/scratch/work" "$1/scratch/root"
r=$1/scratch/root
mount -t overlay -o "lowerdir=$2,upperdir=$1/scratch/upper,workdir=$1/scratch/work" overlay "$r"
mount -t proc proc "$r/proc"
mount --bind "$1/cpuinfo" "$r/proc/cpuinfo"
mount --bind "$1/sys" "$r/sys"
mount --rbind /dev "$r/dev"
mount -t tmpfs -o mode=755 tmpfs "$r/run"
mkdir -p "$r/run/sshd"
hostname raspberrypi
exec chroot "$r" /usr/sbin/sshd -D -e -o "Port $3" -o "ListenAddress 127.0.0.1" -o "SetEnv $4"
"""


@dataclass(frozen=True, slots=True)
class Board:
    """What the userland claims to run on.

    Attributes:
        name: of the virtual device; its profile is `virtual_<name>`.
        interpreter: QEMU's name of the processor.
        cpu: QEMU's name of the core; empty means all that it can emulate.
        cpuinfo: the block of one core in /proc/cpuinfo, after its `processor` line.
        cpuinfo_end: what follows the cores.
        model: what the device tree says.
    """

    name: str
    interpreter: str
    cpu: str
    cpuinfo: str
    cpuinfo_end: str
    model: str


class Userland:
    """A running virtual device; `profile()` reaches it, `sensors()` changes what it feels."""

    def __init__(self, board: Board, image: Image, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._board = board
        self._image = image
        self._process: subprocess.Popen[bytes] | None = None
        self._write_sensors()

    def start(self, site: str) -> None:
        """Start it and wait until its SSH server greets; `site` is the folder of wheels, or empty.

        The runtimes' wheels read /proc/cpuinfo and crash on an x86 one, so it is covered.
        """
        cores = os.cpu_count() or 1
        blocks = "".join(f"processor\t: {core}\n{self._board.cpuinfo}\n" for core in range(cores))
        (self.folder / "cpuinfo").write_text(blocks + self._board.cpuinfo_end, encoding="utf-8")
        (self.folder / "scratch").mkdir(exist_ok=True)
        environment = {"LANG": "C.UTF-8", "QEMU_CPU": self._board.cpu, "PYTHONPATH": site}
        settings = " ".join(f"{name}={value}" for name, value in environment.items() if value)
        log = self.folder / "sshd.log"
        # A device must not outlive who started it: setpriv ties unshare to this process, and
        # unshare its child, whose end is the end of the name space.
        argv = [
            *("setpriv", "--pdeathsig", "KILL"),
            *("unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"),
            *("sh", "-c", _START, "lab", str(self.folder), str(self._image.root)),
            *(str(self.port), settings),
        ]
        with log.open("wb") as output:
            self._process = subprocess.Popen(argv, stdout=output, stderr=output)
        deadline = time.monotonic() + _READY_S
        while not reaching.greets(self.port, timeout_s=5.0):
            if self._process.poll() is not None:
                raise LabError(f"{self._board.name} did not start: {log.read_text().strip()}")
            if time.monotonic() > deadline:
                raise LabError(f"{self._board.name} was not ready in {_READY_S:g} s; see {log}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it at once, like pulling the plug; SIGTERM would not reach the name space."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def profile(self, **changes: Any) -> DeviceProfile:
        """Return a profile that reaches it, with fields replaced by `changes`."""
        return reaching.profile(self.profile_values(), **changes)

    def profile_values(self) -> dict[str, Any]:
        """Return what a profile file of it holds."""
        known_hosts = self.folder / "known_hosts"
        return reaching.profile_values(self._board.name, self.port, self._image, known_hosts)

    def run(self, *argv: str, timeout_s: float = 60.0) -> str:
        """Run a command on it as `pi`, with OpenSSH's own client, and return its stdout."""
        values = self.profile_values()
        options = ["-F", "none", "-i", values["identity_file"], "-p", str(self.port)]
        options += ["-o", f"UserKnownHostsFile={values['known_hosts']}", "-o", "BatchMode=yes"]
        command = ["ssh", *options, "pi@127.0.0.1", shlex.join(argv)]
        return step(f"a command on {self._board.name}", command, timeout_s=timeout_s)

    def sensors(
        self,
        *,
        temp_celsius: float | None = None,
        throttled: int | None = None,
        clock_khz: int | None = None,
    ) -> None:
        """Change what the running device's sensors say; what is None stays."""
        sys = self.folder / "sys"
        if temp_celsius is not None:
            text = f"{round(temp_celsius * 1000)}\n"
            (sys / "class/thermal/thermal_zone0/temp").write_text(text)
        if throttled is not None:
            (sys / "throttled").write_text(f"{throttled:#x}\n")
        if clock_khz is not None:
            clock = sys / "devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
            clock.write_text(f"{clock_khz}\n")

    def _write_sensors(self) -> None:
        cores = f"0-{(os.cpu_count() or 1) - 1}\n"
        cpu = "devices/system/cpu"
        files = {
            "class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "class/thermal/thermal_zone0/temp": "48312\n",
            f"{cpu}/possible": cores,
            f"{cpu}/present": cores,
            f"{cpu}/online": cores,
            f"{cpu}/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
            f"{cpu}/cpu0/cpufreq/cpuinfo_max_freq": "1500000\n",
            f"{cpu}/cpu0/cpufreq/cpuinfo_min_freq": "600000\n",
            f"{cpu}/cpu0/cpufreq/scaling_governor": "ondemand\n",
            "firmware/devicetree/base/model": f"{self._board.model}\0",
            "throttled": "0x0\n",
        }
        for name, text in files.items():
            path = self.folder / "sys" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


@contextmanager
def running(board: Board, system: System, folder: Path, *, runtime: str = "") -> Iterator[Userland]:
    """Run a virtual device for a `with` block; `runtime` is a site of its system, or none."""
    device = Userland(board, prepare(board, system), folder)
    try:
        device.start(f"/opt/{runtime}" if runtime else "")
        yield device
    finally:
        device.stop()


def prepare(board: Board, system: System) -> Image:
    """Check what a device needs and return its image, built when there is none yet."""
    need("setpriv", "unshare", "ssh", packages=PACKAGES)
    _register(board.interpreter)
    return debian.image(board.name, system)


def _register(interpreter: str) -> None:
    """Let the kernel run programs of that processor, as the installed package would at boot."""
    if os.geteuid() != 0:
        raise LabError("a foreign userland needs root, for mounts and a name space of its own")
    if not (_BINFMT / "register").exists():
        argv = ["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)]
        step("mounting binfmt_misc", argv, timeout_s=10.0)
    name = f"qemu-{interpreter}"
    if not (_BINFMT / name).exists():
        need("update-binfmts", packages=PACKAGES)
        step(f"registering {name}", ["update-binfmts", "--enable", name], timeout_s=10.0)
    if not (_BINFMT / name).exists():
        raise LabError(f"the kernel does not know {name}; install it: apt-get install {PACKAGES}")
