"""Chooses and downloads, on this computer, the wheels that fit a device's Python and CPU."""

from __future__ import annotations

import hashlib
import itertools
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError, DeviceError, RuntimeMissing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from device_agents.care.probe import Probe
    from device_agents.care.probe_parts import Python

_DOWNLOAD_TIMEOUT_S = 900.0
_OLDEST_GLIBC_MINOR = 5
_OLDEST_ARM_GLIBC_MINOR = 17  # manylinux has arm from 2.17 on

# Runtime -> what to try, in this order: pip's requirements, and whether pip adds what they need.
_REQUIREMENTS: dict[str, tuple[tuple[tuple[str, ...], bool], ...]] = {
    "tflite": (
        (("ai-edge-litert",), True),
        # Built against the old numpy, which it does not say itself.
        (("tflite-runtime", "numpy<2"), True),
        # numpy has no 32-bit wheels: the system's own must do.
        (("tflite-runtime",), False),
    ),
    "onnx": ((("onnxruntime",), True),),
}
INSTALLABLE = tuple(_REQUIREMENTS)


@dataclass(frozen=True, slots=True)
class Target:
    """What a wheel has to fit.

    Attributes:
        python: (3, 11).
        machine: as in wheel names, such as aarch64 or armv7l.
        bits: of that Python.
        glibc_minor: N of glibc 2.N.
    """

    python: tuple[int, int]
    machine: str
    bits: int
    glibc_minor: int

    def __str__(self) -> str:
        """Return the target in words."""
        version = ".".join(map(str, self.python))
        return f"Python {version} on {self.machine}, {self.bits}-bit, glibc 2.{self.glibc_minor}"

    def platforms(self) -> list[str]:
        """Return every platform tag that the device takes, the newest first.

        pip takes no range: a wheel for glibc 2.27 is found only when that very tag is asked for.
        """
        x86 = self.machine in ("x86_64", "i686")
        oldest = _OLDEST_GLIBC_MINOR if x86 else _OLDEST_ARM_GLIBC_MINOR
        minors = range(self.glibc_minor, oldest - 1, -1)
        tags = [f"manylinux_2_{minor}_{self.machine}" for minor in minors]
        if self.glibc_minor >= _OLDEST_ARM_GLIBC_MINOR:
            tags.append(f"manylinux2014_{self.machine}")
        # Indexes for one kind of board, such as piwheels, name their wheels so.
        return [*tags, f"linux_{self.machine}"]


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel on this computer."""

    path: Path
    sha256: str
    unpacked_bytes: int


@dataclass(frozen=True, slots=True)
class Choice:
    """The wheels of one setup; `needs_numpy`: they use the numpy of the device's system."""

    wheels: tuple[Wheel, ...]
    needs_numpy: bool

    def id_for(self, python: str) -> str:
        """Name the set: the same wheels for the same interpreter have the same name."""
        names = sorted(f"{wheel.path.name} {wheel.sha256}" for wheel in self.wheels)
        return hashlib.sha256("\n".join([python, *names]).encode()).hexdigest()[:16]


def target_of(probe: Probe, python: Python) -> Target:
    """Return what wheels must fit; raises RuntimeMissing where no wheel can fit."""
    libc = re.search(r"glibc 2\.(\d{1,3})", probe.text("libc") or "")
    if libc is None:
        raise RuntimeMissing(
            "the device's C library is not glibc, for which alone the runtimes have wheels; use a "
            'Debian or Ubuntu system, or `runtime = "benchmark_model"` with a binary of your own'
        )
    machine = probe.machine
    if python.bits == 32:
        machine = {"aarch64": "armv7l", "armv8l": "armv7l", "x86_64": "i686"}.get(machine, machine)
    return Target(python.version[:2], machine, python.bits, int(libc.group(1)))


def download(
    runtimes: Sequence[str], target: Target, folder: Path, *, wheels: Path | None = None
) -> Choice:
    """Put wheels for the runtimes and what they need into `folder`, an empty one.

    With `wheels`, only files of that folder are used. Raises ConfigError, DeviceError, and
    RuntimeMissing where there is none for the device.
    """
    if unknown := [name for name in runtimes if name not in _REQUIREMENTS]:
        raise ConfigError(
            f"no runtime {unknown[0]!r} can be installed; have {', '.join(INSTALLABLE)}"
        )
    tried, said = [], ""
    for ways in itertools.product(*(_REQUIREMENTS[name] for name in runtimes)):
        said = _fetched(ways, target, folder, wheels)
        if not said:
            chosen = tuple(_wheel(path) for path in sorted(folder.glob("*.whl")))
            return Choice(chosen, needs_numpy=not all(with_needs for _, with_needs in ways))
        tried.append(" and ".join(" with ".join(requirements) for requirements, _ in ways))
    _refuse_broken_pip(said)
    where = f"in {wheels}" if wheels else "in the package index"
    raise RuntimeMissing(
        f"there is no {' and '.join(runtimes)} wheel for {target}: looked for {'; '.join(tried)} "
        f"{where}; install the 64-bit system with Python 3.9 to 3.13 on the board, or set "
        '`runtime = "benchmark_model"`, which needs no Python'
    )


def _fetched(
    ways: Sequence[tuple[tuple[str, ...], bool]], target: Target, folder: Path, wheels: Path | None
) -> str:
    """Download what all the runtimes need, chosen together: one set has one numpy.

    Returns what pip said when it failed, else nothing.
    """
    for path in folder.glob("*.whl"):  # of the way that was tried before
        path.unlink()
    for with_needs in (True, False):
        together = [name for names, needs in ways if needs == with_needs for name in names]
        if together:
            done = _pip(together, target, folder, wheels, with_needs=with_needs)
            if done.returncode != 0:
                return done.stderr or "no reason given"
    return ""


def _pip(
    requirements: Sequence[str],
    target: Target,
    folder: Path,
    wheels: Path | None,
    *,
    with_needs: bool,
) -> subprocess.CompletedProcess[str]:
    major, minor = target.python
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    argv += ["--no-input", "--only-binary=:all:", "--dest", str(folder)]
    argv += ["--python-version", f"{major}.{minor}", "--implementation", "cp"]
    argv += ["--abi", f"cp{major}{minor}"]
    for platform in target.platforms():
        argv += ["--platform", platform]
    if not with_needs:
        argv.append("--no-deps")
    if wheels is not None:
        argv += ["--no-index", "--find-links", str(wheels)]
    try:
        return subprocess.run(
            [*argv, *requirements],
            capture_output=True,
            text=True,
            timeout=_DOWNLOAD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(
            f"pip on this computer did not download {requirements[0]} within "
            f"{_DOWNLOAD_TIMEOUT_S:g} s; give a folder of wheels with --wheels"
        ) from None


def _refuse_broken_pip(said: str) -> None:
    """Raise ConfigError when pip failed for another reason than a missing wheel."""
    if "No matching distribution" in said or "ResolutionImpossible" in said:
        return
    last = (said.strip().splitlines() or ["no reason given"])[-1]
    raise ConfigError(
        f"pip on this computer cannot download wheels: {last[:300]}; mend that, or give a folder "
        "of wheels with --wheels"
    )


def _wheel(path: Path) -> Wheel:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    with zipfile.ZipFile(path) as archive:
        size = sum(item.file_size for item in archive.infolist())
    return Wheel(path, sha256, size)
