"""One device in a run: each latency is asked once and kept with all raw samples.

A figure of one session says nothing about another night, so measurements are remembered within
their run and not beyond it. Trained networks and exported files are remembered for good.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable  # noqa: TC003 - of a dataclass
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from device_agents.api import BenchProtocol, Failure, Measurement
from device_agents.errors import DeviceError
from pipeline.store.memo import StepKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from device_agents.api import Shapes, TensorValue
    from device_agents.runner import Device
    from pipeline.store.events import Events
    from pipeline.store.memo import Memo
    from profiles.schema import DeviceProfile

    Inputs = tuple[Sequence[TensorValue], Sequence[TensorValue]]

MEASURE = StepKind("measure")


MODEL_FAULTS = ("load_failed", "invoke_failed", "crashed", "timeout", "not_delegated")
"""Kinds of failure that are the model's own; all others are the device's or the link's."""

PAUSES_S = (2.0, 10.0)
ATTEMPTS = len(PAUSES_S) + 1
"""A lost link or an invalid verdict (the board throttled, say) deserves another try; not many."""


class HashedFile(Protocol):
    """A model file whose hash is known."""

    @property
    def path(self) -> Path:
        """Where it is here."""

    @property
    def sha256(self) -> str:
        """Of its content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBench:
    """A device that measures for a run, and the memory of what it measured.

    Attributes:
        digest: tells this device from another, also when it does not answer any more.
        profile: the device's, with the runtime and the threads of the run.
        memo: remembers; its store takes every measurement, repeats and invalid ones too.
        run_id: within which a measurement stands for the next one of the same thing.
        events: is told how far it is.
        pause: sleeps, in seconds; before another try at a device that did not answer.
    """

    device: Device
    digest: str
    profile: DeviceProfile
    memo: Memo
    run_id: str
    events: Events
    pause: Callable[[float], None] = time.sleep

    @property
    def name(self) -> str:
        """The user's name of the device."""
        return self.device.name

    def measure(
        self,
        subject: Mapping[str, Any],
        file: Callable[[], Path],
        *,
        protocol: BenchProtocol,
        beside: HashedFile | None = None,
        runtime: str = "",
        shapes: tuple[Shapes, Shapes] = ({}, {}),
        inputs: Inputs = ((), ()),
    ) -> Measurement | Failure:
        """Measure a model file, in turns with another, unless this run has done so.

        Args:
            subject: what is measured, as JSON values: the same subject is never measured twice.
            file: gives the model file; only called when there is something to measure.
            protocol: how.
            beside: the file that it is timed in turns with, if any.
            runtime: `tflite` or `onnx`; empty means the run's.
            shapes: of what the file leaves open, and of what the one beside it does.
            inputs: what both run on, as `Device.measure` takes it.

        Returns:
            The measurement (raw samples are in the store, not in it), or why there is none.

        Raises:
            DeviceError: the device stopped answering; the same command goes on later.
        """
        runtime = runtime or self.profile.runtime
        key = {
            **subject,
            "run": self.run_id,
            "device": self.digest,
            "protocol": asdict(protocol),
            "reference": None if beside is None else beside.sha256,
            "runtime": runtime,
            "threads": self.profile.threads,
            "cpus": list(self.profile.cpus),
            **({"shapes": [dict(given) for given in shapes]} if any(shapes) else {}),
            **({"inputs": _hashes(inputs)} if any(inputs) else {}),
        }

        def work() -> tuple[dict[str, Any], dict[str, str]]:
            reference = None if beside is None else beside.path
            outcome = self._attempt(file(), protocol, reference, runtime, shapes, inputs)
            if isinstance(outcome, Failure):
                return {"failure": asdict(outcome)}, {}
            self.memo.store.add_measurement(outcome, run_id=self.run_id)
            return replace(outcome, samples_ns=(), reference_samples_ns=()).to_json(), {}

        try:
            result = self.memo.once(MEASURE, key, work).result
        except _InvalidError as error:
            return Failure(str(error), retryable=True)
        if "failure" in result:
            return Failure(**result["failure"])
        return Measurement.from_json(result)

    def _attempt(
        self,
        path: Path,
        protocol: BenchProtocol,
        reference: Path | None,
        runtime: str,
        shapes: tuple[Shapes, Shapes],
        inputs: Inputs,
    ) -> Measurement | Failure:
        """Measure, again if that can help.

        A model that the runtime refuses, or that crashes it every time, is a Failure to remember. A
        device or link at fault is not the model's fault: DeviceError.
        """
        outcome: Measurement | Failure = Failure("not measured")
        for attempt in range(ATTEMPTS):
            outcome = self.device.measure(
                path,
                protocol,
                reference=reference,
                runtime=runtime,
                threads=self.profile.threads,
                shapes=shapes[0],
                reference_shapes=shapes[1],
                inputs=inputs,
            )
            if isinstance(outcome, Measurement):
                if outcome.verdict != "invalid":
                    return outcome
                self.memo.store.add_measurement(outcome, run_id=self.run_id)
            elif not outcome.retryable:
                break
            elif outcome.kind not in MODEL_FAULTS and attempt + 1 < ATTEMPTS:
                self.pause(PAUSES_S[attempt])
        if isinstance(outcome, Measurement):
            reasons = "; ".join(outcome.reasons)
            raise _InvalidError(f"measurement invalid {ATTEMPTS} times: {reasons}")
        if outcome.kind in MODEL_FAULTS:
            return outcome
        raise DeviceError(
            f"device {self.name!r} cannot measure any more: {outcome.reason.rstrip('.')}; "
            "what was measured is stored, the same command goes on from there"
        )


def _hashes(inputs: Inputs) -> list[list[str]]:
    return [[hashlib.sha256(value.data).hexdigest() for value in values] for values in inputs]


class _InvalidError(Exception):
    """Every attempt was invalid: the device's state, not the model, so nothing to remember."""


def choose_protocol(word: str) -> BenchProtocol:
    """Return the protocol of the figures that are shown: `thorough` or `quick` ([device])."""
    return BenchProtocol.quick() if word == "quick" else BenchProtocol.thorough()
