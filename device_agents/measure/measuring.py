"""One measurement over a session: fresh processes until the figure is precise, state around them.

It begins when the device is cool (cooling.py), and goes on after a lost link (rejoin.py).

Everything here raises; `runner.Device` turns what is raised into a `Failure`.
"""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from device_agents.measure import statistics
from device_agents.measure.answers import check, check_reading, check_run
from device_agents.measure.cooling import Canary, Gate, canary_after, wait_until_cool
from device_agents.measure.delegation import refuse_undelegated
from device_agents.measure.fed import digest, push_inputs
from device_agents.measure.steps import Step, Steps, silent
from device_agents.measure.summary import Conditions, disagree, precision, summarise
from device_agents.pushing import push_model
from device_agents.rejoin import call_rejoining

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from device_agents.api import (
        BenchProtocol,
        DeviceDescription,
        Measurement,
        SensorReading,
        Shapes,
        TensorValue,
    )
    from device_agents.measure.cooling import Ready
    from device_agents.session import Session

# The host waits this much longer than the device, which kills the child at its own deadline.
GRACE_S = 15.0

_SENSORS_TIMEOUT_S = 20.0
# Importing TensorFlow on a slow card.
_PREPARE_TIMEOUT_S = 180.0
# vcgencmd starts a process, so in a search the last "after" serves as the next "before". "After" is
# always read anew: between them no throttling goes unseen.
_SENSOR_AGE_S = 5.0
# Facts that tell one device from another; runtime versions are recorded by themselves.
_IDENTITY = (
    "device_id",
    "machine",
    "bits",
    "os",
    "kernel",
    "cpu_count",
    "model",
    "memory_bytes",
    "python",
)


def device_digest(hello: Mapping[str, Any]) -> str:
    """Return the hash of the facts that tell this device from another."""
    facts = json.dumps({name: hello.get(name) for name in _IDENTITY}, sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()


def prepare(session: Session, runtime: str, *, rejoin_s: float = 0.0) -> None:
    """Import a runtime on the device; raises RuntimeMissing with the command that helps."""
    call_rejoining(
        session, "prepare", timeout_s=_PREPARE_TIMEOUT_S, rejoin_s=rejoin_s, runtime=runtime
    )


def read_sensors(session: Session, max_age_s: float, *, rejoin_s: float = 0.0) -> SensorReading:
    """Read the device's state; raises DeviceError."""
    answer = call_rejoining(
        session, "sensors", timeout_s=_SENSORS_TIMEOUT_S, rejoin_s=rejoin_s, max_age_s=max_age_s
    )
    return check_reading(session.name, answer)


def run_canary(
    session: Session, description: DeviceDescription, *, rejoin_s: float = 0.0
) -> Canary:
    """Run the canary on the device's CPUs; raises DeviceError."""
    answer = call_rejoining(
        session,
        "canary",
        timeout_s=_SENSORS_TIMEOUT_S,
        rejoin_s=rejoin_s,
        cpus=list(description.cpus),
    )
    answer = check(description.name, "canary", answer)
    return Canary(answer["ns"] / 1e6, answer["idle_ns"] / 1e6)


def how_to_run(
    description: DeviceDescription, runtime: str, threads: int, shapes: Shapes
) -> dict[str, Any]:
    """Return the arguments that every call which loads a model has."""
    return {
        "shapes": as_lists(shapes),
        "runtime": runtime,
        "threads": threads,
        "cpus": list(description.cpus),
        "xnnpack": description.xnnpack,
    }


def as_lists(shapes: Shapes) -> dict[str, list[int]]:
    """Return shapes as JSON holds them."""
    return {name: list(shape) for name, shape in shapes.items()}


def wait_until_ready(
    session: Session, description: DeviceDescription, protocol: BenchProtocol
) -> Ready:
    """Wait until the device is ready; raises AgentError of kind `not_cool`, DeviceError."""
    age_s = _SENSOR_AGE_S if protocol.name == "quick" else 0.0
    gate = Gate(
        description.name,
        description.cool_celsius,
        lambda: read_sensors(session, age_s, rejoin_s=protocol.rejoin_s),
        lambda: run_canary(session, description, rejoin_s=protocol.rejoin_s),
    )
    return wait_until_cool(gate, protocol, pause=session.pause, clock=session.clock)


def measure(  # noqa: PLR0913  # what, how, when, and whom to tell
    session: Session,
    description: DeviceDescription,
    paths: Sequence[Path],
    protocol: BenchProtocol,
    *,
    runtime: str,
    threads: int,
    shapes: Sequence[Shapes],
    inputs: Sequence[Sequence[TensorValue]],
    started_at: str,
    tell: Callable[[Step], object] = silent,
) -> Measurement:
    """Time the first file, interleaved with the second if there is one.

    `shapes` and `inputs` are of both; without inputs a file runs on seeded ones.

    Raises AgentError, RuntimeMissing, TransferFailed, LinkLost, DeadlineExceeded.
    """
    if not description.canary:
        protocol = replace(protocol, canary_limit=None)
    idle_ns = session.busy_ns
    rejoin_s = protocol.rejoin_s
    pushed = [push_model(session, path, rejoin_s=rejoin_s) for path in paths]
    fed = [push_inputs(session, values, rejoin_s=rejoin_s) for values in inputs]
    prepare(session, runtime, rejoin_s=rejoin_s)
    ready = wait_until_ready(session, description, protocol)
    call: dict[str, Any] = {
        **pushed[0].call,
        **(pushed[1].as_reference() if len(pushed) > 1 else {}),
        **how_to_run(description, runtime, threads, shapes[0]),
        "reference_shapes": as_lists(shapes[1]),
        "inputs": fed[0],
        "reference_inputs": fed[1],
        "spent_ns": (session.busy_ns - idle_ns) // protocol.processes,
    }
    runs = _runs(session, call, protocol, description, Steps(protocol, session.clock, tell))
    canary = None
    if protocol.canary_limit is not None:
        canary = canary_after(
            lambda: run_canary(session, description, rejoin_s=rejoin_s),
            protocol.canary_limit,
            pause=session.pause,
        )
    after = read_sensors(session, 0.0, rejoin_s=rejoin_s)
    # The governor has lowered the clock by now; what counts is the clock at load, of the process
    # that was slowed most: it counts like the others.
    slowest = min((run for run in runs if run["clock_khz"]), key=_clock_share, default=None)
    if slowest is not None:
        after = replace(after, clock_khz=slowest["clock_khz"])
    conditions = Conditions(
        device=description.name,
        device_digest=device_digest(session.hello),
        agent_sha256=session.hello["agent_sha256"],
        model_sha256=pushed[0].sha256,
        reference_sha256=pushed[1].sha256 if len(pushed) > 1 else None,
        runtime=runtime,
        threads=threads,
        cpus=tuple(description.cpus),
        thermal_limit_celsius=description.thermal_limit_celsius,
        protocol=protocol,
        started_at=started_at,
        before=ready.reading,
        after=after,
        busy_ns=session.busy_ns - idle_ns,
        canaries=(ready.canary, canary),
        nominal_clock_khz=None if slowest is None else description.nominal_clock_khz,
        core_max_khz=None if slowest is None else _slower_core_khz(slowest),
        inputs_sha256=digest(fed[0]),
        reference_inputs_sha256=digest(fed[1]),
    )
    return summarise(runs, conditions, rng=random.Random(protocol.seed))  # noqa: S311


def _slower_core_khz(run: Mapping[str, Any]) -> int | None:
    """Return the highest clock of the core that worked; None where no other has a higher one."""
    own, fastest = run["core_max_khz"], run["fastest_max_khz"]
    return own if own and fastest and own < fastest else None


def _clock_share(run: Mapping[str, Any]) -> tuple[float, int]:
    """Return the clock at load as a share of the core's own highest, and the clock."""
    clock_khz = run["clock_khz"]
    return clock_khz / (run["core_max_khz"] or clock_khz), clock_khz


def _runs(
    session: Session,
    call: dict[str, Any],
    protocol: BenchProtocol,
    description: DeviceDescription,
    steps: Steps,
) -> list[dict[str, Any]]:
    """Return one run per fresh process, until the figure is precise or the budget is spent."""
    runs: list[dict[str, Any]] = []
    rng = random.Random(protocol.seed)  # noqa: S311  # statistics, not secrets
    while len(runs) < protocol.max_processes:
        enough = (
            len(runs) >= protocol.processes
            and precision(runs, rng) <= protocol.target_half_width
            and (
                len(runs) >= statistics.BOOTSTRAP_PROCESSES
                or not disagree(runs, protocol.suspect_spread)
            )
        )
        if enough or (runs and steps.late):
            break
        steps.next()
        answer = call_rejoining(
            session,
            "bench",
            timeout_s=protocol.deadline_s + GRACE_S,
            rejoin_s=protocol.rejoin_s,
            **call,
            warmup_min_ms=protocol.warmup_min_ms,
            warmup_max_ms=protocol.warmup_max_ms,
            max_s=protocol.max_s,
            min_samples=protocol.min_samples,
            max_samples=protocol.max_samples,
            block_ms=protocol.block_ms,
            target_half_width=protocol.target_half_width,
            seed=protocol.seed + len(runs),
            deadline_s=protocol.deadline_s,
        )
        run = check_run(description.name, answer)
        refuse_undelegated(description, run)
        runs.append(run)
    return runs
