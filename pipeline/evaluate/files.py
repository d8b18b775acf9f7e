"""The files a run gives its user: exported models beside the store, under readable names."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from device_agents.files import write_whole
from pipeline.compress.api import Needs
from pipeline.compress.chain import apply_passes, plan_quantization, to_model
from pipeline.formats.figures import Verification
from pipeline.formats.verify import write_verified
from pipeline.formats.written_file import WrittenFile
from pipeline.measure.kernels import choose_format
from pipeline.store.memo import StepKind
from pipeline.train.loop import predict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from models.network import Network
    from pipeline.data.api import Data
    from pipeline.measure.bench import DeviceBench
    from pipeline.measure.form import Form


EXPORT = StepKind("export")


@dataclass(frozen=True, slots=True)
class Exports:
    """Where a run's files go, and what they are verified with.

    Attributes:
        folder: of the run.
        bench: the device that they are for.
        data: calibrates on training images, verifies on validation images.
        calibration_images: how many.
    """

    folder: Path
    bench: DeviceBench
    data: Data
    calibration_images: int


def save(network: Network, name: str, *, to: Exports) -> Path:
    """Write a network under a readable name, for `edgewright export` and `verify`."""
    path = to.folder / f"{name}.npz"
    network.save(path)
    return path


def export(network: Network, name: str, *, form: Form, to: Exports) -> WrittenFile:
    """Export a network and verify the file in its own runtime, unless that has been done.

    Args:
        network: trained.
        name: winner | baseline | another name within the run.
        form: format and number format.
        to: where it goes.

    Raises:
        ExportError: the format cannot express an op of the network.
        VerificationError: the file does not compute what the network computes.
    """
    format_, number_format = choose_format(to.bench, form), form.number_format
    calibration, store = to.calibration_images, to.bench.memo.store
    passes = plan_quantization(number_format, images=calibration)
    inputs = {
        "network": network.digest(),
        "format": form.runtime,
        "scheme": str(number_format),
        "data": to.data.digest,
        "calibration_images": calibration if number_format.is_static else 0,
        "int8_form": format_.int8_form if number_format.is_static else "",
        # A first version goes without saying, as in the keys of stores that know of no passes.
        **{f"pass {step.name}": step.version for step in passes if step.version > 1},
    }
    file_name = f"{name}-{number_format}{format_.suffix}"

    def work() -> tuple[dict[str, Any], Mapping[str, str]]:
        dataset = to.data.at(network.spec.input)
        needs = Needs(dataset.train.arrays(calibration)[0])
        model = dataset.describe(to_model(apply_passes(network, passes, needs)))
        images, labels = dataset.validation.arrays()
        truth = predict(network.module, images)
        data, found = write_verified(
            format_, file_name, model, images, truth, labels, task=to.data.task
        )
        return asdict(found), {"model": store.put_bytes(data)}

    step = to.bench.memo.once(EXPORT, inputs, work)
    sha256 = step.artifacts["model"]
    data = store.path(sha256).read_bytes()
    path = to.folder / file_name
    if not path.is_file() or path.read_bytes() != data:
        write_whole(path, data)
    found = Verification.from_json(step.result)
    return WrittenFile(
        name, form.runtime, number_format, network.spec.input, path, sha256, len(data), found
    )
