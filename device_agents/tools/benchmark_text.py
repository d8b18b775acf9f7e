"""Reads the text that benchmark_model prints, one `TextRun` per run.

Three families: `tf1` (2018 and 2019), `tf2` (since), `litert` (the CompiledModel tools, in ms). The
first `count=` line after a `Running benchmark` line is the warm-up, the second the measurement; the
profile section has `count=` lines of its own, which are not taken. Everything is anchored: a line
that begins as expected and does not go on so is kept in `unreadable`, and spoils its run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from device_agents.tools import delegation
from device_agents.tools.count_line import US_PER_MS, Stat, agree, parse_count
from device_agents.tools.failures import failure_of
from device_agents.tools.log_lines import NUMBER, streams

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Family = Literal["tf1", "tf2", "litert", ""]

_RUNNING = re.compile(r"Running benchmark for at least (\d+) iterations and at least ")
_TIMINGS = re.compile(r"(Average inference|Inference) timings in us: (.*)")
_TIMING = re.compile(rf"(Init|First inference|Warmup|Inference|no stats)(?: \(avg\))?: ({NUMBER})")
_MEMORY = re.compile(
    rf"(?:Peak memory footprint|Memory footprint delta from the start of the tool) \(MB\): "
    rf"init=({NUMBER}) overall=({NUMBER})"
)
_PEAK = re.compile(rf"Overall peak memory footprint \(MB\) via periodic monitoring: ({NUMBER})")
_PARAMETER = re.compile(r"(Min num runs|Num threads|Graph|Model): +(?:\[(.*)\]|(\S.*))")
_LOADED = re.compile(r"Loaded model (\S.*)")
_RESULTS = re.compile(r"=* ?BENCHMARK RESULTS ?=*")
_RESULT = re.compile(
    rf"(Model initialization|Warmup|Inference) ?(?:\((first|avg|min|max|std|median|p5|p95)\))?: +"
    rf"({NUMBER})(?: ms)?(?: \((\d+) runs\))?"
)
_ASKED = re.compile(r"(Warmup|Benchmark) runs: +(\d+)")
_FOOTPRINT = re.compile(rf"(Init|Overall) footprint: +({NUMBER}) MB")
# What only a line of a run holds. Behind something else it is wrapped in what is not known, and
# then nobody can tell which lines are missing. The profiler's own count is no such line.
_BURIED = re.compile(
    r"(?!Timings \(microseconds\): ).+(?:Running benchmark for at least \d|"
    r"\bcount=\d+ (?:first|curr)=|nference timings in us: )"
)
_BEGINNINGS = ("Running TensorFlow Lite benchmark with args", "Log parameter values verbosely")


@dataclass(frozen=True, slots=True)
class TextRun:
    """What one run printed.

    Attributes:
        asked: timed invokes asked for, as the log tells.
        started: the log has the run's beginning, not only a later part.
        complete: the closing line of timings (tf1, tf2) or the block of results (litert) is there.
        failures: what went wrong in words, the one that says most first.
        unreadable: lines that should hold numbers and cannot be read.
    """

    family: Family
    graph: str
    threads: int | None
    asked: int | None
    started: bool
    complete: bool
    init_ms: float | None
    first_ms: float | None
    warmup_ms: float | None
    inference_ms: float | None
    warmup: Stat | None
    measured: Stat | None
    memory_init_mb: float | None
    memory_overall_mb: float | None
    memory_peak_mb: float | None
    delegation: delegation.Delegation
    failures: tuple[str, ...]
    unreadable: tuple[str, ...]


def parse_log(text: str) -> tuple[TextRun, ...]:
    """Return the runs of a log in order; text that is of no run gives none."""
    runs = [_read(lines) for stream in streams(text) for lines in _split(stream)]
    return tuple(run for run in runs if run is not None)


def _split(lines: Sequence[str]) -> Iterator[list[str]]:
    """Cut a log into runs: at each start, and where a run says something for the second time."""
    run: list[str] = []
    seen: set[str] = set()
    for line in lines:
        mark = _mark(line)
        if mark and (mark == "start" or (mark in seen and mark != "phase")) and run:
            if not (mark == "parameters" and seen <= {"start"}):
                yield run
                run, seen = [], set()
        elif mark == "phase" and {"phase", "second phase"} <= seen:
            yield run
            run, seen = [], set()
        if mark == "phase" and "phase" in seen:
            mark = "second phase"
        if mark:
            seen.add(mark)
        run.append(line)
    if run:
        yield run


def _mark(line: str) -> str:
    if line.endswith("STARTING!") or line.startswith(_BEGINNINGS[0]):
        return "start"
    if line.startswith(_BEGINNINGS[1]):
        return "parameters"
    if line.startswith(("Graph: [", "Loaded model ", "Benchmark runs: ")):
        return line[:5]
    marks = {"phase": _RUNNING.match, "timings": _TIMINGS.match, "results": _RESULTS.fullmatch}
    return next((mark for mark, form in marks.items() if form(line)), "")


def _read(lines: Sequence[str]) -> TextRun | None:
    reader = _Reader()
    for line in lines:
        reader.feed(line)
    return reader.result()


@dataclass(slots=True)
class _Reader:
    """Collects the lines of one run."""

    family: Family = ""
    texts: dict[str, str] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    asked_apart: int | None = None
    phases: list[Stat | None] = field(default_factory=list)
    loose: list[Stat] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)
    results: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    failures: list[tuple[int, str]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    delegates: delegation.Reader = field(default_factory=delegation.Reader)
    started: bool = False
    in_results: bool = False

    def feed(self, line: str) -> None:
        """Take one bare line."""
        self.delegates.feed(line)
        failure = failure_of(line)
        if failure:
            self.failures.append(failure)
        if _mark(line) == "start":
            self.started = True
        elif found := _RUNNING.match(line):
            self.asked.append(int(found[1]))
            if "terminate if exceeding" in line:
                self.family = self.family or "tf2"
        elif line.startswith("count="):
            self._count(line)
        elif found := _TIMINGS.match(line):
            self._timings(line, found)
        elif _RESULTS.fullmatch(line):
            self.family, self.in_results = "litert", True
        elif self.in_results and line.startswith(("Model init", "Warmup", "Inference")):
            self._result(line)
        else:
            self._rest(line)

    def _count(self, line: str) -> None:
        stat = parse_count(line)
        if stat is None:
            self.unreadable.append(line)
        if len(self.phases) < len(self.asked):
            self.phases.append(stat)
        elif stat is not None:
            self.loose.append(stat)

    def _timings(self, line: str, found: re.Match[str]) -> None:
        self.family = "tf1" if found[1].startswith("Average") else "tf2"
        for part in found[2].split(", "):
            pair = _TIMING.fullmatch(part)
            if not pair:
                self.unreadable.append(line)
                self.times.clear()
                return
            name = "Inference" if pair[1] == "no stats" else pair[1]
            self.times[name] = round(float(pair[2]) / US_PER_MS, 6)

    def _result(self, line: str) -> None:
        found = _RESULT.fullmatch(line)
        if not found:
            self.unreadable.append(line)
            return
        name = f"{found[1]} {found[2] or ''}".strip()
        self.results[name] = float(found[3])
        if found[4]:
            self.counts[found[1]] = int(found[4])

    def _rest(self, line: str) -> None:
        if found := _MEMORY.fullmatch(line):
            self.memory.update(init=float(found[1]), overall=float(found[2]))
        elif found := _PEAK.fullmatch(line):
            self.memory["peak"] = float(found[1])
        elif found := _FOOTPRINT.fullmatch(line):
            self.memory[found[1].lower()] = float(found[2])
        elif found := _ASKED.fullmatch(line):
            if found[1] == "Benchmark":
                self.asked_apart = int(found[2])
        elif found := _PARAMETER.fullmatch(line):
            self.texts.setdefault(found[1], found[2] if found[2] is not None else found[3])
        elif found := _LOADED.fullmatch(line):
            self.texts.setdefault("Graph", found[1])
        elif _BURIED.match(line):
            self.unreadable.append(line)

    def result(self) -> TextRun | None:
        """Return the run, or None if nothing of one was there."""
        found = self.delegates.result()
        if not (
            self.started
            or self.texts
            or self.asked
            or self.times
            or self.results
            or self.loose
            or self.failures
            or self.unreadable
            or found != delegation.Delegation()
        ):
            return None
        warmup, measured = self._placed()
        threads = self.texts.get("Num threads", "")
        runs = self.texts.get("Min num runs", "")
        asked = self.asked[1] if len(self.asked) > 1 else self.asked_apart
        if asked is None and runs.isdecimal():
            asked = int(runs)
        litert = self.family == "litert"
        times = self.times
        return TextRun(
            family=self.family,
            graph=self.texts.get("Graph") or self.texts.get("Model", ""),
            threads=int(threads) if threads.isdecimal() else None,
            asked=asked,
            started=self.started or bool(self.asked),
            complete="Inference avg" in self.results if litert else "Inference" in times,
            init_ms=self.results.get("Model initialization") if litert else times.get("Init"),
            first_ms=self.results.get("Warmup first") if litert else times.get("First inference"),
            warmup_ms=self.results.get("Warmup avg") if litert else times.get("Warmup"),
            inference_ms=self.results.get("Inference avg") if litert else times.get("Inference"),
            warmup=warmup,
            measured=measured,
            memory_init_mb=self.memory.get("init"),
            memory_overall_mb=self.memory.get("overall"),
            memory_peak_mb=self.memory.get("peak"),
            delegation=found,
            failures=tuple(dict.fromkeys(words for _, words in sorted(self.failures))),
            unreadable=tuple(self.unreadable),
        )

    def _placed(self) -> tuple[Stat | None, Stat | None]:
        """Return warm-up and measurement."""
        if self.family == "litert":
            return self._of_results("Warmup"), self._of_results("Inference")
        phases = [*self.phases, None, None]
        warmup, measured = phases[0], phases[1]
        # An excerpt may lack the headings: then the closing line tells which phase it was.
        for stat in self.loose:
            if measured is None and agree(stat.avg_ms, self.times.get("Inference")):
                measured = stat
            elif warmup is None and agree(stat.avg_ms, self.times.get("Warmup")):
                warmup = stat
        return warmup, measured

    def _of_results(self, phase: str) -> Stat | None:
        if phase not in self.counts:
            return None
        names = ("first", "min", "max", "avg", "std", "p5", "median", "p95")
        values = {f"{name}_ms": self.results.get(f"{phase} {name}") for name in names}
        return Stat(self.counts[phase], **values)
