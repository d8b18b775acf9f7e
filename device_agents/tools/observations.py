"""Turns processes of a benchmark program into one `Measurement`: one process, one observation.

The tool keeps no samples, so an observation is its median, or its average where it tells none.
With a reference the processes run A B B A, and each such round gives one ratio. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from device_agents.api import BenchProtocol, Measurement, SensorReading
from device_agents.measure import statistics
from device_agents.measure.modes import two_modes
from device_agents.measure.verdict import Evidence, judge

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

    from device_agents.tools.benchmark_text import TextRun

_NS_PER_MS = 1e6
_US_PER_MS = 1e3
# The tool counts whole microseconds: a figure is not known better than half of one.
_RESOLUTION_MS = 0.0005
# Times that are all multiples of this or more are those of a clock that moves in such steps.
_COARSE_US = 1000
# The 5th and 95th percentile of a normal distribution lie this many deviations apart.
_P5_TO_P95 = 3.29


@dataclass(frozen=True, slots=True)
class Observation:
    """One process: `subject` 0 is the model, 1 the reference."""

    subject: int
    latency_ms: float
    statistic: str
    run: TextRun
    count: int
    avg_ms: float
    spread: float | None
    wall_ns: int


@dataclass(frozen=True, slots=True)
class ToolConditions:
    """Under which conditions it was measured; the fields are those of `Measurement`."""

    device: str
    device_digest: str
    model_sha256: str
    reference_sha256: str | None
    binary_sha256: str
    threads: int
    cpus: tuple[int, ...]
    thermal_limit_celsius: float | None
    protocol: BenchProtocol
    started_at: str
    before: SensorReading
    after: SensorReading
    settings: Mapping[str, str]
    delegated_share: float | None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    reference_input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def spread_of(run: TextRun) -> float | None:
    """Return the coefficient of variation within a process; None when it tells too little."""
    stat = run.measured
    if stat is None:
        return None
    if stat.p5_ms is not None and stat.p95_ms is not None and stat.median_ms:
        return (stat.p95_ms - stat.p5_ms) / _P5_TO_P95 / stat.median_ms
    return stat.std_ms / stat.avg_ms if stat.std_ms is not None and stat.avg_ms else None


def precision(found: Sequence[Observation], rng: random.Random) -> float:
    """Return the half-width of the deciding figure: the ratio if there is one, else the median."""
    shortest_ms = min(item.latency_ms for item in found)
    least = max(_RESOLUTION_MS, step_ms(found)) / shortest_ms
    ratio = statistics.ratio_with_interval(_rounds(found), rng)
    if ratio is not None:
        return max(least, statistics.half_width(*ratio))
    own = [[item.latency_ms] for item in found if item.subject == 0]
    centre = median([value for (value,) in own])
    return max(least, statistics.half_width(centre, statistics.interval(own, rng)))


def step_ms(found: Sequence[Observation]) -> float:
    """Return the steps in which the device's clock moves on, as far as the times show; else 0.

    The tool tells only a few times of single invokes in each process. If they all are multiples of
    one length, a millisecond or more, and not all alike, that length is the clock's step.
    """
    told = [
        round(ms * _US_PER_MS)
        for item in found
        if item.run.measured is not None
        for ms in (item.run.measured.first_ms, item.run.measured.min_ms, item.run.measured.max_ms)
        if ms is not None
    ]
    step_us = math.gcd(*told)
    return step_us / _US_PER_MS if step_us >= _COARSE_US and len(set(told)) > 1 else 0.0


def summarise(
    found: Sequence[Observation], conditions: ToolConditions, *, rng: random.Random
) -> Measurement:
    """Return the measurement of at least one process of the model."""
    own = [item for item in found if item.subject == 0]
    others = [item for item in found if item.subject == 1]
    figures = [item.latency_ms for item in own]
    rounds = _rounds(found)
    ratio = statistics.ratio_with_interval(rounds, rng)
    verdict, reasons = judge(_evidence(found, conditions, rng), conditions.protocol)
    if any(item.statistic == "average" for item in own):
        reasons = (*reasons, "average of a process, no median told")
    told = own[0].run
    return Measurement(
        device=conditions.device,
        device_digest=conditions.device_digest,
        model_sha256=conditions.model_sha256,
        reference_sha256=conditions.reference_sha256,
        agent_sha256="",
        runtime="benchmark_model",
        runtime_version=f"benchmark_model {conditions.binary_sha256[:12]}",
        threads=conditions.threads,
        cpus=conditions.cpus,
        protocol=conditions.protocol,
        started_at=conditions.started_at,
        samples_ns=(),
        reference_samples_ns=(),
        process_medians_ms=tuple(figures),
        median_ms=median(figures),
        ci95_ms=statistics.at_least(
            median(figures),
            statistics.interval([[value] for value in figures], rng),
            step_ms(found) / median(figures),
        ),
        p90_ms=statistics.quantile(figures, 0.9),
        ratio=ratio[0] if ratio else None,
        ratio_ci95=ratio[1] if ratio else None,
        reference_median_ms=median([item.latency_ms for item in others]) if others else None,
        partitions=told.delegation.partitions,
        before=conditions.before,
        after=conditions.after,
        verdict=verdict,
        reasons=reasons,
        busy_ns=sum(item.wall_ns for item in found),
        timed_ns=round(sum(item.count * item.avg_ms for item in found) * _NS_PER_MS),
        warmup_ns=round(sum(map(_warmup_ms, found)) * _NS_PER_MS),
        load_ns=round(sum(item.run.init_ms or 0.0 for item in found) * _NS_PER_MS),
        peak_rss_bytes=0,
        delegate=told.delegation.delegate,
        delegated_share=conditions.delegated_share,
        binary_sha256=conditions.binary_sha256,
        settings=conditions.settings,
        input_shapes=conditions.input_shapes,
        reference_input_shapes=conditions.reference_input_shapes,
    )


def _rounds(found: Sequence[Observation]) -> list[list[statistics.Block]]:
    """Return complete rounds A B B A (or B A A B), or a round per process without a reference."""
    blocks: list[statistics.Block] = [
        (item.subject, [round(item.latency_ms * _NS_PER_MS)]) for item in found
    ]
    if all(item.subject == 0 for item in found):
        return [[block] for block in blocks]
    return [blocks[at : at + 4] for at in range(0, len(blocks) - 3, 4)]


def _evidence(
    found: Sequence[Observation], conditions: ToolConditions, rng: random.Random
) -> Evidence:
    own = [item for item in found if item.subject == 0]
    spreads = [item.spread for item in own if item.spread is not None]
    return Evidence(
        before=conditions.before,
        after=conditions.after,
        spread=median(spreads) if spreads else 0.0,
        half_width=precision(found, rng),
        fewest_samples=min(item.count for item in own),
        # The tool warms up for a fixed time and does not tell the single invokes of it.
        unsettled=0,
        processes=len(own),
        thermal_limit_celsius=conditions.thermal_limit_celsius,
        process_cv=statistics.variation(statistics.process_figures(_rounds(found))),
        step_ms=step_ms(found),
        step_share=step_ms(found) / min(item.latency_ms for item in found),
        # Of the invokes within a process the tool tells too little to see two modes.
        process_modes=two_modes(
            [item.latency_ms for item in own], conditions.protocol.suspect_spread
        ),
        # No nominal clock: a shell reads the clock after the program ended, so it is the idle one.
    )


def _warmup_ms(item: Observation) -> float:
    warmup = item.run.warmup
    total = warmup.count * (warmup.avg_ms or 0.0) if warmup else 0.0
    return total if math.isfinite(total) else 0.0
