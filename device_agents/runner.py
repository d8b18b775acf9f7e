"""One device, ready to measure: one measurement at a time, in fresh processes, with a verdict.

Nothing is raised for a candidate that cannot be measured: `measure` and `infer` return a `Failure`.
Opening a device raises, since nothing can be done without it.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from device_agents import inference, transports
from device_agents.api import Failure
from device_agents.errors import AgentError, ConfigError
from device_agents.golden import GoldenRuns
from device_agents.leased import LeasedDevice, find_model
from device_agents.measure import measuring, passes, sustained
from device_agents.measure.steps import silent
from device_agents.pushing import push_model
from device_agents.rejoin import REJOIN_S, repeat
from device_agents.releases import Releases
from device_agents.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from device_agents.api import (
        BenchProtocol,
        DeviceDescription,
        Inference,
        Leases,
        Measurement,
        Runs,
        SensorReading,
        Shapes,
        TensorValue,
    )
    from device_agents.golden import Golden
    from device_agents.measure.passes import MemoryUse, OpProfile
    from device_agents.measure.steps import Sent, Step
    from device_agents.measure.sustained import Sustained

_T = TypeVar("_T")


class Device(LeasedDevice):
    """A device that answers; made by `Device.open`, closed by `close` or a `with` block.

    Thread-safe: calls wait for each other, so a measurement never runs beside anything else; only
    `abort` waits for nobody.
    """

    def __init__(
        self,
        description: DeviceDescription,
        session: Session,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        leases: Leases | None = None,
        on_step: Callable[[Step | Sent], object] = silent,
    ) -> None:
        super().__init__(description, clock=clock, leases=leases, on_step=on_step)
        self._session = session
        session.before_call = self._exclusive.check
        session.on_sent = self._on_sent
        self._golden = GoldenRuns(session, description, self._exclusive)
        self._releases = Releases(session, description, self._exclusive)

    @classmethod
    def open(
        cls,
        description: DeviceDescription,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        leases: Leases | None = None,
        on_step: Callable[[Step | Sent], object] = silent,
    ) -> Device:
        """Connect, ship and start the agent, and import the device's default runtime.

        Raises ConfigError, Unreachable, HostKeyError, AuthenticationFailed, LinkLost,
        RuntimeMissing.
        """
        host_clock, pause = transports.time_of(description)
        session = Session(
            description.name,
            lambda: transports.connect(description),
            directory=description.directory,
            clock=host_clock,
            pause=pause,
        )
        device = cls(description, session, clock=clock, leases=leases, on_step=on_step)
        try:
            _ = session.hello
            if description.runtime:
                device.prepare(description.runtime)
        except BaseException:
            session.close()
            raise
        return device

    @property
    def hello(self) -> dict[str, Any]:
        """Facts of the device and the agent, as the agent tells them."""
        return dict(self._session.hello)

    @property
    def digest(self) -> str:
        """Hash of the facts that tell this device from another."""
        return measuring.device_digest(self._session.hello)

    @property
    def is_this_computer(self) -> bool:
        """Whether it runs on this computer's processor with this very Python."""
        device = self._description
        return device.transport == "local" and device.python in ("", sys.executable)

    @property
    def unpacks(self) -> bool:
        """Whether it can unpack what is sent packed: its Python has numpy."""
        return self._session.hello.get("unpacks") is True

    @property
    def releases(self) -> Releases:
        """What is deployed on the device."""
        return self._releases

    def prepare(self, runtime: str) -> None:
        """Import a runtime on the device; raises RuntimeMissing with the command that helps."""
        with self._exclusive.lock:
            measuring.prepare(self._session, runtime, rejoin_s=REJOIN_S)

    def golden(self, *, runtime: str = "", threads: int = 0) -> Golden | Failure | None:
        """Run a runtime's golden model, once as long as this device is open.

        None for a runtime that has none, such as null.
        """
        return self._golden.run(
            runtime or self._description.runtime, threads or self._description.threads
        )

    def sensors(self, *, max_age_s: float = 0.0) -> SensorReading:
        """Read the device's state; raises DeviceError."""
        with self._exclusive.lock:
            return measuring.read_sensors(self._session, max_age_s)

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
        inputs: tuple[Sequence[TensorValue], Sequence[TensorValue]] = ((), ()),
    ) -> Measurement | Failure:
        """Time a model file, interleaved with a reference model if given.

        Empty `runtime` and 0 `threads` mean the device's own. `shapes` are of inputs that the file
        leaves open, `reference_shapes` of those of the reference. `inputs`, of the file and of the
        reference, are (samples, …) each, of which the first sample is run over and over; without
        any they run on seeded values. After a lost link the measurement
        that still runs is joined again; a device that stays away is a retryable Failure. Raises
        ConfigError for a file that is not there.
        """
        paths = [find_model(artifact)] + ([find_model(reference)] if reference else [])
        runtime = runtime or self._description.runtime
        threads = threads or self._description.threads

        def attempt() -> Measurement:
            return measuring.measure(
                self._session,
                self._description,
                paths,
                protocol,
                runtime=runtime,
                threads=threads,
                shapes=(shapes or {}, reference_shapes or {}),
                inputs=inputs,
                tell=self.on_step,
                started_at=self._clock().isoformat(timespec="seconds"),
            )

        return self._exclusive.attempt(attempt)

    def sustain(
        self,
        artifact: str | Path,
        duration_s: float,
        *,
        runtime: str = "",
        threads: int = 0,
        shapes: Shapes | None = None,
        inputs: Sequence[TensorValue] = (),
    ) -> Sustained | Failure:
        """Run a model at full rate for this long; raises ConfigError as `measure` does."""
        if not 0 < duration_s <= sustained.LONGEST_S:
            raise ConfigError(
                f"a sustained run of {duration_s:g} s is not possible; ask for more than 0 s and "
                f"at most {sustained.LONGEST_S / 3600:g} h"
            )
        path = find_model(artifact)
        return self._exclusive.attempt(
            lambda: sustained.run(
                self._session,
                self._description,
                path,
                duration_s,
                runtime=runtime or self._description.runtime,
                threads=threads or self._description.threads,
                shapes=shapes or {},
                inputs=inputs,
                started_at=self._clock().isoformat(timespec="seconds"),
            )
        )

    def per_op(
        self,
        artifact: str | Path,
        *,
        runtime: str = "",
        threads: int = 0,
        shapes: Shapes | None = None,
        inputs: Sequence[TensorValue] = (),
    ) -> OpProfile | Failure:
        """Tell what each op costs, in a pass of its own; raises ConfigError as `measure` does."""
        return self._pass(passes.per_op, artifact, runtime, threads, shapes, inputs)

    def memory(
        self,
        artifact: str | Path,
        *,
        runtime: str = "",
        threads: int = 0,
        shapes: Shapes | None = None,
        inputs: Sequence[TensorValue] = (),
    ) -> MemoryUse | Failure:
        """Tell a model's memory, in a pass of its own; raises ConfigError as `measure` does."""
        return self._pass(passes.memory, artifact, runtime, threads, shapes, inputs)

    def infer(
        self,
        artifact: str | Path,
        inputs: Sequence[TensorValue],
        *,
        runtime: str = "",
        threads: int = 0,
        plain: bool = False,
        timeout_s: float = 300.0,
        shapes: Shapes | None = None,
    ) -> Inference | Failure:
        """Run a model on the device, sample after sample.

        Each input has the shape (samples, …) and per sample exactly the bytes of the model's input,
        which `shapes` gives where the file leaves it open;
        without inputs only the model's metadata come back. `plain` is that of `Runs`. Raises
        ConfigError for a file that is not there.
        """
        path = find_model(artifact)
        how = inference.How(runtime, threads, shapes, plain, timeout_s)

        def attempt() -> Inference:
            model = push_model(self._session, path, rejoin_s=REJOIN_S).call
            return inference.run(self._session, self._description, model, inputs, how)

        # Begun anew after a lost link: outputs do not depend on what else the device did.
        return self._exclusive.attempt(lambda: repeat(self._session, attempt, rejoin_s=REJOIN_S))

    def runs(
        self,
        artifact: str | Path,
        *,
        runtime: str = "",
        threads: int = 0,
        shapes: Shapes | None = None,
    ) -> Runs:
        """Return what runs this model here and raises where `infer` returns a Failure."""

        def run(inputs: Sequence[TensorValue], *, plain: bool = False) -> Inference:
            outcome = self.infer(
                artifact, inputs, runtime=runtime, threads=threads, plain=plain, shapes=shapes
            )
            if isinstance(outcome, Failure):
                raise AgentError(
                    outcome.reason,
                    kind=outcome.kind,
                    retryable=outcome.retryable,
                    detail=outcome.detail,
                )
            return outcome

        return run

    def abort(self) -> None:
        """End the agent, the connection and the running call, from any thread, without waiting.

        The running call and every later one return a Failure or raise LinkLost, and nothing
        connects again; `close` remains to be called. A call that waits for its lease or for the
        device to accept a connection goes on waiting, up to that deadline.
        """
        self._session.abort()

    def close(self) -> None:
        """End the agent and the connection."""
        self._session.close()

    def _pass(
        self,
        run: Callable[..., _T],
        artifact: str | Path,
        runtime: str,
        threads: int,
        shapes: Shapes | None,
        inputs: Sequence[TensorValue],
    ) -> _T | Failure:
        path = find_model(artifact)
        return self._exclusive.attempt(
            lambda: run(
                self._session,
                self._description,
                path,
                runtime=runtime or self._description.runtime,
                threads=threads or self._description.threads,
                shapes=shapes or {},
                inputs=inputs,
            )
        )

    def _device_id(self) -> str:
        hello = repeat(self._session, lambda: self._session.hello, rejoin_s=REJOIN_S)
        return str(hello.get("device_id") or "")
