"""Which binary fits which device, and what a command line says."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from device_agents.errors import ConfigError
from device_agents.tools.benchmark_model import Graph, Settings, command_line
from device_agents.tools.pushed import check_processor, find_binary
from profiles.schema import DeviceProfile

if TYPE_CHECKING:
    from pathlib import Path


def elf(path: Path, machine: int, bits: int) -> Path:
    head = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1, 1]) + bytes(9)
    path.write_bytes(head + struct.pack("<HH", 3, machine) + bytes(40))
    return path


@pytest.mark.parametrize(
    ("elf_machine", "elf_bits", "machine", "userland", "fits"),
    [
        (183, 64, "aarch64", 64, True),
        (40, 32, "aarch64", 32, True),
        (40, 32, "armv7l", 32, True),
        (62, 64, "x86_64", 64, True),
        (183, 64, "", None, True),
        (183, 64, "aarch64", 32, False),
        (183, 64, "armv7l", 32, False),
        (62, 64, "aarch64", 64, False),
        (40, 32, "x86_64", 64, False),
        (8, 32, "aarch64", 64, False),
    ],
)
def test_processor_of_the_binary(
    tmp_path: Path,
    elf_machine: int,
    elf_bits: int,
    machine: str,
    userland: int | None,
    *,
    fits: bool,
) -> None:
    path = elf(tmp_path / "bm", elf_machine, elf_bits)
    if fits:
        check_processor(path, machine=machine, userland_bits=userland, name="pi")
        return
    with pytest.raises(ConfigError, match="is built for") as caught:
        check_processor(path, machine=machine, userland_bits=userland, name="pi")
    assert machine in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_program(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3")
    with pytest.raises(ConfigError, match="no program for Linux or Android"):
        check_processor(path, machine="aarch64", userland_bits=64, name="pi")


def test_missing_binary_names_the_key(tmp_path: Path) -> None:
    profile = DeviceProfile(name="phone", runtime="benchmark_model")
    with pytest.raises(ConfigError, match="set `benchmark_binary` in its profile"):
        find_binary(profile)
    gone = DeviceProfile(name="phone", benchmark_binary=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"there is no file .* correct `benchmark_binary`"):
        find_binary(gone)


def test_command_line_leaves_nothing_to_defaults() -> None:
    line = command_line(
        "/d/bm", Settings(Graph("/d/m"), threads=2, runs=40, min_s=1, max_s=150, warmup_s=0.25)
    )
    assert line == [
        "/d/bm",
        *("--graph=/d/m", "--num_threads=2", "--num_runs=40", "--min_secs=1", "--max_secs=150"),
        *("--warmup_runs=1", "--warmup_min_secs=0.25", "--run_delay=-1"),
    ]
    more = command_line(
        "bm",
        Settings(
            *(Graph("m", {"ids": (1, 8), "image:0": (1, 4, 4, 3)}), 1, 5, 0.5, 9.0, 0.0),
            xnnpack=False,
            full_delegation=True,
            op_profiling=True,
            result_path="/r",
        ),
    )
    assert more[9:] == [
        *("--input_layer=ids,image:0", "--input_layer_shape=1,8:1,4,4,3"),
        *("--use_xnnpack=false", "--require_full_delegation=true", "--enable_op_profiling=true"),
        "--result_file_path=/r",
    ]
