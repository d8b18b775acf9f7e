"""A device measured with the user's own benchmark_model: a shell there is enough, no Python.

Runs the binary over the plain transport and reads its output here (docs/decisions/0010). Each
process is one observation and is rejoined after a lost link. As with `runner.Device`, a model that
cannot be measured is a `Failure`; opening raises.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from device_agents import android, transports
from device_agents.care import probe
from device_agents.errors import ConfigError, LinkLost
from device_agents.leased import LeasedDevice
from device_agents.measure import cooling
from device_agents.measure.steps import silent
from device_agents.rejoin import REJOIN_S
from device_agents.tools import benchmark_model, pushed
from device_agents.tools.device_files import DeviceFiles
from device_agents.tools.models import read_model
from device_agents.tools.observations import ToolConditions, summarise
from device_agents.tools.passes import read_memory, read_ops
from device_agents.tools.processes import Processes
from device_agents.tools.remote_job import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
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
    from device_agents.tools.models import ToolModel
    from device_agents.tools.passes import ToolMemory, ToolOps
    from device_agents.tools.remote_job import Output

_T = TypeVar("_T")

RUNTIME = "benchmark_model"

_PROBE_TIMEOUT_S = 20.0
# Facts that tell one device from another, as for a device with the agent.
_IDENTITY = ("machine", "kernel_bits", "os", "kernel", "cpu_count", "model", "memory_bytes")


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
        self._binary = pushed.find_binary(description)
        self._binary_sha256 = pushed.file_sha256(self._binary)
        self._facts: dict[str, Any] = {}
        self._directory = ""
        self._files = DeviceFiles(description.name, self._link, "", self._on_sent)
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
                self._files = DeviceFiles(self.name, self._link, self._directory, self._on_sent)
                found = self._probe("facts")
                self._facts = {**found.facts(), "is_android": found.is_android}
            pushed.check_processor(
                self._binary,
                machine=self._facts["machine"] or "",
                userland_bits=self._facts["userland_bits"],
                name=self.name,
            )
            self._files.own_folders()
            self._processes = Processes(
                description=self._description,
                link=self._link,
                binary=self._files.push_binary(self._binary, self._binary_sha256),
                jobs=self._files.jobs,
            )

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
        models = [read_model(artifact, shapes)]
        models += [read_model(reference, reference_shapes)] if reference else []
        return self._prepared(
            lambda: self._measure(models, protocol, threads or self._description.threads),
            runtime or RUNTIME,
        )

    def per_op(
        self, artifact: str | Path, *, threads: int = 0, shapes: Shapes | None = None
    ) -> ToolOps | Failure:
        """Profile a model's ops in a pass of its own; shares count, the times are disturbed."""
        model = read_model(artifact, shapes)

        def attempt() -> ToolOps:
            output = self._pass(model, threads, op_profiling=True)[1]
            return read_ops(output.text, model.shapes, device=self.name)

        return self._prepared(attempt, RUNTIME)

    def memory(
        self, artifact: str | Path, *, threads: int = 0, shapes: Shapes | None = None
    ) -> ToolMemory | Failure:
        """Read a model's memory in a pass of its own, which runs a watching thread."""
        model = read_model(artifact, shapes)

        def attempt() -> ToolMemory:
            return read_memory(self._pass(model, threads, peak_memory=True)[0], model.shapes)

        return self._prepared(attempt, RUNTIME)

    def abort(self) -> None:
        """End the connection and the running call, from any thread; only `close` may follow."""
        self._link.abort()

    def close(self) -> None:
        """End the connection."""
        self._link.drop()

    def _probe(self, depth: probe.Depth) -> probe.Probe:
        return self._link.repeat(
            lambda transport: probe.read(
                transport, timeout_s=_PROBE_TIMEOUT_S, depth=depth, directory=self._directory
            ),
            rejoin_s=REJOIN_S if self._facts else 0.0,
        )

    def _measure(
        self, models: Sequence[ToolModel], protocol: BenchProtocol, threads: int
    ) -> Measurement:
        description = self._description
        started_at = self._clock().isoformat(timespec="seconds")
        pushed_models = [self._files.push_model(model.path) for model in models]
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
        conditions = ToolConditions(
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
        self,
        model: ToolModel,
        threads: int,
        *,
        op_profiling: bool = False,
        peak_memory: bool = False,
    ) -> tuple[TextRun, Output]:
        _, target = self._files.push_model(model.path)
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
