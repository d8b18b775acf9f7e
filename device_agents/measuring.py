"""One measurement over a session: fresh processes until the figure is precise, state around them.

Everything here raises; `runner.Device` turns what is raised into a `Failure`.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from typing import TYPE_CHECKING, Any

from device_agents.api import SensorReading
from device_agents.summary import Conditions, precision, summarise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from device_agents.api import BenchProtocol, DeviceDescription, Measurement
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
_IDENTITY = ("machine", "bits", "os", "kernel", "cpu_count", "model", "memory_bytes", "python")


def device_digest(hello: Mapping[str, Any]) -> str:
    """Return the hash of the facts that tell this device from another."""
    facts = json.dumps({name: hello.get(name) for name in _IDENTITY}, sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()


def prepare(session: Session, runtime: str) -> None:
    """Import a runtime on the device; raises RuntimeMissing with the command that helps."""
    session.call("prepare", timeout_s=_PREPARE_TIMEOUT_S, runtime=runtime)


def read_sensors(session: Session, max_age_s: float) -> SensorReading:
    """Read the device's state; raises DeviceError."""
    answer = session.call("sensors", timeout_s=_SENSORS_TIMEOUT_S, max_age_s=max_age_s)
    return SensorReading.from_json(answer)


def measure(
    session: Session,
    description: DeviceDescription,
    paths: Sequence[Path],
    protocol: BenchProtocol,
    *,
    runtime: str,
    threads: int,
    started_at: str,
) -> Measurement:
    """Time the first file, interleaved with the second if there is one.

    Raises AgentError, RuntimeMissing, TransferFailed, LinkLost, DeadlineExceeded.
    """
    idle_ns = session.busy_ns
    hashes = [session.push(path) for path in paths]
    reference_sha256 = hashes[1] if len(hashes) > 1 else None
    prepare(session, runtime)
    before = read_sensors(session, _SENSOR_AGE_S if protocol.name == "quick" else 0.0)
    call: dict[str, Any] = {
        "sha256": hashes[0],
        "reference_sha256": reference_sha256,
        "runtime": runtime,
        "threads": threads,
        "cpus": list(description.cpus),
        "spent_ns": (session.busy_ns - idle_ns) // protocol.processes,
    }
    runs = _runs(session, call, protocol)
    after = read_sensors(session, 0.0)
    conditions = Conditions(
        device=description.name,
        device_digest=device_digest(session.hello),
        agent_sha256=session.hello["agent_sha256"],
        model_sha256=hashes[0],
        reference_sha256=reference_sha256,
        runtime=runtime,
        threads=threads,
        cpus=tuple(description.cpus),
        thermal_limit_celsius=description.thermal_limit_celsius,
        protocol=protocol,
        started_at=started_at,
        before=before,
        after=after,
        busy_ns=session.busy_ns - idle_ns,
    )
    return summarise(runs, conditions, rng=random.Random(protocol.seed))  # noqa: S311


def _runs(session: Session, call: dict[str, Any], protocol: BenchProtocol) -> list[dict[str, Any]]:
    """Return one run per fresh process, until the figure is precise or the budget is spent."""
    runs: list[dict[str, Any]] = []
    deadline = time.monotonic() + protocol.budget_s
    rng = random.Random(protocol.seed)  # noqa: S311  # statistics, not secrets
    while len(runs) < protocol.max_processes:
        enough = len(runs) >= protocol.processes and (
            precision(runs, rng) <= protocol.target_half_width
        )
        if enough or (runs and time.monotonic() > deadline):
            break
        answer = session.call(
            "bench",
            timeout_s=protocol.deadline_s + GRACE_S,
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
        runs.append(answer)
    return runs
