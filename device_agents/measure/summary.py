"""Turns what the agent sent, process by process, into one `Measurement` with its verdict. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from device_agents.api import BenchProtocol, Measurement, SensorReading
from device_agents.measure import statistics
from device_agents.measure.answers import shapes_of
from device_agents.measure.modes import two_modes
from device_agents.measure.verdict import Evidence, judge

if TYPE_CHECKING:
    import random

    from device_agents.measure.cooling import Canary

# The answer of one `bench` call: blocks, warmups, load_ns and what ran.
Run = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which conditions it was measured; the fields are those of `Measurement`.

    Attributes:
        busy_ns: the agent's time for every call of the measurement.
        canaries: before and after; None where it was not run.
    """

    device: str
    device_digest: str
    agent_sha256: str
    model_sha256: str
    reference_sha256: str | None
    runtime: str
    threads: int
    cpus: tuple[int, ...]
    thermal_limit_celsius: float | None
    protocol: BenchProtocol
    started_at: str
    before: SensorReading
    after: SensorReading
    busy_ns: int
    canaries: tuple[Canary | None, Canary | None] = (None, None)
    nominal_clock_khz: int | None = None
    core_max_khz: int | None = None
    inputs_sha256: str = ""
    reference_inputs_sha256: str = ""


def summarise(runs: list[Run], conditions: Conditions, *, rng: random.Random) -> Measurement:
    """Return the measurement of at least one run."""
    by_process = [_samples(run, 0) for run in runs]
    references = [samples for run in runs if (samples := _samples(run, 1))]
    medians = [median(samples) for samples in by_process]
    middle = median(medians)
    low, high = statistics.at_least(
        middle, statistics.interval(by_process, rng), _step_share(runs, 0)
    )
    every = [ns for samples in by_process for ns in samples]
    ratio = statistics.ratio_with_interval([run["blocks"] for run in runs], rng)
    step_share = _deciding_step_share(runs)
    verdict, reasons = judge(_evidence(runs, conditions, rng), conditions.protocol)
    return Measurement(
        device=conditions.device,
        device_digest=conditions.device_digest,
        model_sha256=conditions.model_sha256,
        reference_sha256=conditions.reference_sha256,
        agent_sha256=conditions.agent_sha256,
        runtime=conditions.runtime,
        runtime_version=f"{runs[0]['package']} {runs[0]['version']}",
        threads=conditions.threads,
        cpus=conditions.cpus,
        protocol=conditions.protocol,
        started_at=conditions.started_at,
        samples_ns=tuple(every),
        reference_samples_ns=tuple(ns for samples in references for ns in samples),
        process_medians_ms=tuple(value / 1e6 for value in medians),
        median_ms=middle / 1e6,
        ci95_ms=(low / 1e6, high / 1e6),
        p90_ms=statistics.quantile(every, 0.9) / 1e6,
        ratio=ratio[0] if ratio else None,
        ratio_ci95=statistics.at_least(*ratio, step_share) if ratio else None,
        reference_median_ms=(
            median([median(samples) for samples in references]) / 1e6 if references else None
        ),
        partitions=runs[0]["partitions"],
        before=conditions.before,
        after=conditions.after,
        verdict=verdict,
        reasons=reasons,
        busy_ns=conditions.busy_ns,
        timed_ns=sum(
            sum(ns) * _invokes(run, subject) for run in runs for subject, ns in run["blocks"]
        ),
        warmup_ns=sum(item["ns"] for run in runs for item in run["warmups"]),
        load_ns=sum(run["load_ns"] for run in runs),
        peak_rss_bytes=max(run["peak_rss_bytes"] for run in runs),
        ops=runs[0]["ops"],
        delegate=runs[0]["delegate"],
        delegated_share=runs[0]["delegated_share"],
        canary_ms=(_canary_ms(conditions.canaries[0]), _canary_ms(conditions.canaries[1])),
        canary_idle_ms=min((c.idle_ms for c in conditions.canaries if c), default=None),
        settings=runs[0]["settings"],
        input_shapes=shapes_of(runs[0]["inputs"][0]),
        reference_input_shapes=shapes_of(runs[0]["inputs"][1]) if references else {},
        inputs_sha256=conditions.inputs_sha256,
        reference_inputs_sha256=conditions.reference_inputs_sha256,
        clock_step_ns=_step_ns(runs),
        invokes_per_sample=max(_invokes(run, 0) for run in runs),
    )


def precision(runs: list[Run], rng: random.Random) -> float:
    """Return the half-width of the deciding figure: the ratio if there is one, else the median.

    What the steps of the device's clock leave open is not in it: more processes do not help there.
    """
    ratio = statistics.ratio_with_interval([run["blocks"] for run in runs], rng)
    if ratio is not None:
        return statistics.half_width(*ratio)
    by_process = [_samples(run, 0) for run in runs]
    centre = median([median(samples) for samples in by_process])
    return statistics.half_width(centre, statistics.interval(by_process, rng))


def disagree(runs: list[Run], share: float) -> bool:
    """Tell whether the processes' own medians differ by more than this share.

    The ratio to the reference hides such a difference. With few processes it cannot be told
    whether the device has two speeds or one process was disturbed; so more are run.
    """
    medians = [median(_samples(run, 0)) for run in runs]
    return max(medians) > (1.0 + share) * min(medians)


def _evidence(runs: list[Run], conditions: Conditions, rng: random.Random) -> Evidence:
    by_process = [_samples(run, 0) for run in runs]
    step_share, suspect = _deciding_step_share(runs), conditions.protocol.suspect_spread
    # Steps of the clock are no modes of the device.
    least_gap = max(suspect, 2.5 * _step_share(runs, 0))
    return Evidence(
        before=conditions.before,
        after=conditions.after,
        spread=median([statistics.robust_spread(samples) for samples in by_process]),
        half_width=max(precision(runs, rng), step_share),
        fewest_samples=min(
            len(samples) * _invokes(run, 0) for run, samples in zip(runs, by_process, strict=True)
        ),
        unsettled=sum(map(_unsettled, runs)),
        processes=len(runs),
        thermal_limit_celsius=conditions.thermal_limit_celsius,
        process_cv=statistics.variation(
            statistics.process_figures([run["blocks"] for run in runs])
        ),
        canary=conditions.canaries[1],
        nominal_clock_khz=conditions.nominal_clock_khz,
        core_max_khz=conditions.core_max_khz,
        step_ms=_step_ns(runs) / 1e6,
        step_share=step_share,
        invoke_modes=two_modes([v for item in by_process for v in _levelled(item)], least_gap),
        process_modes=two_modes([median(samples) for samples in by_process], least_gap),
    )


def _levelled(samples: list[int]) -> list[float]:
    """Return a process's samples, divided by its quick ones: processes of any speed compare."""
    level = max(1.0, statistics.quantile(samples, 0.1))
    return [max(1, ns) / level for ns in samples]


def _invokes(run: Run, subject: int) -> int:
    """Return how many invokes a sample is the mean of."""
    counts: list[int] = run["invokes_per_sample"]
    return counts[subject]


def _step_ns(runs: list[Run]) -> int:
    return max(int(run["step_ns"]) for run in runs)


def _step_share(runs: list[Run], subject: int) -> float:
    """Return what one step of the clock is of a sample of this subject; 0 without samples."""
    return max(
        (
            run["step_ns"] / _invokes(run, subject) / median(samples)
            for run in runs
            if (samples := _samples(run, subject))
        ),
        default=0.0,
    )


def _deciding_step_share(runs: list[Run]) -> float:
    """Return the same of the deciding figure, which is the ratio where there is a reference.

    A round of blocks holds two samples of either model, and their errors are independent.
    """
    own = _step_share(runs, 0)
    if not any(_samples(run, 1) for run in runs):
        return own
    return math.hypot(own, _step_share(runs, 1)) / math.sqrt(2.0)


def _canary_ms(canary: Canary | None) -> float | None:
    return None if canary is None else canary.ms


def _samples(run: Run, subject: int) -> list[int]:
    return [ns for who, samples in run["blocks"] if who == subject for ns in samples]


def _unsettled(run: Run) -> bool:
    # None means too slow for the test within the limit: not known to be unsettled.
    return any(item["settled"] is False for item in run["warmups"])
