"""A 32-bit Raspberry Pi OS in userland: recognised as such, and most wheels do not exist for it."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scripts.lab import userland
from scripts.lab.debian import System
from scripts.lab.foreground import serve_userland

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUNTIME = "tflite"
_LIBRARIES = "usr/lib/arm-linux-gnueabihf"

SYSTEM = System(
    arch="armhf",
    platforms=("manylinux_2_34_armv7l",),
    sites={RUNTIME: ("tflite-runtime==2.14.0", "--no-deps")},
    # There is no wheel of NumPy for this processor.
    packages=("python3-numpy", "libblas3", "liblapack3"),
    links=(
        (f"{_LIBRARIES}/libblas.so.3", "blas/libblas.so.3"),
        (f"{_LIBRARIES}/liblapack.so.3", "lapack/liblapack.so.3"),
    ),
)

BOARD = userland.Board(
    name="armhf",
    interpreter="arm",
    cpu="cortex-a7",
    cpuinfo=(
        "model name\t: ARMv7 Processor rev 4 (v7l)\n"
        "BogoMIPS\t: 38.40\n"
        "Features\t: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae "
        "evtstrm crc32\n"
        "CPU implementer\t: 0x41\n"
        "CPU architecture: 7\n"
        "CPU variant\t: 0x0\n"
        "CPU part\t: 0xd03\n"
        "CPU revision\t: 4\n"
    ),
    cpuinfo_end=(
        "Hardware\t: BCM2835\n"
        "Revision\t: a020d3\n"
        "Serial\t\t: 00000000edce0032\n"
        "Model\t\t: Raspberry Pi 3 Model B Plus Rev 1.3\n"
    ),
    model="Raspberry Pi 3 Model B Plus Rev 1.3",
)


@contextmanager
def running(folder: Path, *, runtime: str = RUNTIME) -> Iterator[userland.Userland]:
    """Run it for a `with` block; with an empty `runtime` it is a board that nobody prepared."""
    with userland.running(BOARD, SYSTEM, folder, runtime=runtime) as device:
        yield device


if __name__ == "__main__":
    sys.exit(serve_userland(running, BOARD.name))
