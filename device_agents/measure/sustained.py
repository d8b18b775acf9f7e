"""A model at full rate for minutes or hours: what heat leaves of the figure of the first minute.

A burst figure and a sustained one are two metrics: phones that lead in the first minute fall behind
in the thirtieth. Throttling makes a burst figure invalid; here it is what is looked for.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from device_agents.api import SensorReading
from device_agents.measure import measuring, statistics
from device_agents.measure.answers import check, refuse_timeless, shapes_of
from device_agents.measure.delegation import refuse_undelegated
from device_agents.measure.fed import digest, push_inputs
from device_agents.pushing import push_model
from device_agents.rejoin import call_rejoining
from device_agents.values import BenchProtocol, as_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from device_agents.api import DeviceDescription, Shapes, TensorValue
    from device_agents.session import Session

LONGEST_S = 6 * 3600.0
_INTERVALS = 60
_SHORTEST_INTERVAL_S = 1.0
_LONGEST_INTERVAL_S = 60.0
_LAST_S = 60.0
# Loading the model on a slow card, and the last invoke of a slow one.
_AROUND_S = 120.0
_REJOIN_S = 300.0


@dataclass(frozen=True, slots=True)
class Interval:
    """One stretch of the run; the state is read at its end.

    Attributes:
        start_s: since the first invoke.
        invokes: how many ran; `samples_ns` holds at most a few hundred of them, evenly spread.
    """

    start_s: float
    took_s: float
    invokes: int
    median_ms: float
    samples_ns: tuple[int, ...]
    soc_celsius: float | None = None
    clock_khz: int | None = None
    throttled: int | None = None


@dataclass(frozen=True, slots=True)
class Sustained:
    """A sustained run with its conditions; converts to JSON and back without loss.

    Attributes:
        asked_s: how long it was to run.
        ran_s: how long it ran.
        stopped: whether the device passed `trip_celsius`, which ended the run.
        first_ms: median of the first interval.
        last_ms: median of the last minute; of a run shorter than four minutes, of its last quarter.
        ratio: last_ms / first_ms.
        slope_per_minute: drift of the latency per minute as a share of `first_ms`, the median
            over all pairs of intervals (Theil and Sen): one step down of the clock is in the ratio
            and not in here.
        inputs_sha256: as of `Measurement`.
    """

    device: str
    device_digest: str
    model_sha256: str
    agent_sha256: str
    runtime: str
    runtime_version: str
    threads: int
    cpus: tuple[int, ...]
    started_at: str
    asked_s: float
    ran_s: float
    stopped: bool
    trip_celsius: float | None
    first_ms: float
    last_ms: float
    ratio: float
    slope_per_minute: float
    intervals: tuple[Interval, ...]
    before: SensorReading
    after: SensorReading
    delegate: str = ""
    delegated_share: float | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    inputs_sha256: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Sustained:
        """Read what `to_json` gave, also after a trip through JSON text."""
        values = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        values["cpus"] = tuple(values["cpus"])
        values["input_shapes"] = as_shapes(values.get("input_shapes", {}))
        values["intervals"] = tuple(
            Interval(**{**item, "samples_ns": tuple(item["samples_ns"])})
            for item in values["intervals"]
        )
        values["before"] = SensorReading.from_json(values["before"])
        values["after"] = SensorReading.from_json(values["after"])
        return cls(**values)


def interval_s(duration_s: float) -> float:
    """Return the length of an interval: a sixtieth, but 1 s at least and a minute at most."""
    return min(max(duration_s / _INTERVALS, _SHORTEST_INTERVAL_S), _LONGEST_INTERVAL_S)


def run(  # noqa: PLR0913  # what, on what, for how long and when
    session: Session,
    description: DeviceDescription,
    path: Path,
    duration_s: float,
    *,
    runtime: str,
    threads: int,
    shapes: Shapes,
    inputs: Sequence[TensorValue] = (),
    started_at: str,
) -> Sustained:
    """Run the model for `duration_s`, from a cool start.

    Raises AgentError, RuntimeMissing, TransferFailed, LinkLost, DeadlineExceeded.
    """
    pushed = push_model(session, path, rejoin_s=_REJOIN_S)
    fed = push_inputs(session, inputs, rejoin_s=_REJOIN_S)
    measuring.prepare(session, runtime, rejoin_s=_REJOIN_S)
    # Its start decides over the ratio, so it waits for a cool device as long as `thorough` does.
    gate = replace(BenchProtocol.thorough(), canary_limit=None)
    ready = measuring.wait_until_ready(session, description, gate)
    deadline_s = duration_s + _AROUND_S
    answer = call_rejoining(
        session,
        "sustain",
        timeout_s=deadline_s + measuring.GRACE_S,
        rejoin_s=_REJOIN_S,
        **pushed.call,
        **measuring.how_to_run(description, runtime, threads, shapes),
        inputs=fed,
        duration_s=duration_s,
        interval_s=interval_s(duration_s),
        trip_celsius=description.thermal_limit_celsius,
        deadline_s=deadline_s,
    )
    answer = check(description.name, "sustain", answer)
    refuse_undelegated(description, answer)
    refuse_timeless(description.name, answer["intervals"][0]["samples_ns"])
    intervals = tuple(map(_interval, answer["intervals"]))
    ran_s = intervals[-1].start_s + intervals[-1].took_s
    first_ms, last_ms = intervals[0].median_ms, last_median_ms(intervals, ran_s)
    return Sustained(
        device=description.name,
        device_digest=measuring.device_digest(session.hello),
        model_sha256=pushed.sha256,
        agent_sha256=session.hello["agent_sha256"],
        runtime=runtime,
        runtime_version=f"{answer['package']} {answer['version']}",
        threads=threads,
        cpus=tuple(description.cpus),
        started_at=started_at,
        asked_s=duration_s,
        ran_s=ran_s,
        stopped=answer["stopped"],
        trip_celsius=description.thermal_limit_celsius,
        first_ms=first_ms,
        last_ms=last_ms,
        ratio=last_ms / first_ms,
        slope_per_minute=slope_per_minute(intervals),
        intervals=intervals,
        before=ready.reading,
        after=measuring.read_sensors(session, 0.0, rejoin_s=_REJOIN_S),
        delegate=answer["delegate"],
        delegated_share=answer["delegated_share"],
        settings=answer["settings"],
        input_shapes=shapes_of(answer["inputs"][0]),
        inputs_sha256=digest(fed),
    )


def last_median_ms(intervals: Sequence[Interval], ran_s: float) -> float:
    """Return the median of the samples of the last minute, or of a short run's last quarter."""
    since_s = ran_s - min(_LAST_S, ran_s / 4)
    last = [item for item in intervals if item.start_s >= since_s] or [intervals[-1]]
    return median([ns for item in last for ns in item.samples_ns]) / 1e6


def slope_per_minute(intervals: Sequence[Interval]) -> float:
    """Return the change per minute as a share of the first interval; 0 for a single one."""
    points = [(item.start_s / 60.0, item.median_ms) for item in intervals]
    return statistics.slope(points) / intervals[0].median_ms


def _interval(item: Mapping[str, Any]) -> Interval:
    return Interval(
        start_s=item["start_ns"] / 1e9,
        took_s=item["took_ns"] / 1e9,
        invokes=item["invokes"],
        median_ms=median(item["samples_ns"]) / 1e6,
        samples_ns=tuple(item["samples_ns"]),
        soc_celsius=item["soc_celsius"],
        clock_khz=item["clock_khz"],
        throttled=item["throttled"],
    )
