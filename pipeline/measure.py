"""Latencies measured on the run's device: each asked once, kept with all raw samples.

A figure of one session says nothing about another night, so measurements are remembered within
their run and not beyond it. Trained networks and exported files are remembered for good.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from device_agents.api import BenchProtocol, Failure, Measurement
from device_agents.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pipeline.context import Context

ATTEMPTS = 3
"""A lost link or an invalid verdict (the board throttled, say) deserves another try; not many."""


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
    runtime = runtime or ctx.runtime
    inputs = {
        **subject,
        "run": ctx.run.id,
        "device": ctx.device.digest,
        "protocol": asdict(protocol),
        "reference": reference_sha256,
        "runtime": runtime,
        "threads": ctx.threads,
    }

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        path = file()
        outcome = _attempt(ctx, path, protocol, reference, runtime)
        if isinstance(outcome, Failure):
            return {"failure": asdict(outcome)}, {}
        ctx.store.add_measurement(outcome, run_id=ctx.run.id)
        return replace(outcome, samples_ns=(), reference_samples_ns=()).to_json(), {}

    result = ctx.once("measure", inputs, work).result
    if "failure" in result:
        return Failure(**result["failure"])
    return Measurement.from_json(result)


def _attempt(
    ctx: Context, path: Path, protocol: BenchProtocol, reference: Path | None, runtime: str
) -> Measurement | Failure:
    """Measure, again if that can help. Raises DeviceError when the device is gone."""
    outcome: Measurement | Failure = Failure("not measured")
    for _ in range(ATTEMPTS):
        outcome = ctx.device.measure(
            path,
            protocol,
            reference=reference,
            runtime=runtime,
            threads=ctx.threads,
        )
        if isinstance(outcome, Failure):
            if not outcome.retryable:
                return outcome
        elif outcome.verdict != "invalid":
            return outcome
        else:
            ctx.store.add_measurement(outcome, run_id=ctx.run.id)
    if isinstance(outcome, Failure):
        raise DeviceError(
            f"device {ctx.device.name!r} failed {ATTEMPTS} times to measure a model: "
            f"{outcome.reason}; what was measured is stored, the same command goes on from there"
        )
    return Failure(f"measurement invalid {ATTEMPTS} times: {'; '.join(outcome.reasons)}")
