"""Putting model files in use on a device: once they compute there what they compute here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_agents.delivery import Parcel
from device_agents.errors import AgentError, DeviceError, VerificationError
from device_agents.refusals import last_words
from pipeline.formats.files import describe_file
from pipeline.measure.bench import MODEL_FAULTS
from pipeline.measure.output_check import Checked, check_outputs

if TYPE_CHECKING:
    from pathlib import Path

    from device_agents.api import Runs, Shapes
    from device_agents.runner import Device
    from pipeline.data.api import Data
    from pipeline.formats.written_file import WrittenFile
    from pipeline.measure.agreement import Samples
    from pipeline.measure.bench import DeviceBench

RELEASE_IMAGES = 32


def put_in_use(
    device: Device,
    artifact: Path | Parcel,
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
        artifact: the file here; a parcel, if it is to be sent packed.
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
    parcel = Parcel.of(artifact)

    def check(run: Runs) -> None:
        found.append(
            check_outputs(
                device,
                parcel.path,
                run,
                runtime=runtime,
                examined=examined,
                inputs=inputs,
                shapes=shapes,
            )
        )

    try:
        where = device.releases.deploy(
            parcel, name, version, check=check, runtime=runtime, threads=threads, shapes=shapes
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


def deploy(bench: DeviceBench, file: WrittenFile, *, data: Data, name: str, version: str) -> str:
    """Put a run's file in use on its device, checked on real images; return its path there.

    Raises what `put_in_use` raises.
    """
    images = data.at(file.input).validation.images[:RELEASE_IMAGES]
    path, checked = put_in_use(
        bench.device,
        file.path,
        name,
        version,
        runtime=file.format,
        threads=bench.profile.threads,
        inputs=[describe_file(file.path).pack(images)],
    )
    bench.events.say(f"on {bench.name} its outputs {checked.words}")
    return path
