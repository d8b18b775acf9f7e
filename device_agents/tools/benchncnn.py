"""Reads benchncnn's output: settings, then a line of min, max and avg in ms per network."""

from __future__ import annotations

import re
from dataclasses import dataclass

from device_agents.tools.log_lines import NUMBER, streams

_SETTING = re.compile(r"(loop_count|num_threads|powersave|gpu_device|cooling_down) = (-?\d+)")
_ROW = re.compile(rf"(\S+) +min = +({NUMBER}) +max = +({NUMBER}) +avg = +({NUMBER})")
_TROUBLE = re.compile(r"\bfailed\b|network graph not ready|layer \S{1,200} not exists")


@dataclass(frozen=True, slots=True)
class NcnnRow:
    """One network; `problem` says why its figure is none, and then the times are None."""

    name: str
    min_ms: float | None
    max_ms: float | None
    avg_ms: float | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class NcnnRun:
    """One start of the program: its settings (None: not in the log) and its networks."""

    loops: int | None
    threads: int | None
    powersave: int | None
    gpu_device: int | None
    cooling_down: int | None
    rows: tuple[NcnnRow, ...]


def parse_log(text: str) -> tuple[NcnnRun, ...]:
    """Return the runs in order. The program goes on after a network that failed to load."""
    runs: list[NcnnRun] = []
    for lines in streams(text):
        settings: dict[str, int] = {}
        rows: list[NcnnRow] = []
        trouble = ""
        for line in lines:
            if found := _SETTING.fullmatch(line):
                if found[1] == "loop_count":
                    _close(runs, settings, rows)
                    settings, rows, trouble = {}, [], ""
                settings[found[1]] = int(found[2])
            elif re.match(r"\S+ +min = ", line):
                rows.append(_row(line, trouble))
                trouble = ""
            elif settings and _TROUBLE.search(line):
                trouble = trouble or line
        _close(runs, settings, rows)
    return tuple(runs)


def _row(line: str, trouble: str) -> NcnnRow:
    name = line.split(maxsplit=1)[0]
    found = _ROW.fullmatch(line)
    if trouble or not found:
        return NcnnRow(name, None, None, None, trouble or f"unreadable: {line}")
    low, high, mean = (float(found[group]) for group in (2, 3, 4))
    if not 0 < low <= mean <= high:
        return NcnnRow(name, None, None, None, f"min, avg and max are out of order: {line}")
    return NcnnRow(name, low, high, mean)


def _close(runs: list[NcnnRun], settings: dict[str, int], rows: list[NcnnRow]) -> None:
    if rows:
        keys = ("loop_count", "num_threads", "powersave", "gpu_device", "cooling_down")
        loops, threads, powersave, gpu, cooling = (settings.get(key) for key in keys)
        runs.append(NcnnRun(loops, threads, powersave, gpu, cooling, tuple(rows)))
