"""One device, ready to measure: one measurement at a time, in fresh processes, with a verdict.

Nothing is raised for a candidate that cannot be measured: `measure` and `infer` return a `Failure`.
Opening a device raises, since nothing can be done without it.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from device_agents import golden, inference, transports
from device_agents.api import Failure
from device_agents.errors import (
    AgentError,
    ConfigError,
    DeadlineExceeded,
    DeviceError,
    LinkLost,
)
from device_agents.leased import LeasedDevice, checked_model
from device_agents.measure import measuring, passes, sustained
from device_agents.measure.steps import silent
from device_agents.pushing import push_model
from device_agents.refusals import reading
from device_agents.rejoin import repeated
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

_CALL_TIMEOUT_S = 20.0
_REJOIN_S = 60.0
_PLAIN = {"xnnpack": False, "optimised": False}


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
        session.before_call = self._still_alone
        session.on_sent = self._on_sent
        self._golden: dict[tuple[str, int], Golden] = {}

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

    def prepare(self, runtime: str) -> None:
        """Import a runtime on the device; raises RuntimeMissing with the command that helps."""
        with self._lock:
            measuring.prepare(self._session, runtime, rejoin_s=_REJOIN_S)

    def golden(self, *, runtime: str = "", threads: int = 0) -> Golden | Failure | None:
        """Run a runtime's golden model, once as long as this device is open.

        None for a runtime that has none, such as null.
        """
        runtime = runtime or self._description.runtime
        threads = threads or self._description.threads
        if not golden.known(runtime):
            return None
        key = (runtime, threads)
        if key not in self._golden:

            def attempt() -> Golden:
                return golden.examine(self._session, self._description, runtime, threads)

            found = self._guarded(lambda: repeated(self._session, attempt, rejoin_s=_REJOIN_S))
            if isinstance(found, Failure):
                return found
            self._golden[key] = found
        return self._golden[key]

    def sensors(self, *, max_age_s: float = 0.0) -> SensorReading:
        """Read the device's state; raises DeviceError."""
        with self._lock:
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
    ) -> Measurement | Failure:
        """Time a model file, interleaved with a reference model if given.

        Empty `runtime` and 0 `threads` mean the device's own. `shapes` are of inputs that the file
        leaves open, `reference_shapes` of those of the reference. After a lost link the measurement
        that still runs is joined again; a device that stays away is a retryable Failure. Raises
        ConfigError for a file that is not there.
        """
        paths = [checked_model(artifact)] + ([checked_model(reference)] if reference else [])
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
                tell=self.on_step,
                started_at=self._clock().isoformat(timespec="seconds"),
            )

        return self._guarded(attempt)

    def sustained(
        self,
        artifact: str | Path,
        duration_s: float,
        *,
        runtime: str = "",
        threads: int = 0,
        shapes: Shapes | None = None,
    ) -> Sustained | Failure:
        """Run a model at full rate for this long; raises ConfigError as `measure` does."""
        if not 0 < duration_s <= sustained.LONGEST_S:
            raise ConfigError(
                f"a sustained run of {duration_s:g} s is not possible; ask for more than 0 s and "
                f"at most {sustained.LONGEST_S / 3600:g} h"
            )
        path = checked_model(artifact)
        return self._guarded(
            lambda: sustained.run(
                self._session,
                self._description,
                path,
                duration_s,
                runtime=runtime or self._description.runtime,
                threads=threads or self._description.threads,
                shapes=shapes or {},
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
    ) -> OpProfile | Failure:
        """Tell what each op costs, in a pass of its own; raises ConfigError as `measure` does."""
        return self._pass(passes.per_op, artifact, runtime, threads, shapes)

    def memory(
        self,
        artifact: str | Path,
        *,
        runtime: str = "",
        threads: int = 0,
        shapes: Shapes | None = None,
    ) -> MemoryUse | Failure:
        """Tell a model's memory, in a pass of its own; raises ConfigError as `measure` does."""
        return self._pass(passes.memory, artifact, runtime, threads, shapes)

    def infer(
        self,
        artifact: str | Path,
        inputs: Sequence[TensorValue],
        *,
        runtime: str = "",
        threads: int = 0,
        argmax: bool = False,
        plain: bool = False,
        timeout_s: float = 300.0,
        shapes: Shapes | None = None,
    ) -> Inference | Failure:
        """Run a model on the device, sample after sample.

        Each input has the shape (samples, …) and per sample exactly the bytes of the model's input,
        which `shapes` gives where the file leaves it open;
        without inputs only the model's metadata come back. With `argmax` the outputs are one
        int64 array (samples,); `plain` is that of `Runs`. Raises ConfigError for a file that
        is not there.
        """
        path = checked_model(artifact)

        return self._infer(
            lambda: push_model(self._session, path, rejoin_s=_REJOIN_S).call,
            inputs,
            runtime=runtime,
            threads=threads,
            argmax=argmax,
            plain=plain,
            timeout_s=timeout_s,
            shapes=shapes,
        )

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

    def infer_release(
        self,
        name: str,
        version: str,
        inputs: Sequence[TensorValue],
        *,
        runtime: str = "",
        threads: int = 0,
        argmax: bool = False,
        timeout_s: float = 300.0,
        shapes: Shapes | None = None,
    ) -> Inference | Failure:
        """Run what was deployed as `name`, `version` from where it lies; otherwise as `infer`.

        A file whose bytes are not those that were deployed is not run: `hash_mismatch`.
        """
        return self._infer(
            lambda: {"release": {"name": name, "version": version}},
            inputs,
            runtime=runtime,
            threads=threads,
            argmax=argmax,
            timeout_s=timeout_s,
            shapes=shapes,
        )

    def deploy(
        self,
        artifact: str | Path,
        name: str,
        version: str,
        *,
        check: Callable[[Runs], object],
        runtime: str = "",
        threads: int = 0,
        shapes: Shapes | None = None,
    ) -> str:
        """Put a model in use as `name`, `version`; return its path on the device.

        First it is copied there and its hash compared; then `check` is called with what runs that
        copy; only when it returns is the copy put in use, by one rename. What `check` raises is
        raised on, and what was in use stays in use.

        The same call twice changes nothing, but for a damaged file, which it replaces. Raises
        ConfigError for a file that is not there, AgentError for a bad name or a version that holds
        another model, TransferFailed, LinkLost.
        """
        path = checked_model(artifact)
        size_s = path.stat().st_size / 1e6
        release = {"name": name, "version": version}

        def run(inputs: Sequence[TensorValue], *, plain: bool = False) -> Inference:
            return self._run(
                {"staged": release},
                inputs,
                runtime=runtime,
                threads=threads,
                plain=plain,
                shapes=shapes,
            )

        def attempt() -> dict[str, Any]:
            self._session.call(
                "stage",
                timeout_s=_CALL_TIMEOUT_S + size_s,
                sha256=self._session.push(path),
                **release,
                extension=path.suffix.lstrip(".") or "bin",
            )
            try:
                check(run)
                return self._session.call("activate", timeout_s=_CALL_TIMEOUT_S + size_s, **release)
            except BaseException as error:
                # What is staged goes with the agent, too; a lost link has ended it.
                if not isinstance(error, (LinkLost, DeadlineExceeded)):
                    with suppress(DeviceError):
                        self._session.call("unstage", timeout_s=_CALL_TIMEOUT_S, **release)
                raise

        # Writing, hashing and running a file would disturb a measurement.
        with self._lock, self._lease():
            answer = repeated(self._session, attempt, rejoin_s=_REJOIN_S)
        with reading(self.name, "activate"):
            return str(answer["path"])

    def releases(self) -> list[dict[str, Any]]:
        """Return what is deployed: name, version, sha256, file, current."""
        with self._lock:
            answer = self._session.call("releases", timeout_s=_CALL_TIMEOUT_S)
        with reading(self.name, "releases"):
            return [dict(item) for item in answer["releases"]]

    def rollback(self, name: str, version: str | None = None) -> str:
        """Make `version`, or the release before the current one, current; return it."""
        with self._lock:
            answer = self._session.call(
                "rollback", timeout_s=_CALL_TIMEOUT_S, name=name, version=version
            )
        with reading(self.name, "rollback"):
            return str(answer["current"])

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
    ) -> _T | Failure:
        path = checked_model(artifact)
        return self._guarded(
            lambda: run(
                self._session,
                self._description,
                path,
                runtime=runtime or self._description.runtime,
                threads=threads or self._description.threads,
                shapes=shapes or {},
            )
        )

    def _infer(
        self,
        model: Callable[[], dict[str, Any]],
        inputs: Sequence[TensorValue],
        *,
        runtime: str,
        threads: int,
        argmax: bool,
        timeout_s: float,
        shapes: Shapes | None,
        plain: bool = False,
    ) -> Inference | Failure:
        def attempt() -> Inference:
            return self._run(
                model(),
                inputs,
                runtime=runtime,
                threads=threads,
                argmax=argmax,
                plain=plain,
                shapes=shapes,
                timeout_s=timeout_s,
            )

        # Begun anew after a lost link: outputs do not depend on what else the device did.
        return self._guarded(lambda: repeated(self._session, attempt, rejoin_s=_REJOIN_S))

    def _run(
        self,
        model: dict[str, Any],
        inputs: Sequence[TensorValue],
        *,
        runtime: str,
        threads: int,
        plain: bool,
        argmax: bool = False,
        shapes: Shapes | None = None,
        timeout_s: float = 300.0,
    ) -> Inference:
        """Run a model once, under a lease that is held already; raises DeviceError."""
        how = measuring.how_to_run(
            self._description,
            runtime or self._description.runtime,
            threads or self._description.threads,
            shapes or {},
        )
        return inference.run(
            self._session,
            model,
            inputs,
            timeout_s=timeout_s + measuring.GRACE_S,
            **{**how, **(_PLAIN if plain else {})},
            argmax=argmax,
            deadline_s=timeout_s,
        )

    def _device_id(self) -> str:
        hello = repeated(self._session, lambda: self._session.hello, rejoin_s=_REJOIN_S)
        return str(hello.get("device_id") or "")
