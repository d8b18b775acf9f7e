"""Latencies measured on the run's device: each asked once, kept with all raw samples.

A figure of one session says nothing about another night, so measurements are remembered within
their run and not beyond it. Trained networks and exported files are remembered for good.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from device_agents.api import BenchProtocol, Failure, Measurement
from device_agents.errors import DeviceError
from pipeline.store.memo import StepKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pipeline.measure.context import Context

MEASURE = StepKind("measure")


MODEL_FAULTS = ("load_failed", "invoke_failed", "crashed", "timeout", "not_delegated")
"""Kinds of failure that are the model's own; all others are the device's or the link's."""

PAUSES_S = (2.0, 10.0)
ATTEMPTS = len(PAUSES_S) + 1
"""A lost link or an invalid verdict (the board throttled, say) deserves another try; not many."""


def shown_protocol(ctx: Context) -> BenchProtocol:
    """Return the protocol of the figures that a run shows, as its recipe asks."""
    quick = ctx.recipe.device.protocol == "quick"
    return BenchProtocol.quick() if quick else BenchProtocol.thorough()


def measure(
    ctx: Context,
    subject: Mapping[str, Any],
    file: Callable[[], Path],
    protocol: BenchProtocol,
    *,
    reference: Path | None = None,
    reference_sha256: str | None = None,
    runtime: str = "",
) -> Measurement | Failure:
    """Measure a model file, interleaved with a reference, unless this run has done so.

    Args:
        ctx: the run.
        subject: what is measured, as JSON values: the same subject is never measured twice.
        file: gives the model file; only called when there is something to measure.
        protocol: how.
        reference: the reference model's file.
        reference_sha256: its hash.
        runtime: `tflite` or `onnx`; empty means the run's.

    Returns:
        The measurement (raw samples are in the store, not in it), or why there is none.

    Raises:
        DeviceError: the device stopped answering; the same command goes on later.
    """
    runtime = runtime or ctx.profile.runtime
    inputs = {
        **subject,
        "run": ctx.run.id,
        "device": ctx.device_digest,
        "protocol": asdict(protocol),
        "reference": reference_sha256,
        "runtime": runtime,
        "threads": ctx.profile.threads,
        "cpus": list(ctx.profile.cpus),
    }

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        outcome = _attempt(ctx, file(), protocol, reference, runtime)
        if isinstance(outcome, Failure):
            return {"failure": asdict(outcome)}, {}
        ctx.store.add_measurement(outcome, run_id=ctx.run.id)
        return replace(outcome, samples_ns=(), reference_samples_ns=()).to_json(), {}

    try:
        result = ctx.memo.once(MEASURE, inputs, work).result
    except _InvalidError as error:
        return Failure(str(error), retryable=True)
    if "failure" in result:
        return Failure(**result["failure"])
    return Measurement.from_json(result)


class _InvalidError(Exception):
    """Every attempt was invalid: the device's state, not the model, so nothing to remember."""


def _attempt(
    ctx: Context, path: Path, protocol: BenchProtocol, reference: Path | None, runtime: str
) -> Measurement | Failure:
    """Measure, again if that can help.

    A model that the runtime refuses, or that crashes it every time, is a Failure to remember. A
    device or link at fault is not the model's fault: DeviceError.
    """
    outcome: Measurement | Failure = Failure("not measured")
    for attempt in range(ATTEMPTS):
        outcome = ctx.device.measure(
            path,
            protocol,
            reference=reference,
            runtime=runtime,
            threads=ctx.profile.threads,
        )
        if isinstance(outcome, Measurement):
            if outcome.verdict != "invalid":
                return outcome
            ctx.store.add_measurement(outcome, run_id=ctx.run.id)
        elif not outcome.retryable:
            break
        elif outcome.kind not in MODEL_FAULTS and attempt + 1 < ATTEMPTS:
            ctx.pause(PAUSES_S[attempt])
    if isinstance(outcome, Measurement):
        reasons = "; ".join(outcome.reasons)
        raise _InvalidError(f"measurement invalid {ATTEMPTS} times: {reasons}")
    if outcome.kind in MODEL_FAULTS:
        return outcome
    raise DeviceError(
        f"device {ctx.device.name!r} cannot measure any more: {outcome.reason.rstrip('.')}; "
        "what was measured is stored, the same command goes on from there"
    )
