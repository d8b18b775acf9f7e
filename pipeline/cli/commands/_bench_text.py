"""What `edgewright bench` prints for people: one function per kind of result."""

from __future__ import annotations

from functools import singledispatch
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

from device_agents.agent.shapes import text as shape_text
from device_agents.api import Measurement
from device_agents.measure.passes import MemoryUse, OpProfile
from device_agents.measure.sustained import Sustained
from device_agents.plural import number_of
from device_agents.tools.passes import ToolMemory, ToolOps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from device_agents.measure.sustained import Interval

_TENTHS = 10
_SUSPECT = (
    "suspect: the figure is real and looser than its protocol asks; its interval says how loose. "
    "On a device that others use nearly every one is. It becomes valid when nothing else runs "
    "there (`edgewright device doctor {device}` shows what does); with --reference the ratio of "
    "two models in turns counts, which other work disturbs least"
)
_MEGA = 1e6


@singledispatch
def lines(found: Any) -> list[str]:
    """Return the lines of a result."""
    raise TypeError(f"bench has no text for {type(found).__name__}")


@lines.register
def _(found: Measurement) -> list[str]:
    samples, processes = len(found.samples_ns), len(found.process_medians_ms)
    middle = f"median: {found.median_ms:.4f} ms ({_interval(found.ci95_ms)}"
    # The user's benchmark_model keeps no samples: its percentile is over processes.
    told = number_of(processes, "process", "processes")
    if samples:
        told = f"{number_of(samples, 'sample')} in {told}"
    text = [f"{middle}, 90th percentile {found.p90_ms:.4f}; {told})"]
    if found.ratio is not None and found.ratio_ci95 is not None:
        ratio = f"ratio to the reference: {found.ratio:.4f} ({_interval(found.ratio_ci95)}"
        text.append(f"{ratio}; reference {found.reference_median_ms:.4f} ms)")
    text.append(f"{_where(found)}, protocol {found.protocol.name}")
    text += _inputs(found)
    before, after = found.before.governing_celsius, found.after.governing_celsius
    if before is None and after is None:
        text.append("temperature: no sensor")
    else:
        text.append(f"temperature: {_celsius(before)} before, {_celsius(after)} after")
    canaries = [ms for ms in found.canary_ms if ms is not None]
    if canaries and found.canary_idle_ms:
        factors = " and ".join(f"{ms / found.canary_idle_ms:.2f} x" for ms in canaries)
        text.append(f"canary: {factors} its best time, before and after")
    told = _delegation(found.delegate, found.delegated_share)
    if told:
        parts = "" if found.partitions is None else f", partitions: {found.partitions}"
        text.append(told + parts)
    if found.invokes_per_sample > 1:
        text.append(
            f"clock: it moves in steps of {found.clock_step_ns / 1e6:g} ms, so a sample is the "
            f"mean of {found.invokes_per_sample} invokes"
        )
    reasons = f" ({'; '.join(found.reasons)})" if found.reasons else ""
    text.append(f"verdict: {found.verdict}{reasons}")
    if found.verdict == "suspect":
        text.append(_SUSPECT.format(device=found.device))
    return text


@lines.register
def _(found: OpProfile) -> list[str]:
    rows = [
        (op.time_ms, op.share, op.kind, f"{op.name} ({op.where})" if op.where else op.name)
        for op in found.ops
    ]
    return [*_ops(rows, "the runtime's profiler on"), _where(found), *_inputs(found)]


@lines.register
def _(found: MemoryUse) -> list[str]:
    figures = {
        "model file": found.model_bytes,
        "process with the runtime": found.before_bytes,
        "with the model loaded": found.loaded_bytes,
        "at most while running": found.peak_bytes,
        "what the model adds at most": found.model_cost_bytes,
    }
    shown = _megabytes({k: size / _MEGA for k, size in figures.items()})
    return [*shown, _where(found), *_inputs(found)]


@lines.register
def _(found: ToolMemory) -> list[str]:
    figures = {
        "after loading": found.init_mb,
        "at the end": found.overall_mb,
        "highest seen": found.peak_mb,
    }
    return [*_megabytes(figures), *_inputs(found)]


@lines.register
def _(found: ToolOps) -> list[str]:
    rows = [(row.avg_ms, row.share, row.node_type, row.name) for row in found.ops]
    return [*_ops(rows, "mean of the tool's runs, its profiler on"), *_inputs(found)]


@lines.register
def _(found: Sustained) -> list[str]:
    """One line per tenth of the run, then what it comes to."""
    text = [_stretch(part) for part in _tenths(found.intervals)]
    text.append(
        f"first {found.first_ms:.4f} ms, last {found.last_ms:.4f} ms, ratio {found.ratio:.3f}, "
        f"slope {found.slope_per_minute:+.2%} per minute"
    )
    asked = f" of {found.asked_s:g} s: passed the trip value" if found.stopped else ""
    runs = number_of(sum(i.invokes for i in found.intervals), "run")
    text.append(f"ran {found.ran_s:.0f} s{asked}, {runs}")
    told = _delegation(found.delegate, found.delegated_share)
    return [*text, _where(found), *_inputs(found), *([told] if told else [])]


def _tenths(intervals: Sequence[Interval]) -> list[Sequence[Interval]]:
    count = min(_TENTHS, len(intervals))
    cuts = [len(intervals) * part // count for part in range(count + 1)]
    return [intervals[low:high] for low, high in pairwise(cuts)]


def _stretch(part: Sequence[Interval]) -> str:
    last = part[-1]
    middle = median([ns for item in part for ns in item.samples_ns]) / 1e6
    words = [f"{part[0].start_s:6.0f} to {last.start_s + last.took_s:6.0f} s: {middle:.4f} ms"]
    if last.soc_celsius is not None:
        words.append(_celsius(last.soc_celsius))
    if last.clock_khz is not None:
        words.append(f"{last.clock_khz / 1000:.0f} MHz")
    if last.throttled:
        words.append(f"throttle flags {last.throttled:#x}")
    return ", ".join(words)


def _ops(rows: Sequence[tuple[float, float, str, str]], how: str) -> list[str]:
    total = sum(ms for ms, *_ in rows)
    wide = max((len(kind) for _, _, kind, _ in rows), default=0)
    text = [f"{ms:10.4f} ms {share:6.1%}  {kind:<{wide}}  {name}" for ms, share, kind, name in rows]
    return [*text, f"{total:10.4f} ms in all: {how}"]


def _megabytes(figures: Mapping[str, float | None]) -> list[str]:
    return [f"{k}: {'not told' if mb is None else f'{mb:.1f} MB'}" for k, mb in figures.items()]


def _where(found: Measurement | OpProfile | MemoryUse | Sustained) -> str:
    cpus = getattr(found, "cpus", ())
    pinned = f", CPUs {','.join(map(str, cpus))}" if cpus else ""
    settings = getattr(found, "settings", {})
    changed = "".join(f", {name} {value}" for name, value in sorted(settings.items()))
    runtime = f"{found.runtime} ({found.runtime_version})"
    return f"conditions: {found.device}, {runtime}, threads {found.threads}{pinned}{changed}"


def _inputs(
    found: Measurement | OpProfile | MemoryUse | Sustained | ToolMemory | ToolOps,
) -> list[str]:
    """Return a line with the shapes that were run, and one with those of a reference."""
    shapes = {
        "inputs": found.input_shapes,
        "inputs of the reference": getattr(found, "reference_input_shapes", {}),
    }
    hashes = (getattr(found, f"{of}inputs_sha256", "") for of in ("", "reference_"))
    return [
        f"{who}: {', '.join(f'{name} {shape_text(shape)}' for name, shape in named.items())}"
        + ("; values of --data" if sha256 else "")
        for (who, named), sha256 in zip(shapes.items(), hashes, strict=True)
        if named
    ]


def _delegation(delegate: str, share: float | None) -> str:
    if share is None:
        return ""
    return f"delegated: {share:.0%} of the ops" + (f" to {delegate}" if delegate else "")


def _interval(ends: tuple[float, float]) -> str:
    return f"95 % interval {ends[0]:.4f} to {ends[1]:.4f}"


def _celsius(value: float | None) -> str:
    return "no sensor" if value is None else f"{value:.1f} °C"
