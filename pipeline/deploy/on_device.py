"""Running and deploying model files on the run's device.

The agent knows nothing of images or classes: this module packs images into the file's own input
format, sends them, and unpacks what comes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.api import Failure, TensorValue
from device_agents.errors import AgentError, DeviceError, VerificationError
from device_agents.refusals import last_words
from pipeline.deploy.outputs import Checked, Samples, check_outputs
from pipeline.export.verify import artifact_io
from pipeline.measure import MODEL_FAULTS

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from device_agents.api import Runs, Shapes
    from device_agents.runner import Device
    from pipeline.context import Context
    from pipeline.outputs import ModelFile

INFER_TIMEOUT_S = 600.0
RELEASE_IMAGES = 32
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


def put_in_use(
    device: Device,
    path: Path,
    name: str,
    version: str,
    *,
    runtime: str,
    threads: int = 0,
    inputs: Samples | None = None,
    shapes: Shapes | None = None,
) -> tuple[str, Checked]:
    """Put a file in use on a device once it computes there what it computes here.

    Args:
        device: where.
        path: the file here.
        name: what it is for.
        version: of the file.
        runtime: of the agent, such as tflite; `threads` 0: the device's own.
        threads: of the runtime.
        inputs: see `check_outputs`.
        shapes: see `check_outputs`.

    Returns:
        Its path on the device, and how its outputs compare.

    Raises:
        DeviceError: it cannot be put or run there.
        VerificationError: it computes something else there. In both cases what was in use stays
            in use.
    """
    examined = device.golden(runtime=runtime, threads=threads)
    found: list[Checked] = []

    def check(run: Runs) -> None:
        found.append(
            check_outputs(
                device,
                path,
                run,
                runtime=runtime,
                examined=examined,
                inputs=inputs,
                shapes=shapes,
            )
        )

    try:
        where = device.deploy(
            path, name, version, check=check, runtime=runtime, threads=threads, shapes=shapes
        )
    except VerificationError as error:
        raise VerificationError(f"{name} {version} was not put in use: {error}") from error
    except AgentError as error:
        if error.kind not in MODEL_FAULTS:
            raise
        said = last_words(error)
        detail = f" ({said})" if said else ""
        raise DeviceError(
            f"{name} {version} was not put in use: it does not run there: {error}{detail}"
        ) from error
    return where, found[-1]


def deploy(ctx: Context, file: ModelFile, name: str, version: str) -> str:
    """Put a run's file in use on its device, checked on real images; return its path there.

    Raises what `put_in_use` raises.
    """
    images = ctx.dataset.at(file.input).validation.images[:RELEASE_IMAGES]
    path, checked = put_in_use(
        ctx.device,
        file.path,
        name,
        version,
        runtime=file.format,
        threads=ctx.profile.threads,
        inputs=[artifact_io(file.path).pack(images)],
    )
    ctx.progress.say(f"on {ctx.device.name} its outputs {checked.words}")
    return path


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

    step = ctx.once("device-classes", inputs, work)
    if "failure" in step.result:
        return Failure(step.result["failure"])
    stored = ctx.store.path(step.artifacts["classes"]).read_bytes()
    return np.frombuffer(stored, _STORED).astype(np.int64)
