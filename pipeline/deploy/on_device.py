"""Running and deploying model files on the run's device.

The agent knows nothing of images or classes: this module packs images into the file's own input
format, sends them, and unpacks what comes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.api import Failure, TensorValue
from device_agents.errors import DeviceError
from pipeline.export.verify import artifact_io, check, compare, run_artifact
from pipeline.measure import MODEL_FAULTS

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from device_agents.runner import Device
    from pipeline.context import Context
    from pipeline.outputs import ModelFile

INFER_TIMEOUT_S = 600.0
RELEASE_IMAGES = 32


def device_logits(
    device: Device,
    path: Path,
    images: npt.NDArray[np.float32],
    *,
    runtime: str,
    threads: int,
    release: tuple[str, str] | None = None,
) -> npt.NDArray[np.float32] | Failure:
    """Run a model on the device over images (N, C, H, W); return logits (N, classes).

    Args:
        device: where.
        path: the model file; with `release` only its input and output formats are read here.
        images: float32.
        runtime: `tflite` or `onnx`.
        threads: of the runtime.
        release: name and version of what was deployed: run that file, from where it lies there.
    """
    io = artifact_io(path)
    packed = io.pack(images)
    sent = [TensorValue(packed.dtype.name, packed.shape, packed.tobytes())]
    how: dict[str, Any] = {"runtime": runtime, "threads": threads, "timeout_s": INFER_TIMEOUT_S}
    if release is None:
        outcome = device.infer(path, sent, **how)
    else:
        outcome = device.infer_release(*release, sent, **how)
    if isinstance(outcome, Failure):
        return outcome
    value = outcome.outputs[0]
    raw = np.frombuffer(value.data, np.dtype(value.dtype)).reshape(value.shape)
    return io.unpack(raw.reshape(len(images), -1))


def deploy(ctx: Context, file: ModelFile, name: str, version: str) -> str:
    """Put a file in use on the device, run it from there, and return its path there.

    Raises:
        DeviceError: it cannot be put or run there.
        VerificationError: there it does not compute what it computes here.
    """
    path = ctx.device.deploy(file.path, name, version)
    images = ctx.dataset.at(file.input).validation.images[:RELEASE_IMAGES]
    there = device_logits(
        ctx.device,
        file.path,
        images,
        runtime=file.format,
        threads=ctx.profile.threads,
        release=(name, version),
    )
    if isinstance(there, Failure):
        raise DeviceError(f"{name} {version} is deployed but does not run: {there.reason}")
    # Kernels differ between processors by a few codes, so the limits are those of quantisation.
    check(compare(run_artifact(file.path, images), there), "static8", f"{name} {version}")
    return path


def device_accuracy(ctx: Context, file: ModelFile) -> float | Failure:
    """Return the accuracy (0..1) of a file run on the device over the test split, once a run.

    Raises:
        DeviceError: the device or the link is at fault, not the model.
    """
    split = ctx.dataset.at(file.input).test
    inputs = {
        "model": file.sha256,
        "data": ctx.dataset_digest,
        "images": len(split),
        "device": ctx.device_digest,
        "runtime": file.format,
        "threads": ctx.profile.threads,
        "run": ctx.run.id,
    }

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        found = device_logits(
            ctx.device, file.path, split.images, runtime=file.format, threads=ctx.profile.threads
        )
        if isinstance(found, Failure):
            if found.kind not in MODEL_FAULTS and found.kind != "runtime_missing":
                raise DeviceError(
                    f"device {ctx.device.name!r} cannot run {file.path.name}: {found.reason}; "
                    "what was measured is stored, the same command goes on from there"
                )
            return {"failure": found.reason}, {}
        return {"accuracy": float((found.argmax(1) == split.labels).mean())}, {}

    result = ctx.once("device-accuracy", inputs, work).result
    return Failure(result["failure"]) if "failure" in result else float(result["accuracy"])
