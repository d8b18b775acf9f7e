"""A 64-bit Raspberry Pi 4 in userland: real aarch64 wheels on emulated instructions."""

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

RUNTIMES = "litert"
"""The site with what the product installs."""
OLD_RUNTIME = "tflite"
"""The site with tflite-runtime, for boards on which the newer package has no wheel."""

SYSTEM = System(
    arch="arm64",
    platforms=(
        "manylinux2014_aarch64",
        "manylinux_2_17_aarch64",
        "manylinux_2_27_aarch64",
        "manylinux_2_28_aarch64",
        "manylinux_2_34_aarch64",
    ),
    sites={
        RUNTIMES: ("ai-edge-litert>=2.3,<2.4", "onnxruntime>=1.31", "numpy>=2.4,<3"),
        OLD_RUNTIME: ("tflite-runtime==2.14.0", "numpy<2"),
    },
)

BOARD = userland.Board(
    name="aarch64",
    interpreter="aarch64",
    cpu="cortex-a72",
    cpuinfo=(
        "BogoMIPS\t: 108.00\n"
        "Features\t: fp asimd evtstrm crc32 cpuid\n"
        "CPU implementer\t: 0x41\n"
        "CPU architecture: 8\n"
        "CPU variant\t: 0x0\n"
        "CPU part\t: 0xd08\n"
        "CPU revision\t: 3\n"
    ),
    cpuinfo_end=(
        "Revision\t: c03114\n"
        "Serial\t\t: 10000000edce0064\n"
        "Model\t\t: Raspberry Pi 4 Model B Rev 1.4\n"
    ),
    model="Raspberry Pi 4 Model B Rev 1.4",
)


@contextmanager
def running(folder: Path, *, runtime: str = RUNTIMES) -> Iterator[userland.Userland]:
    """Run it for a `with` block; with an empty `runtime` it is a board that nobody prepared."""
    with userland.running(BOARD, SYSTEM, folder, runtime=runtime) as device:
        yield device


if __name__ == "__main__":
    sys.exit(serve_userland(running, BOARD.name))
