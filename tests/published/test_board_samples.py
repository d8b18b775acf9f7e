"""Real /proc/cpuinfo files and vcgencmd outputs against what a person reads in them."""

from __future__ import annotations

import random
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest

from device_agents.care.boards import parse_cpuinfo, parse_revision, recognise
from device_agents.care.probe import Probe

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples"


class Read(NamedTuple):
    cores: int
    parts: tuple[str, ...]
    revision: str
    memory_mb: int | None
    profile: str


GENERIC = "generic_linux_ssh"
BIG_LITTLE = ("Kryo 2xx Silver", "Kryo 2xx Gold")
CPUINFO = {
    "galaxy-s8-us": Read(8, BIG_LITTLE, "", None, GENERIC),
    "galaxy-s9-us": Read(8, ("Kryo 3xx Silver", "Kryo 3xx Gold"), "", None, GENERIC),
    "nexus5x.armeabi": Read(6, ("Cortex-A53", "Cortex-A57"), "", None, GENERIC),
    "pixel-2-xl": Read(8, BIG_LITTLE, "", None, GENERIC),
    "pixel-xl": Read(4, ("Kryo",), "", None, GENERIC),
    "raspberrypi-zero": Read(1, ("ARM1176",), "900092", 512, GENERIC),
    "raspberrypi": Read(1, ("ARM1176",), "000e", None, GENERIC),
    "raspberrypi2": Read(4, ("Cortex-A7",), "1a01040", 1024, GENERIC),
    "raspberrypi3": Read(4, ("Cortex-A53",), "a02082", 1024, GENERIC),
    "raspberrypi3b_rev12_64bit": Read(4, ("Cortex-A53",), "a02082", 1024, GENERIC),
    "raspberrypi4b_rev15_64bit": Read(4, ("Cortex-A72",), "d03115", 8192, "raspberry_pi_4b"),
    "raspberrypi5": Read(4, ("Cortex-A76",), "d04170", 8192, "raspberry_pi_5"),
    "raspberrypi_zero2w_trimmed": Read(1, ("Cortex-A53",), "902120", 512, "raspberry_pi_zero_2_w"),
    "xiaomi-redmi-note-4": Read(8, ("Cortex-A53",), "", None, GENERIC),
}

# Section of the probe -> what is read in it; a file may hold several answers.
VCGENCMD = {
    "clock_pi4": {"measure_clock": "2000478464", "measure_temp": "43.8"},
    "clock_pi5_v3d_busy": {"measure_clock": "960016128"},
    "clock_pi5_v3d_idle": {"measure_clock": "0"},
    "error_bad_args": {},
    "error_no_vchi": {},
    "session_hot_capped": {
        "measure_temp": "80.6",
        "measure_clock": "1141118000",
        "get_throttled": "0x60002",
    },
    "session_undervolt_now": {"get_throttled": "0x50005", "measure_temp": "39.7"},
}


def sample(folder: str, name: str) -> str:
    path = SAMPLES / folder / f"{name}.txt"
    if not path.is_file():
        pytest.skip(f"{path} is not there: it holds the published samples")
    return path.read_text()


def probed(**sections: str) -> Probe:
    return Probe(MappingProxyType(sections))


def test_every_sample_is_covered() -> None:
    for folder, known in (("proc_cpuinfo", CPUINFO), ("vcgencmd", VCGENCMD)):
        if not (SAMPLES / folder).is_dir():
            pytest.skip(f"{SAMPLES / folder} is not there: it holds the published samples")
        assert {path.stem for path in (SAMPLES / folder).iterdir()} == set(known)


@pytest.mark.parametrize("name", CPUINFO)
def test_cpuinfo(name: str) -> None:
    text = sample("proc_cpuinfo", name)
    expected = CPUINFO[name]
    found = parse_cpuinfo(text)
    assert found.cores == expected.cores
    assert found.parts == expected.parts
    assert found.has_dot_product == (name == "raspberrypi5")
    assert found.revision == expected.revision
    code = parse_revision(found.revision)
    assert (code and code.memory_bytes // 2**20) == expected.memory_mb
    board = recognise(probed(cpuinfo=text, bits="64", machine="aarch64"))
    assert board.profile == expected.profile


@pytest.mark.parametrize("name", VCGENCMD)
def test_vcgencmd(name: str) -> None:
    answers = [line.strip() for line in sample("vcgencmd", name).splitlines()]
    for section in ("measure_temp", "measure_clock", "get_throttled"):
        read = [probed(**{section: line}).vcgencmd(section) for line in answers]
        expected = VCGENCMD[name].get(section)
        assert [value for value in read if value is not None] == ([expected] if expected else [])


@pytest.mark.parametrize("name", CPUINFO)
def test_mutated_cpuinfo_never_raises(name: str) -> None:
    text = sample("proc_cpuinfo", name)
    rng = random.Random(name)
    lines = text.splitlines()
    for place in range(len(lines)):
        parse_cpuinfo("\r\n".join(lines[:place]))
    for _ in range(200):
        place = rng.randrange(len(text))
        mutated = (
            text[:place] + rng.choice(":²\0\x85x9\n") * rng.randrange(1, 9) + text[place + 3 :]
        )
        found = recognise(probed(cpuinfo=mutated))
        assert found.profile
