"""One device, ready to measure: one measurement at a time, in fresh processes, with a verdict.

Nothing is raised for a candidate that cannot be measured: `measure` and `infer` return a `Failure`.
Opening a device raises, since nothing can be done without it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import random
import tempfile
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from device_agents import transports
from device_agents.api import (
    BenchProtocol,
    Failure,
    Inference,
    Measurement,
    SensorReading,
    TensorInfo,
    TensorValue,
)
from device_agents.errors import AgentError, ConfigError, DeviceError, LinkLost, RuntimeMissing
from device_agents.session import Session
from device_agents.summary import Conditions, precision, summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from device_agents.api import DeviceDescription, Leases

_T = TypeVar("_T")

_CALL_TIMEOUT_S = 20.0
# Importing TensorFlow on a slow card.
_PREPARE_TIMEOUT_S = 180.0
# The host waits this much longer than the device, which kills the child at its own deadline.
_GRACE_S = 15.0
_LEASE_TIMEOUT_S = 3600.0
# vcgencmd starts a process, so in a search the last "after" serves as the next "before". "After" is
# always read anew: between them no throttling goes unseen.
_SENSOR_AGE_S = 5.0
_INLINE_BYTES = 256 * 1024
# Facts that tell one device from another; runtime versions are recorded by themselves.
_IDENTITY = ("machine", "bits", "os", "kernel", "cpu_count", "model", "memory_bytes", "python")


class Device:
    """A device that answers; made by `Device.open`, closed by `close` or a `with` block.

    Thread-safe: calls wait for each other, so a measurement never runs beside anything else.
    """

    def __init__(
        self,
        description: DeviceDescription,
        session: Session,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        leases: Leases | None = None,
    ) -> None:
        self._description = description
        self._session = session
        self._clock = clock
        self._leases = leases
        self._lock = threading.RLock()

    @classmethod
    def open(
        cls,
        description: DeviceDescription,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        leases: Leases | None = None,
    ) -> Device:
        """Connect, ship and start the agent, and import the device's default runtime.

        Raises ConfigError, Unreachable, HostKeyError, AuthenticationFailed, LinkLost,
        RuntimeMissing.
        """
        session = Session(
            description.name,
            lambda: transports.connect(description),
            directory=description.directory,
        )
        device = cls(description, session, clock=clock, leases=leases)
        try:
            _ = session.hello
            if description.runtime:
                device.prepare(description.runtime)
        except BaseException:
            session.close()
            raise
        return device

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The user's name for the device."""
        return self._description.name

    @property
    def hello(self) -> dict[str, Any]:
        """Facts of the device and the agent, as the agent tells them."""
        return dict(self._session.hello)

    @property
    def digest(self) -> str:
        """Hash of the facts that tell this device from another."""
        hello = self._session.hello
        facts = json.dumps({name: hello.get(name) for name in _IDENTITY}, sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()

    def prepare(self, runtime: str) -> None:
        """Import a runtime on the device; raises RuntimeMissing with the command that helps."""
        with self._lock:
            self._session.call("prepare", timeout_s=_PREPARE_TIMEOUT_S, runtime=runtime)

    def sensors(self, *, max_age_s: float = 0.0) -> SensorReading:
        """Read the device's state; raises DeviceError."""
        with self._lock:
            return self._sensors(max_age_s)[0]

    def _sensors(self, max_age_s: float) -> tuple[SensorReading, int]:
        answer = self._session.call("sensors", timeout_s=_CALL_TIMEOUT_S, max_age_s=max_age_s)
        return SensorReading.from_json(answer), int(answer["busy_ns"])

    def measure(
        self,
        artifact: str | Path,
        protocol: BenchProtocol,
        *,
        reference: str | Path | None = None,
        runtime: str = "",
        threads: int = 0,
    ) -> Measurement | Failure:
        """Time a model file, interleaved with a reference model if given.

        Empty `runtime` and 0 `threads` mean the device's own. After a lost link the measurement is
        begun once more; a second loss is a retryable Failure. Raises ConfigError for a file that
        is not there.
        """
        paths = [_checked(artifact)] + ([_checked(reference)] if reference else [])
        runtime = runtime or self._description.runtime
        threads = threads or self._description.threads

        def attempt() -> Measurement:
            return self._measure(paths, protocol, runtime, threads)

        return self._guarded(attempt)

    def infer(
        self,
        artifact: str | Path,
        inputs: Sequence[TensorValue],
        *,
        runtime: str = "",
        threads: int = 0,
        argmax: bool = False,
        timeout_s: float = 300.0,
    ) -> Inference | Failure:
        """Run a model on the device, sample after sample.

        Each input has the shape (samples, …) and per sample exactly the bytes of the model's input;
        without inputs only the model's metadata come back. With `argmax` the outputs are one
        int64 array (samples,). Raises ConfigError for a file that is not there.
        """
        path = _checked(artifact)

        def attempt() -> Inference:
            sent = [self._sent(value) for value in inputs]
            answer = self._session.call(
                "run",
                timeout_s=timeout_s + _GRACE_S,
                sha256=self._session.push(path),
                inputs=sent,
                argmax=argmax,
                runtime=runtime or self._description.runtime,
                threads=threads or self._description.threads,
                cpus=list(self._description.cpus),
                deadline_s=timeout_s,
            )
            return _inference(answer)

        return self._guarded(attempt)

    def deploy(self, artifact: str | Path, name: str, version: str) -> str:
        """Put a model in use as `name`, `version`; return its path on the device.

        The same call twice changes nothing. Raises ConfigError for a file that is not there,
        AgentError for a bad name or a version that holds another model, TransferFailed.
        """
        path = _checked(artifact)
        with self._lock:
            answer = self._session.call(
                "deploy",
                timeout_s=_CALL_TIMEOUT_S + path.stat().st_size / 1e6,
                sha256=self._session.push(path),
                name=name,
                version=version,
                extension=path.suffix.lstrip(".") or "bin",
            )
        return str(answer["path"])

    def releases(self) -> list[dict[str, Any]]:
        """Return what is deployed: name, version, sha256, file, current."""
        with self._lock:
            answer = self._session.call("releases", timeout_s=_CALL_TIMEOUT_S)
        return list(answer["releases"])

    def rollback(self, name: str, version: str | None = None) -> str:
        """Make `version`, or the release before the current one, current; return it."""
        with self._lock:
            answer = self._session.call(
                "rollback", timeout_s=_CALL_TIMEOUT_S, name=name, version=version
            )
        return str(answer["current"])

    def close(self) -> None:
        """End the agent and the connection."""
        self._session.close()

    def _guarded(self, attempt: Callable[[], _T]) -> _T | Failure:
        with self._lock:
            try:
                with self._lease():
                    try:
                        return attempt()
                    except LinkLost:
                        # Everything that comes here may be begun again; the next call reconnects.
                        return attempt()
            except AgentError as error:
                return Failure(str(error), error.detail, error.retryable, error.kind)
            except RuntimeMissing as error:
                return Failure(str(error), kind="runtime_missing")
            except DeviceError as error:
                return Failure(str(error), "", error.retryable, "link")

    def _lease(self) -> AbstractContextManager[None]:
        if self._leases is None:
            return nullcontext()
        return self._leases.hold(self.name, timeout_s=_LEASE_TIMEOUT_S)

    def _sent(self, value: TensorValue) -> dict[str, Any]:
        sent: dict[str, Any] = {"dtype": value.dtype, "shape": list(value.shape)}
        if len(value.data) <= _INLINE_BYTES:
            return {**sent, "data": base64.b64encode(value.data).decode()}
        with tempfile.TemporaryDirectory(prefix="edgewright-") as folder:
            path = Path(folder) / "input.bin"
            path.write_bytes(value.data)
            return {**sent, "sha256": self._session.push(path)}

    def _measure(
        self, paths: list[Path], protocol: BenchProtocol, runtime: str, threads: int
    ) -> Measurement:
        started_at = self._clock().isoformat(timespec="seconds")
        hashes = [self._session.push(path) for path in paths]
        self.prepare(runtime)
        age_s = _SENSOR_AGE_S if protocol.name == "quick" else 0.0
        before, busy_before_ns = self._sensors(age_s)
        runs: list[dict[str, Any]] = []
        deadline = time.monotonic() + protocol.budget_s
        rng = random.Random(protocol.seed)  # noqa: S311  # statistics, not secrets
        while len(runs) < protocol.max_processes:
            enough = len(runs) >= protocol.processes and (
                precision(runs, rng) <= protocol.target_half_width
            )
            if enough or (runs and time.monotonic() > deadline):
                break
            runs.append(self._bench(hashes, protocol, runtime, threads, seed=len(runs)))
        after, busy_after_ns = self._sensors(0.0)
        conditions = Conditions(
            device=self.name,
            device_digest=self.digest,
            agent_sha256=self._session.hello["agent_sha256"],
            model_sha256=hashes[0],
            reference_sha256=hashes[1] if len(hashes) > 1 else None,
            runtime=runtime,
            threads=threads,
            cpus=tuple(self._description.cpus),
            thermal_limit_celsius=self._description.thermal_limit_celsius,
            protocol=protocol,
            started_at=started_at,
            before=before,
            after=after,
            sensors_ns=busy_before_ns + busy_after_ns,
        )
        return summarise(runs, conditions, rng=random.Random(protocol.seed))  # noqa: S311

    def _bench(
        self, hashes: list[str], protocol: BenchProtocol, runtime: str, threads: int, *, seed: int
    ) -> dict[str, Any]:
        return self._session.call(
            "bench",
            timeout_s=protocol.deadline_s + _GRACE_S,
            sha256=hashes[0],
            reference_sha256=hashes[1] if len(hashes) > 1 else None,
            runtime=runtime,
            threads=threads,
            cpus=list(self._description.cpus),
            warmup_min_ms=protocol.warmup_min_ms,
            warmup_max_ms=protocol.warmup_max_ms,
            max_s=protocol.max_s,
            min_samples=protocol.min_samples,
            max_samples=protocol.max_samples,
            block_ms=protocol.block_ms,
            target_half_width=protocol.target_half_width,
            seed=protocol.seed + seed,
            deadline_s=protocol.deadline_s,
        )


def _checked(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"no model file {str(path)!r}; export one first")
    return path


def _infos(items: list[dict[str, Any]]) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(i["name"], i["dtype"], tuple(i["shape"]), i["scale"], i["zero_point"])
        for i in items
    )


def _inference(answer: dict[str, Any]) -> Inference:
    outputs: list[TensorValue] = []
    if "argmax" in answer:
        classes = answer["argmax"]
        data = b"".join(value.to_bytes(8, "little", signed=True) for value in classes)
        outputs.append(TensorValue("int64", (len(classes),), data))
    for info, text in zip(answer["outputs"], answer.get("data", []), strict=False):
        shape = (answer["samples"], *info["shape"])
        outputs.append(TensorValue(info["dtype"], shape, base64.b64decode(text)))
    return Inference(
        outputs=tuple(outputs),
        inputs_info=_infos(answer["inputs"]),
        outputs_info=_infos(answer["outputs"]),
        invoke_ns=answer.get("invoke_ns", 0),
    )
