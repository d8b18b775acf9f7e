"""benchmark_model: its command line, and when its answer counts.

A printed average proves nothing: the tool prints one after failed invokes too, and after a run that
`max_secs` cut short, and an old binary ignores flags that it does not know. So a run is accepted
only if every rule of `accept` holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from device_agents.tools.count_line import agree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from device_agents.tools.benchmark_proto import Result
    from device_agents.tools.benchmark_text import TextRun
    from device_agents.tools.count_line import Stat

Status = Literal["accepted", "truncated", "incomplete", "failed"]

RESULT_FLAG = "--result_file_path"

# The exit codes by which a shell says that it could not start a program at all.
_NOT_STARTED = {
    126: "the binary cannot be started there (no right to, a noexec folder, another processor)",
    127: "the binary or its loader is not there (a 64-bit program on a 32-bit system?)",
}


@dataclass(frozen=True, slots=True)
class Graph:
    """A model file on the device; `layers` are all its inputs with shapes, if it leaves any open.

    Without them the tool runs an open dimension as 1.
    """

    path: str
    layers: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settings:
    """What one process is to do; times in seconds as the tool takes them.

    Attributes:
        xnnpack: None leaves it to the binary.
        result_path: on the device; empty: text only.
    """

    graph: Graph
    threads: int
    runs: int
    min_s: float
    max_s: float
    warmup_s: float
    xnnpack: bool | None = None
    full_delegation: bool = False
    op_profiling: bool = False
    peak_memory: bool = False
    result_path: str = ""


def command_line(binary: str, settings: Settings) -> list[str]:
    """Return the arguments; every figure's conditions are given, none is left to a default."""
    flags = {
        "graph": settings.graph.path,
        "num_threads": settings.threads,
        "num_runs": settings.runs,
        "min_secs": f"{settings.min_s:g}",
        "max_secs": f"{settings.max_s:g}",
        "warmup_runs": 1,
        "warmup_min_secs": f"{settings.warmup_s:g}",
        "run_delay": -1,
    }
    layers = settings.graph.layers
    if layers:
        flags["input_layer"] = ",".join(layers)
        shapes = (",".join(map(str, shape)) for shape in layers.values())
        flags["input_layer_shape"] = ":".join(shapes)
    if settings.xnnpack is not None:
        flags["use_xnnpack"] = _word(on=settings.xnnpack)
    # Those that only new binaries know stand only where they are needed.
    for name in ("require_full_delegation", "enable_op_profiling", "report_peak_memory_footprint"):
        wanted = {
            "require_full_delegation": settings.full_delegation,
            "enable_op_profiling": settings.op_profiling,
            "report_peak_memory_footprint": settings.peak_memory,
        }[name]
        if wanted:
            flags[name] = _word(on=True)
    if settings.result_path:
        flags["result_file_path"] = settings.result_path
    return [binary, *(f"--{name}={value}" for name, value in flags.items())]


def _word(*, on: bool) -> str:
    return "true" if on else "false"


@dataclass(frozen=True, slots=True)
class Accepted:
    """Whether a run counts, and its figure.

    Attributes:
        latency_ms: None for every status but accepted and truncated: a failed run has no number.
        statistic: `median` or `average`; the tool tells a median since 2.18 only.
        reasons: why it does not count, or what to know of it.
    """

    status: Status
    latency_ms: float | None
    statistic: str
    runs: int | None
    reasons: tuple[str, ...]


def accept(
    run: TextRun,
    *,
    exit_code: int | None = None,
    asked: int | None = None,
    result: Result | None = None,
) -> Accepted:
    """Judge one run; `exit_code` is None where nobody knows it, as in a log from elsewhere."""
    stat = result.measured if result is not None else run.measured
    failed = _failed(run, exit_code)
    if failed:
        return Accepted("failed", None, "", None, failed)
    missing = _missing(run, asked, result)
    if missing:
        return Accepted("incomplete", None, "", stat.count if stat else None, missing)
    if stat is None or stat.avg_ms is None:
        return Accepted("incomplete", None, "", None, ("there is no measurement",))
    wanted = asked if asked is not None else run.asked
    latency_ms, statistic = figure(stat)
    if latency_ms <= 0:
        zero = "0 ms: the model is too quick for the tool's clock"
        return Accepted("incomplete", None, "", stat.count, (zero,))
    if wanted is not None and stat.count < wanted:
        reason = f"{stat.count} of {wanted} runs: cut short by its time limit (max_secs)"
        return Accepted("truncated", latency_ms, statistic, stat.count, (reason,))
    notes = () if statistic == "median" else ("average of a process, no median told",)
    return Accepted("accepted", latency_ms, statistic, stat.count, notes)


def figure(stat: Stat) -> tuple[float, str]:
    """Return the median where it was told, else the average, which one outlier moves."""
    if stat.median_ms is not None:
        return stat.median_ms, "median"
    if stat.avg_ms is None:
        raise ValueError("a phase without a run has no figure")
    return stat.avg_ms, "average"


def not_started(exit_code: int) -> str:
    """Return in words why a process ended badly without a word of its own."""
    if exit_code in _NOT_STARTED:
        return _NOT_STARTED[exit_code]
    if exit_code > 128:
        return f"it was ended by signal {exit_code - 128}"
    return f"its exit code is {exit_code}"


def _failed(run: TextRun, exit_code: int | None) -> tuple[str, ...]:
    return (*run.failures, *((not_started(exit_code),) if exit_code else ()))


def _missing(run: TextRun, asked: int | None, result: Result | None) -> tuple[str, ...]:
    """Return what keeps a run that did not fail from being proved."""
    stat = run.measured
    lacks = {
        "its warm-up": run.warmup is None,
        "its measurement (no second count= line)": stat is None,
        "its closing line of timings": not run.complete,
        "how many runs were asked for": asked is None and run.asked is None,
    }
    missing = [words for words, lacking in lacks.items() if lacking]
    printed = stat is not None and run.family != "litert"
    reasons = {
        f"cannot read the numbers in {run.unreadable[:1]}": bool(run.unreadable),
        "a dry run: nothing was timed": stat is not None and stat.count == 0,
        f"the log lacks {', '.join(missing)}": bool(missing),
        "its count= line and its closing line disagree": (
            printed and stat is not None and not agree(stat.avg_ms, run.inference_ms)
        ),
        f"the binary did {run.asked} runs where {asked} were asked for: it ignored a flag": (
            None not in (asked, run.asked) and run.asked != asked
        ),
        "the result file is of another run than the text": (
            result is not None and stat is not None and result.measured.count != stat.count
        ),
    }
    return tuple(words for words, wrong in reasons.items() if wrong)[:1]
