"""Running and deploying model files on the run's device.

The agent knows nothing of images or classes: this module packs images into the file's own input
format, sends them, and unpacks what comes back.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.api import Failure, TensorValue
from pipeline.export.verify import artifact_io

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from device_agents.runner import Device
    from pipeline.context import Context
    from pipeline.data.api import Split

INFER_TIMEOUT_S = 600.0


def device_logits(
    device: Device, path: Path, images: npt.NDArray[np.float32], *, runtime: str, threads: int
) -> npt.NDArray[np.float32] | Failure:
    """Run a model file on the device over images (N, C, H, W); return logits (N, classes)."""
    io = artifact_io(path)
    packed = io.pack(images)
    sent = TensorValue(packed.dtype.name, packed.shape, packed.tobytes())
    outcome = device.infer(
        path, [sent], runtime=runtime, threads=threads, timeout_s=INFER_TIMEOUT_S
    )
    if isinstance(outcome, Failure):
        return outcome
    value = outcome.outputs[0]
    raw = np.frombuffer(value.data, np.dtype(value.dtype)).reshape(value.shape)
    return io.unpack(raw.reshape(len(images), -1))


def device_accuracy(ctx: Context, path: Path, split: Split, runtime: str) -> float | Failure:
    """Return the accuracy (0..1) of a file run on the device over a split, asked once a run."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    inputs = {
        "model": sha256,
        "images": hashlib.sha256(split.images.tobytes()).hexdigest(),
        "device": ctx.device.digest,
        "runtime": runtime,
        "run": ctx.run.id,
    }

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        found = device_logits(ctx.device, path, split.images, runtime=runtime, threads=ctx.threads)
        if isinstance(found, Failure):
            return {"failure": found.reason}, {}
        return {"accuracy": float((found.argmax(1) == split.labels).mean())}, {}

    result = ctx.once("device-accuracy", inputs, work).result
    return Failure(result["failure"]) if "failure" in result else float(result["accuracy"])
