"""A board with a real arm64 kernel whose clock counts instructions: one nanosecond for each.

The clock depends on nothing of the host, so the same model takes the same time in every boot, and a
variant that executes fewer instructions is faster. What it shows is a count and not the time of any
board: there are no caches, no memory bandwidth, no width of vector units and no heat. One core.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.lab import aarch64, debian, reaching
from scripts.lab.foreground import options_of, serve
from scripts.lab.images import LabError, built, find, need, step
from scripts.lab.sshd import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from profiles.schema import DeviceProfile
    from scripts.lab.debian import Image

PACKAGES = "qemu-system-arm mmdebstrap e2fsprogs cpio openssh-client util-linux"
_MEMORY_MIB = 1024
_DISK_MIB = 1200
_BOOT_S = 120.0
_GREET_S = 30.0
_POLL_S = 0.2
_READY = b"MINI-INIT-READY"

# In the order they must be loaded, each with its folder below kernel/.
_MODULES = (
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio_mmio",
    "drivers/char/hw_random/virtio-rng",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/net/virtio_net",
    "drivers/block/virtio_blk",
)

_INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
for m in {modules}; do /bin/busybox insmod /mods/$m.ko; done
n=0; while [ ! -b /dev/vda ] && [ $n -lt 100 ]; do /bin/busybox sleep 0.05; n=$((n+1)); done
/bin/busybox mount -t ext4 -o rw,noatime /dev/vda /new || exec /bin/busybox sh
for d in dev proc sys; do /bin/busybox mount --move /$d /new/$d; done
exec /bin/busybox switch_root /new /sbin/mini-init
"""

# Run by mmdebstrap while it knows the package lists; $1 is the folder it works in.
_DOWNLOAD = """\
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
kernel=$(apt-cache depends linux-image-cloud-arm64 | awk '/Depends: linux-image/ { print $2 }')
cd "$1" && apt-get download -qq $kernel busybox-static
"""


class Guest:
    """A running guest; `profile()` reaches it."""

    def __init__(self, image: Image, parts: Path, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._image = image
        self._parts = parts
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Boot it and wait until its SSH server runs; the disk is never written."""
        serial, log = self.folder / "serial.log", self.folder / "qemu.log"
        serial.unlink(missing_ok=True)
        disk = f"file={self._parts / 'root.ext4'},if=none,id=d0,format=raw,snapshot=on"
        network = f"user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-:22"
        # setpriv ends the guest with this process, should that be killed.
        argv = [
            *("setpriv", "--pdeathsig", "KILL", "qemu-system-aarch64"),
            *("-M", "virt,gic-version=3", "-cpu", "cortex-a72", "-smp", "1"),
            *("-m", str(_MEMORY_MIB), "-accel", "tcg,thread=single"),
            *("-icount", "shift=0,align=off,sleep=on"),
            *("-kernel", str(self._parts / "vmlinuz")),
            *("-initrd", str(self._parts / "initrd.img")),
            *("-append", "console=ttyAMA0 quiet panic=-1 audit=0"),
            *("-drive", disk, "-device", "virtio-blk-device,drive=d0"),
            *("-netdev", network, "-device", "virtio-net-device,netdev=n0"),
            *("-object", "rng-random,filename=/dev/urandom,id=r0"),
            *("-device", "virtio-rng-device,rng=r0", "-nographic", "-no-reboot"),
            *("-serial", f"file:{serial}", "-monitor", "none"),
        ]
        with log.open("wb") as output:
            self._process = subprocess.Popen(argv, stdout=output, stderr=output)
        deadline = time.monotonic() + _BOOT_S
        # The server listens a moment after it has said so, and QEMU takes connections before.
        while not (
            serial.is_file()
            and _READY in serial.read_bytes()
            and reaching.greets(self.port, timeout_s=_GREET_S)
        ):
            if self._process.poll() is not None:
                raise LabError(f"the guest did not start: {log.read_text().strip()}")
            if time.monotonic() > deadline:
                raise LabError(f"the guest was not ready in {_BOOT_S:g} s; see {serial}")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """End it at once, like pulling the plug."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def profile(self, **changes: Any) -> DeviceProfile:
        """Return a profile that reaches it, with fields replaced by `changes`."""
        return reaching.profile(self.profile_values(), **changes)

    def profile_values(self) -> dict[str, Any]:
        """Return what a profile file of it holds."""
        known_hosts = self.folder / "known_hosts"
        return reaching.profile_values("icount", self.port, self._image, known_hosts)


@contextmanager
def running(folder: Path) -> Iterator[Guest]:
    """Run a guest for a `with` block."""
    guest = Guest(*prepare(), folder)
    try:
        guest.start()
        yield guest
    finally:
        guest.stop()


def prepare() -> tuple[Image, Path]:
    """Check what a guest needs and return its image and its parts, built when there are none."""
    need("setpriv", "qemu-system-aarch64", "ssh", packages=PACKAGES)
    image = debian.image(aarch64.BOARD.name, aarch64.SYSTEM)
    return image, _parts(image)


def _parts(image: Image) -> Path:
    """Return the folder with disk, kernel and first file system, built when there is none yet."""
    content = {
        "root": image.root.parent.name,
        "disk_mib": _DISK_MIB,
        "kernel": [_DOWNLOAD, _MODULES, _INIT],
    }

    def build(folder: Path) -> None:
        need("mmdebstrap", "mke2fs", "cpio", "dpkg-deb", packages=PACKAGES)
        disk = str(folder / "root.ext4")
        argv = ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(image.root), disk]
        step("making the guest's disk", [*argv, f"{_DISK_MIB}M"], timeout_s=300.0)
        _fetch_kernel(folder)

    return built("icount", content, build)


def _fetch_kernel(folder: Path) -> None:
    work = folder / "work"
    lists, unpacked, initrd = work / "lists", work / "unpacked", work / "initrd"
    work.mkdir()
    debian.extract("fetching the guest's kernel", lists, "arm64", f"--extract-hook={_DOWNLOAD}")
    for package in lists.glob("*.deb"):
        argv = ["dpkg-deb", "-x", str(package), str(unpacked)]
        step(f"unpacking {package.name}", argv, timeout_s=120.0)
    shutil.copyfile(next(unpacked.glob("boot/vmlinuz-*")), folder / "vmlinuz")
    for name in ("bin", "dev", "proc", "sys", "mods", "new"):
        (initrd / name).mkdir(parents=True)
    shutil.copy(unpacked / "bin/busybox", initrd / "bin/busybox")
    kernel = next(unpacked.glob("lib/modules/*/kernel"))
    for module in _MODULES:
        shutil.copy(kernel / f"{module}.ko", initrd / "mods")
    names = " ".join(Path(module).name for module in _MODULES)
    (initrd / "init").write_text(_INIT.format(modules=names), encoding="utf-8")
    (initrd / "init").chmod(0o755)
    files = [str(path.relative_to(initrd)) for path in sorted(initrd.rglob("*"))]
    packed = subprocess.run(
        [find("cpio") or "cpio", "-o", "-H", "newc", "--quiet"],
        input="\n".join(files).encode(), capture_output=True, cwd=initrd, timeout=60, check=True,
    )  # fmt: skip
    (folder / "initrd.img").write_bytes(gzip.compress(packed.stdout))
    shutil.rmtree(work)


if __name__ == "__main__":
    options_of(
        "icount",
        "Runs a virtual board whose clock counts instructions until Ctrl-C and prints the profile\n"
        "that reaches it. Needs Debian's qemu-system-arm and, to build its image, root and what\n"
        "scripts/lab/aarch64 needs; scripts/system-packages installs all of it.",
    ).parse_args()
    sys.exit(serve(running, "icount", "Ctrl-C stops it."))
