"""Parsers of the tables in what `probe` read: interpreters, clocks, processes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from device_agents.agent.readings import Core, Zone, integer

_BUSY_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter on the device: as it is called, (3, 11, 2), its bits, its own path."""

    command: str
    version: tuple[int, int, int]
    bits: int
    path: str


@dataclass(frozen=True, slots=True)
class Busy:
    """A process that used the CPU during the second in which the probe watched.

    Attributes:
        cpu_share: of one core.
        owner: the user that it runs as; empty: not told.
        own: whether that is the user who logged in; None: not told.
    """

    pid: int
    name: str
    cpu_share: float
    owner: str = ""
    own: bool | None = None


def parse_pythons(lines: list[str]) -> list[Python]:
    """Read lines of command, version, bits and path, separated by tabs."""
    found = []
    for line in lines:
        words = line.split("\t")
        version = re.match(r"(\d{1,3})\.(\d{1,3})\.(\d{1,3})", words[1] if words[1:] else "")
        if len(words) == 4 and version and words[2] in ("32", "64"):
            major, minor, micro = (int(part) for part in version.groups())
            found.append(Python(words[0], (major, minor, micro), int(words[2]), words[3]))
    return found


def parse_cores(lines: list[str]) -> list[Core]:
    """Read lines of clock, highest, lowest, governor and number of a CPU."""
    found = []
    for line in lines:
        words = line.split()
        if len(words) == 5 and (number := integer(words[4])) is not None:
            now, most, least = (integer(word) for word in words[:3])
            governor = None if words[3] == "-" else words[3]
            found.append(Core(number, now, most, least, governor))
    return sorted(found, key=lambda core: core.number)


def parse_zones(lines: list[str]) -> list[Zone]:
    """Read lines of temperature and type; mode and number of the zone follow behind tabs."""
    found = []
    for position, line in enumerate(lines):
        told, *more = line.split("\t")
        temp, _, kind = told.strip().partition(" ")
        number = integer(more[1].strip()) if more[1:] else None
        mode = more[0].strip() if more else ""
        order = position if number is None else number
        found.append((order, Zone(kind.strip(), temp, mode)))
    return [zone for _, zone in sorted(found, key=lambda item: item[0])]


def parse_busy(before: list[str], after: list[str], cores: int) -> list[Busy]:
    """Compare two readings of /proc/stat and /proc/*/stat; the busiest come first."""
    ticks_before, total_before = _ticks(before)
    ticks_after, total_after = _ticks(after)
    elapsed = (total_after - total_before) / cores
    if elapsed <= 0:
        return []
    shares = [
        Busy(pid, name, (ticks - ticks_before[pid][1]) / elapsed)
        for pid, (name, ticks) in ticks_after.items()
        if pid in ticks_before
    ]
    found = [busy for busy in shares if busy.cpu_share > _BUSY_SHARE]
    return sorted(found, key=lambda busy: -busy.cpu_share)


def parse_owners(lines: list[str]) -> dict[int, str]:
    """Read `ls -ld /proc/<pid>`: the third word is the owner, the last the folder."""
    found = {}
    for line in lines:
        words = line.split()
        number = integer(words[-1].rpartition("/")[2]) if len(words) > 4 else None
        if number is not None:
            found[number] = words[2]
    return found


def _ticks(lines: list[str]) -> tuple[dict[int, tuple[str, int]], int]:
    """Return pid -> (name, CPU ticks), and the ticks of the whole machine, idle ones included."""
    found: dict[int, tuple[str, int]] = {}
    total = 0
    for line in lines:
        if line.startswith("cpu "):
            total = sum(int(word) for word in line.split()[1:9] if word.isdecimal())
        # The name stands in parentheses and may hold blanks and parentheses itself.
        process = re.match(r"(\d{1,9}) \((.{0,64})\) \S (.*)", line)
        words = process.group(3).split() if process else []
        if process and len(words) > 11 and words[10].isdecimal() and words[11].isdecimal():
            found[int(process.group(1))] = (process.group(2), int(words[10]) + int(words[11]))
    return found, total
