"""What a model file gives on a device: outputs, and what a task's answers they are.

The agent knows nothing of images or classes: images are packed into the file's own input format,
sent, and what comes back is unpacked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.api import Failure, TensorValue
from device_agents.errors import DeviceError
from pipeline.formats.files import describe_file
from pipeline.measure.bench import MODEL_FAULTS
from pipeline.store.memo import StepKind

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from device_agents.runner import Device
    from pipeline.data.api import Data
    from pipeline.formats.written_file import WrittenFile
    from pipeline.measure.bench import DeviceBench

DEVICE_CLASSES = StepKind("device-classes")

INFER_TIMEOUT_S = 600.0
_STORED = "<i4"
"""Of answers (classes), as an artifact."""


def infer_outputs(
    device: Device,
    path: Path,
    images: npt.NDArray[np.float32],
    *,
    runtime: str,
    threads: int,
) -> npt.NDArray[np.float32] | Failure:
    """Run a model on the device over images (N, C, H, W); return its outputs (N, classes).

    Args:
        device: where.
        path: the model file.
        images: float32.
        runtime: `tflite` or `onnx`.
        threads: of the runtime.
    """
    io = describe_file(path)
    packed = io.pack(images)
    sent = [TensorValue(packed.dtype.name, packed.shape, packed.tobytes())]
    how: dict[str, Any] = {"runtime": runtime, "threads": threads, "timeout_s": INFER_TIMEOUT_S}
    outcome = device.infer(path, sent, **how)
    if isinstance(outcome, Failure):
        return outcome
    value = outcome.outputs[0]
    raw = np.frombuffer(value.data, np.dtype(value.dtype)).reshape(value.shape)
    return io.unpack(raw.reshape(len(images), -1))


def infer_answers(
    bench: DeviceBench, file: WrittenFile, data: Data
) -> npt.NDArray[np.int64] | Failure:
    """Return what a file, run on the device, answers to each test sample (N,); once a run.

    Raises:
        DeviceError: the device or the link is at fault, not the model.
    """
    split, store = data.at(file.input).test, bench.memo.store
    inputs = {
        "model": file.sha256,
        "data": data.digest,
        "images": len(split),
        "device": bench.digest,
        "runtime": file.format,
        "threads": bench.profile.threads,
        "run": bench.run_id,
    }

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        found = infer_outputs(
            bench.device,
            file.path,
            np.asarray(split.images),
            runtime=file.format,
            threads=bench.profile.threads,
        )
        if isinstance(found, Failure):
            if found.kind not in MODEL_FAULTS and found.kind != "runtime_missing":
                raise DeviceError(
                    f"device {bench.name!r} cannot run {file.path.name}: {found.reason}; "
                    "what was measured is stored, the same command goes on from there"
                )
            return {"failure": found.reason}, {}
        answers = data.task.answers(found)
        accuracy = float(data.task.right(answers, np.asarray(split.labels)).mean())
        kept = store.put_bytes(answers.astype(_STORED).tobytes())
        return {"accuracy": accuracy}, {"classes": kept}

    step = bench.memo.once(DEVICE_CLASSES, inputs, work)
    if "failure" in step.result:
        return Failure(step.result["failure"])
    stored = store.path(step.artifacts["classes"]).read_bytes()
    return np.frombuffer(stored, _STORED).astype(np.int64)
