"""A Debian root file system for another processor, made without running a program of it.

Packages are only unpacked. What their scripts would have done is done here, with an account `pi`
that one key opens. Python wheels are unpacked by the host's pip, and compiled by the host's Python
where that is of the same version, since compiled modules do not depend on the processor.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.lab.images import LabError, built, need, step

SUITE = "bookworm"
PYTHON = "3.11"
HOST_NAME = "raspberrypi"
_APT_PACKAGES = "mmdebstrap openssh-client"

PACKAGES = (
    "base-files base-passwd bash coreutils dash libc-bin login mount util-linux procps grep sed "
    "findutils tar gzip hostname iproute2 mawk openssh-server openssh-sftp-server python3 "
    # Nothing pulls these in, and NumPy needs them.
    "libstdc++6 libgcc-s1 libatomic1"
)

_SSHD_CONFIG = """\
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile .ssh/authorized_keys
PidFile none
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PrintMotd no
PrintLastLog no
UseDNS no
Subsystem sftp internal-sftp
"""

# Answers from files below /sys, which tests rewrite while the device runs; without them like a
# board whose firmware does not answer.
_VCGENCMD = """\
#!/bin/sh
[ -r /sys/throttled ] || { echo "VCHI initialization failed" >&2; exit 255; }
read -r temp < /sys/class/thermal/thermal_zone0/temp
case "$*" in
  get_throttled) read -r bits < /sys/throttled; echo "throttled=$bits" ;;
  measure_temp) echo "temp=$((temp / 1000)).$((temp % 1000 / 100))'C" ;;
  "measure_clock arm")
    read -r khz < /sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq
    echo "frequency(48)=${khz}000" ;;
  *) echo 'error=1 error_msg="Command not registered"' ;;
esac
"""

# Process 1 of a guest with a kernel of its own; an exit would stop the kernel.
_MINI_INIT = """\
#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t tmpfs tmpfs /run; mkdir -p /run/sshd /dev/pts /dev/shm
mount -t devpts devpts /dev/pts; mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
hostname raspberrypi
ip link set lo up; ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
read -r options < /etc/ssh/session_environment
/usr/sbin/sshd -E /run/sshd.log -o "SetEnv $options"
echo MINI-INIT-READY > /dev/console
while :; do sleep 3600 & wait $!; done
"""


@dataclass(frozen=True, slots=True)
class System:
    """What a root file system holds.

    Attributes:
        arch: Debian's name of the processor.
        platforms: wheel tags that fit it; every one must be listed, pip does not expand them.
        sites: name -> requirements, each unpacked into `/opt/<name>`.
        packages: Debian packages beside PACKAGES.
        links: link -> target, which the system of alternatives would make.
    """

    arch: str
    platforms: tuple[str, ...]
    sites: dict[str, tuple[str, ...]]
    packages: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """A root file system on disk with the keys that open it."""

    root: Path
    identity: Path
    host_key: str


def image(name: str, system: System) -> Image:
    """Return the image of a system, built when there is none yet."""
    content = {"system": asdict(system), "code": Path(__file__).read_text(encoding="utf-8")}

    def build(folder: Path) -> None:
        _build(folder, system)

    folder = built(name, content, build)
    host_key = (folder / "host.pub").read_text(encoding="utf-8")
    return Image(folder / "root", folder / "client", " ".join(host_key.split()[:2]))


def extract(what: str, root: Path, arch: str, *options: str, timeout_s: float = 600.0) -> None:
    """Unpack packages of Debian's `arch` below `root`; `options` say which."""
    argv = ["mmdebstrap", "--quiet", f"--arch={arch}", "--variant=extract", "--skip=check/qemu"]
    argv += ["--aptopt=Acquire::Languages none", "--aptopt=Acquire::Retries 3", *options]
    step(what, [*argv, SUITE, str(root), *_mirror()], timeout_s=timeout_s)


def _build(folder: Path, system: System) -> None:
    if os.geteuid() != 0:
        raise LabError("building the image of a virtual device needs root: files in it have owners")
    need("mmdebstrap", "ssh-keygen", packages=_APT_PACKAGES)
    root = folder / "root"
    excluded = (f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale"))
    packages = ",".join((*PACKAGES.split(), *system.packages))
    extract("unpacking Debian packages", root, system.arch, f"--include={packages}", *excluded)
    _finish(root, system)
    _keys(folder, root)
    for name, requirements in system.sites.items():
        _unpack_wheels(root / "opt" / name, system.platforms, requirements)
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == PYTHON:
        folders = [str(root / "usr/lib/python3.11"), str(root / "usr/lib/python3")]
        argv = [sys.executable, "-m", "compileall", "-q", "-j", "2"]
        argv += ["--invalidation-mode", "unchecked-hash", *folders, str(root / "opt")]
        # Some packages carry files that are not meant for this version of Python.
        subprocess.run(argv, capture_output=True, timeout=300, check=False)


def _mirror() -> list[str]:
    """Return the host's own mirror where it has one of the same release, else mmdebstrap's.

    Only the release itself, without its updates: on a mirror in mid-update a suite that changes
    every day is now and then unreadable, and these devices talk to nobody but this computer.
    """
    form = "$(RELEASE) $(COMPONENT) $(REPO_URI)"
    argv = ["apt-get", "indextargets", "--format", form, "Identifier: Packages"]
    for line in step("listing package sources", argv, timeout_s=30.0).splitlines():
        if line.startswith(f"{SUITE} main "):
            return [line.split(" ", 2)[2]]
    return []


def _finish(root: Path, system: System) -> None:
    master = root / "usr/share/base-passwd"
    passwd = (master / "passwd.master").read_text(encoding="utf-8")
    passwd += "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\npi:x:1000:1000::/home/pi:/bin/bash\n"
    group = (master / "group.master").read_text(encoding="utf-8") + "pi:x:1000:\n"
    files = {
        "etc/passwd": passwd,
        "etc/group": group,
        # A star, not an exclamation mark: that would lock the account for keys too.
        "etc/shadow": "".join(f"{name}:*:19000:0:99999:7:::\n" for name in ("root", "sshd", "pi")),
        "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
        "etc/hostname": f"{HOST_NAME}\n",
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {HOST_NAME}\n",
        "etc/ssh/sshd_config": _SSHD_CONFIG,
        "etc/ssh/session_environment": f"LANG=C.UTF-8 PYTHONPATH=/opt/{next(iter(system.sites))}\n",
        "usr/bin/vcgencmd": _VCGENCMD,
        "sbin/mini-init": _MINI_INIT,
    }
    for name in ("run", "proc", "sys", "dev", "etc/ssh", "home/pi/.ssh", "opt"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name).write_text(text, encoding="utf-8")
    (root / "etc/shadow").chmod(0o640)
    for name in ("usr/bin/vcgencmd", "sbin/mini-init"):
        (root / name).chmod(0o755)
    for link, target in (("bin/sh", "dash"), ("usr/bin/awk", "mawk"), *system.links):
        (root / link).unlink(missing_ok=True)
        (root / link).symlink_to(target)


def _keys(folder: Path, root: Path) -> None:
    for name in ("client", "host"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"]
        step("making keys", [*argv, str(folder / name)], timeout_s=30.0)
    there = root / "etc/ssh/ssh_host_ed25519_key"
    shutil.copyfile(folder / "host", there)
    there.chmod(0o600)
    home = root / "home/pi"
    keys = home / ".ssh/authorized_keys"
    shutil.copyfile(folder / "client.pub", keys)
    for path, mode in ((home, 0o755), (home / ".ssh", 0o700), (keys, 0o600)):
        path.chmod(mode)
        os.chown(path, 1000, 1000)


def _unpack_wheels(site: Path, platforms: tuple[str, ...], requirements: tuple[str, ...]) -> None:
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target"]
    argv += [str(site), "--python-version", PYTHON, "--implementation", "cp"]
    argv += ["--abi", f"cp{PYTHON.replace('.', '')}", "--only-binary=:all:"]
    argv += [word for platform in platforms for word in ("--platform", platform)]
    step(f"fetching {' '.join(requirements)}", [*argv, *requirements], timeout_s=300.0)
