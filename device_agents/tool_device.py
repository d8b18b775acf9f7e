"""A device measured with the user's own benchmark_model: a shell there is enough, no Python.

Runs the binary over the plain transport and reads its output here (docs/decisions/0010). Each
process is one observation and is rejoined after a lost link. As with `runner.Device`, a model that
cannot be measured is a `Failure`; opening raises.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import random
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from device_agents import android, transports
from device_agents.care import probe
from device_agents.errors import AgentError, ConfigError, LinkLost
from device_agents.leased import LeasedDevice, checked_model
from device_agents.measure import cooling
from device_agents.measure.steps import silent
from device_agents.model_files import input_shapes, is_open, read
from device_agents.tools import benchmark_model, pushed
from device_agents.tools.observations import Conditions, summarise
from device_agents.tools.op_profile import parse_profile
from device_agents.tools.processes import Processes
from device_agents.tools.remote_job import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from device_agents.api import (
        BenchProtocol,
        DeviceDescription,
        Failure,
        Leases,
        Measurement,
        SensorReading,
        Shapes,
    )
    from device_agents.measure.steps import Sent, Step
    from device_agents.tools.benchmark_text import TextRun
    from device_agents.tools.op_profile import OpRow
    from device_agents.tools.remote_job import Output

_T = TypeVar("_T")

RUNTIME = "benchmark_model"

_PROBE_TIMEOUT_S = 20.0
_REJOIN_S = 60.0
# Facts that tell one device from another, as for a device with the agent.
_IDENTITY = ("machine", "kernel_bits", "os", "kernel", "cpu_count", "model", "memory_bytes")


@dataclass(frozen=True, slots=True)
class ToolMemory:
    """Memory of a model's process in MB: after loading, at the end, and the highest seen."""

    init_mb: float | None
    overall_mb: float | None
    peak_mb: float | None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolOps:
    """What each op of a model takes, as the binary's own profiler tells it."""

    ops: tuple[OpRow, ...]
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Model:
    """A model file with the shape of every input; `layers` are those that the tool must be told."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    layers: dict[str, tuple[int, ...]]


class ToolDevice(LeasedDevice):
    """A device with a benchmark_model; made by `ToolDevice.open`, closed by `close` or `with`.

    Thread-safe: calls wait for each other; only `abort` waits for nobody.
    """

    def __init__(
        self,
        description: DeviceDescription,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        leases: Leases | None = None,
        on_step: Callable[[Step | Sent], object] = silent,
    ) -> None:
        super().__init__(description, clock=clock, leases=leases, on_step=on_step)
        self._link = Link(
            description.name, lambda: transports.connect(description), threading.Event()
        )
        self._link.before_start = self._exclusive.check
        self._binary = pushed.checked_binary(description)
        self._binary_sha256 = pushed.file_sha256(self._binary)
        self._facts: dict[str, Any] = {}
        self._directory = ""
        self._there: set[str] = set()
        self._processes = Processes(description, self._link, binary="", jobs="")

    @classmethod
    def open(
        cls,
        description: DeviceDescription,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        leases: Leases | None = None,
        on_step: Callable[[Step | Sent], object] = silent,
    ) -> ToolDevice:
        """Connect, learn what the device is, and put the binary there.

        Raises ConfigError (no binary, or for another processor), Unreachable, HostKeyError,
        AuthenticationFailed, LinkLost, TransferFailed.
        """
        device = cls(description, clock=clock, leases=leases, on_step=on_step)
        try:
            device.prepare(RUNTIME)
        except BaseException:
            device.close()
            raise
        return device

    @property
    def hello(self) -> dict[str, Any]:
        """Facts of the device, under the names that an agent uses."""
        return dict(self._facts)

    @property
    def digest(self) -> str:
        """Hash of the facts that tell this device from another."""
        facts = json.dumps({name: self._facts.get(name) for name in _IDENTITY}, sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()

    def prepare(self, runtime: str) -> None:
        """Make sure that the binary is on the device; raises ConfigError for another runtime."""
        if runtime != RUNTIME:
            raise ConfigError(
                f"device {self.name!r} measures with benchmark_model, not with {runtime!r}; set "
                "`runtime` in its profile to use the Python agent there"
            )
        with self._exclusive.lock:
            transport = self._link.transport
            if not self._facts:
                self._directory = probe.absolute(self._description.directory, transport.home)
                found = self._probe("facts")
                self._facts = {**found.facts(), "is_android": found.is_android}
            pushed.check_processor(
                self._binary,
                machine=self._facts["machine"] or "",
                userland_bits=self._facts["userland_bits"],
                name=self.name,
            )
            self._link.again(
                lambda link: pushed.own_folders(link, self._directory, self.name),
                rejoin_s=_REJOIN_S,
            )
            self._processes = Processes(
                description=self._description,
                link=self._link,
                binary=self._remote_binary,
                jobs=posixpath.join(self._directory, "jobs"),
            )
            self._ensure(self._binary, self._binary_sha256, self._remote_binary)

    def sensors(self, *, max_age_s: float = 0.0) -> SensorReading:
        """Read the device's state, always anew; raises DeviceError."""
        del max_age_s
        with self._exclusive.lock:
            return self._probe("state").sensors()

    def measure(
        self,
        artifact: str | Path,
        protocol: BenchProtocol,
        *,
        reference: str | Path | None = None,
        runtime: str = "",
        threads: int = 0,
        shapes: Shapes | None = None,
        reference_shapes: Shapes | None = None,
    ) -> Measurement | Failure:
        """Time a model file, in turns with a reference model if given; see `Device.measure`."""
        models = [_model(artifact, shapes)]
        models += [_model(reference, reference_shapes)] if reference else []
        return self._prepared(
            lambda: self._measure(models, protocol, threads or self._description.threads),
            runtime or RUNTIME,
        )

    def per_op(
        self, artifact: str | Path, *, threads: int = 0, shapes: Shapes | None = None
    ) -> ToolOps | Failure:
        """Profile a model's ops in a pass of its own; shares count, the times are disturbed."""
        model = _model(artifact, shapes)

        def attempt() -> ToolOps:
            found = parse_profile(self._pass(model, threads, op_profiling=True)[1].text)
            if not found:
                raise AgentError(
                    f"device {self.name!r}: the binary printed no op profile; take one built with "
                    "profiling",
                    kind="bad_request",
                )
            return ToolOps(found, model.shapes)

        return self._prepared(attempt, RUNTIME)

    def memory(
        self, artifact: str | Path, *, threads: int = 0, shapes: Shapes | None = None
    ) -> ToolMemory | Failure:
        """Read a model's memory in a pass of its own, which runs a watching thread."""
        model = _model(artifact, shapes)

        def attempt() -> ToolMemory:
            run = self._pass(model, threads, peak_memory=True)[0]
            return ToolMemory(
                run.memory_init_mb, run.memory_overall_mb, run.memory_peak_mb, model.shapes
            )

        return self._prepared(attempt, RUNTIME)

    def abort(self) -> None:
        """End the connection and the running call, from any thread; only `close` may follow."""
        self._link.abort()

    def close(self) -> None:
        """End the connection."""
        self._link.drop()

    @property
    def _remote_binary(self) -> str:
        name = f"benchmark_model-{self._binary_sha256[:16]}"
        return posixpath.join(self._directory, "tools", name)

    def _probe(self, depth: probe.Depth) -> probe.Probe:
        return self._link.again(
            lambda transport: probe.read(
                transport, timeout_s=_PROBE_TIMEOUT_S, depth=depth, directory=self._directory
            ),
            rejoin_s=_REJOIN_S if self._facts else 0.0,
        )

    def _ensure(self, path: Path, sha256: str, target: str) -> None:
        if sha256 not in self._there:
            self._link.again(
                lambda transport: pushed.ensure(
                    transport, path, sha256, target, on_sent=self._on_sent
                ),
                rejoin_s=_REJOIN_S,
            )
            self._there.add(sha256)

    def _push(self, path: Path) -> tuple[str, str]:
        """Return a model's hash and its place on the device."""
        sha256 = pushed.file_sha256(path)
        target = posixpath.join(self._directory, "models", sha256)
        self._ensure(path, sha256, target)
        return sha256, target

    def _measure(
        self, models: Sequence[_Model], protocol: BenchProtocol, threads: int
    ) -> Measurement:
        description = self._description
        started_at = self._clock().isoformat(timespec="seconds")
        pushed_models = [self._push(model.path) for model in models]
        ready = cooling.wait_until_cool(
            cooling.Gate(
                self.name,
                description.cool_celsius,
                lambda: self._probe("state").sensors(),
                lambda: None,
            ),
            protocol,
            pause=self._pause,
        )
        with ExitStack() as stack:
            settings = {"xnnpack": "on" if description.xnnpack else "off"}
            if self._facts["is_android"]:
                held = stack.enter_context(android.performance_mode(self._link))
                settings["fixed_performance_mode"] = "on" if held else "not there"
            targets = [
                benchmark_model.Graph(target, model.layers)
                for (_, target), model in zip(pushed_models, models, strict=True)
            ]
            found = self._processes.observations(targets, protocol, threads, self.on_step)
        after = self._probe("state").sensors()
        settings["result"] = "proto" if self._processes.writes_result else "text"
        conditions = Conditions(
            device=self.name,
            device_digest=self.digest,
            model_sha256=pushed_models[0][0],
            reference_sha256=pushed_models[1][0] if len(models) > 1 else None,
            binary_sha256=self._binary_sha256,
            threads=threads,
            cpus=tuple(description.cpus),
            thermal_limit_celsius=description.thermal_limit_celsius,
            protocol=protocol,
            started_at=started_at,
            before=ready.reading,
            after=after,
            settings=settings,
            delegated_share=self._processes.share_of(found[0].run),
            input_shapes=models[0].shapes,
            reference_input_shapes=models[1].shapes if len(models) > 1 else {},
        )
        return summarise(found, conditions, rng=random.Random(protocol.seed))  # noqa: S311

    def _pass(
        self, model: _Model, threads: int, *, op_profiling: bool = False, peak_memory: bool = False
    ) -> tuple[TextRun, Output]:
        _, target = self._push(model.path)
        return self._processes.one_pass(
            benchmark_model.Graph(target, model.layers),
            threads or self._description.threads,
            op_profiling=op_profiling,
            peak_memory=peak_memory,
        )

    def _pause(self, seconds: float) -> None:
        if self._link.pause(seconds):
            raise LinkLost(f"device {self.name!r}: aborted")

    def _device_id(self) -> str:
        return str(self._facts.get("device_id") or "")

    def _prepared(self, attempt: Callable[[], _T], runtime: str) -> _T | Failure:
        def work() -> _T:
            self.prepare(runtime)
            return attempt()

        return self._exclusive.attempt(work)


def _model(artifact: str | Path, given: Shapes | None) -> _Model:
    """Return a TFLite file with its input shapes; raises ConfigError.

    The tool itself runs an open dimension as 1 and says nothing, so the file is read here.
    """
    file = read(checked_model(artifact))
    if file.format != "tflite":
        raise ConfigError(f"{file.path} is no TFLite model, and benchmark_model takes no other")
    shapes = input_shapes(file, given or {})
    return _Model(file.path, shapes, shapes if is_open(file) else {})
