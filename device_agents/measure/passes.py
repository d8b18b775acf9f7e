"""Passes beside the timing: what each op costs, and how much memory a model takes.

Each runs in a process of its own. A profiler slows what it times and a memory reading disturbs it,
so shares come from here and absolute times from the measurement.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from device_agents.measure import measuring, statistics
from device_agents.measure.answers import check, shapes_of
from device_agents.measure.fed import digest, push_inputs
from device_agents.pushing import push_model
from device_agents.rejoin import REJOIN_S, call_rejoining
from device_agents.values import as_shapes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from device_agents.api import DeviceDescription, Shapes, TensorValue
    from device_agents.session import Session

_PROFILE_INVOKES = 50
_MEMORY_INVOKES = 10
_DEADLINE_S = 300.0


@dataclass(frozen=True, slots=True)
class OpTime:
    """One op in execution order.

    Attributes:
        where: the execution provider or delegate that ran it; empty when not told.
        time_ms: mean over the middle half of the invokes. A median of short ops would be a whole
            number of microseconds, as profilers count them.
        share: of the sum over all ops, 0 to 1.
        calls: how many times it was timed.
    """

    name: str
    kind: str
    where: str
    time_ms: float
    share: float
    calls: int


@dataclass(frozen=True, slots=True)
class OpProfile:
    """The cost of every op, as the runtime's own profiler tells it; slower than without."""

    device: str
    model_sha256: str
    runtime: str
    runtime_version: str
    threads: int
    ops: tuple[OpTime, ...]
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    inputs_sha256: str = ""

    @property
    def total_ms(self) -> float:
        """The sum over all ops."""
        return sum(op.time_ms for op in self.ops)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> OpProfile:
        """Read what `to_json` gave, also after a trip through JSON text."""
        values = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        values["ops"] = tuple(OpTime(**op) for op in values["ops"])
        values["input_shapes"] = as_shapes(values.get("input_shapes", {}))
        return cls(**values)


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Resident memory of a process that loads and runs one model.

    Attributes:
        before_bytes: with the runtime imported and nothing loaded.
        loaded_bytes: with the model loaded, before its first run.
        peak_bytes: at most, over some runs.
        model_bytes: size of the model file.
        inputs_sha256: as of `Measurement`.
    """

    device: str
    model_sha256: str
    runtime: str
    runtime_version: str
    threads: int
    before_bytes: int
    loaded_bytes: int
    peak_bytes: int
    model_bytes: int
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    inputs_sha256: str = ""

    @property
    def model_cost_bytes(self) -> int:
        """What the model adds at most to a process that has the runtime."""
        return self.peak_bytes - self.before_bytes

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self)


def op_times(rows: Sequence[tuple[str, str, str, Sequence[float]]]) -> tuple[OpTime, ...]:
    """Return the ops of (name, kind, where, milliseconds of each call), with their shares."""
    typical = [statistics.middle_mean(times_ms) for *_, times_ms in rows]
    total = sum(typical) or 1.0
    return tuple(
        OpTime(name, kind, where, ms, ms / total, len(times_ms))
        for (name, kind, where, times_ms), ms in zip(rows, typical, strict=True)
    )


def per_op(
    session: Session,
    description: DeviceDescription,
    path: Path,
    *,
    runtime: str,
    threads: int,
    shapes: Shapes,
    inputs: Sequence[TensorValue] = (),
) -> OpProfile:
    """Profile a model; raises AgentError, RuntimeMissing, TransferFailed, LinkLost."""
    how = measuring.how_to_run(description, runtime, threads, shapes)
    fed = push_inputs(session, inputs, rejoin_s=REJOIN_S)
    call = {**how, "inputs": fed, "invokes": _PROFILE_INVOKES}
    sha256, answer = _pass(session, description, "profile", path, call)
    rows = [
        (row["name"], row["kind"], row["where"], [ns / 1e6 for ns in row["samples_ns"]])
        for row in answer["ops"]
    ]
    return OpProfile(
        device=description.name,
        model_sha256=sha256,
        runtime=runtime,
        runtime_version=f"{answer['package']} {answer['version']}",
        threads=threads,
        ops=op_times(rows),
        input_shapes=shapes_of(answer["inputs"][0]),
        inputs_sha256=digest(fed),
    )


def memory(
    session: Session,
    description: DeviceDescription,
    path: Path,
    *,
    runtime: str,
    threads: int,
    shapes: Shapes,
    inputs: Sequence[TensorValue] = (),
) -> MemoryUse:
    """Tell a model's memory; raises AgentError, RuntimeMissing, TransferFailed, LinkLost."""
    how = measuring.how_to_run(description, runtime, threads, shapes)
    fed = push_inputs(session, inputs, rejoin_s=REJOIN_S)
    call = {**how, "inputs": fed, "invokes": _MEMORY_INVOKES}
    sha256, answer = _pass(session, description, "memory", path, call)
    return MemoryUse(
        device=description.name,
        model_sha256=sha256,
        runtime=runtime,
        runtime_version=f"{answer['package']} {answer['version']}",
        threads=threads,
        before_bytes=answer["before_bytes"],
        loaded_bytes=answer["loaded_bytes"],
        peak_bytes=answer["peak_bytes"],
        model_bytes=answer["model_bytes"],
        input_shapes=shapes_of(answer["inputs"][0]),
        inputs_sha256=digest(fed),
    )


def _pass(
    session: Session, description: DeviceDescription, op: str, path: Path, call: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    pushed = push_model(session, path, rejoin_s=REJOIN_S)
    measuring.prepare(session, call["runtime"], rejoin_s=REJOIN_S)
    answer = call_rejoining(
        session,
        op,
        timeout_s=_DEADLINE_S + measuring.GRACE_S,
        rejoin_s=REJOIN_S,
        **pushed.call,
        **call,
        deadline_s=_DEADLINE_S,
    )
    return pushed.sha256, check(description.name, op, answer)
