"""What a model file gives on a device: logits, and the classes that they name.

The agent knows nothing of images or classes: images are packed into the file's own input format,
sent, and what comes back is unpacked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.api import Failure, TensorValue
from device_agents.errors import DeviceError
from pipeline.formats.verify import artifact_io
from pipeline.measure.latency import MODEL_FAULTS
from pipeline.store.memo import StepKind

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from device_agents.runner import Device
    from pipeline.formats.model_file import ModelFile
    from pipeline.measure.context import Context

DEVICE_CLASSES = StepKind("device-classes")

INFER_TIMEOUT_S = 600.0
_STORED = "<i4"
"""Of the classes that a file names, as an artifact."""


def device_logits(
    device: Device,
    path: Path,
    images: npt.NDArray[np.float32],
    *,
    runtime: str,
    threads: int,
) -> npt.NDArray[np.float32] | Failure:
    """Run a model on the device over images (N, C, H, W); return logits (N, classes).

    Args:
        device: where.
        path: the model file.
        images: float32.
        runtime: `tflite` or `onnx`.
        threads: of the runtime.
    """
    io = artifact_io(path)
    packed = io.pack(images)
    sent = [TensorValue(packed.dtype.name, packed.shape, packed.tobytes())]
    how: dict[str, Any] = {"runtime": runtime, "threads": threads, "timeout_s": INFER_TIMEOUT_S}
    outcome = device.infer(path, sent, **how)
    if isinstance(outcome, Failure):
        return outcome
    value = outcome.outputs[0]
    raw = np.frombuffer(value.data, np.dtype(value.dtype)).reshape(value.shape)
    return io.unpack(raw.reshape(len(images), -1))


def device_classes(ctx: Context, file: ModelFile) -> npt.NDArray[np.int64] | Failure:
    """Return the class (N,) that a file, run on the device, names each test image; once a run.

    It is -1 where the outputs are not numbers.

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
        named = np.where(np.isfinite(found).all(1), found.argmax(1), -1).astype(_STORED)
        accuracy = float((named == split.labels).mean())
        return {"accuracy": accuracy}, {"classes": ctx.store.put_bytes(named.tobytes())}

    step = ctx.memo.once(DEVICE_CLASSES, inputs, work)
    if "failure" in step.result:
        return Failure(step.result["failure"])
    stored = ctx.store.path(step.artifacts["classes"]).read_bytes()
    return np.frombuffer(stored, _STORED).astype(np.int64)
