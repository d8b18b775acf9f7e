"""The files a run gives its user: exported models beside the store, under readable names."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from models.fold import fold
from models.graph import lower
from pipeline.compress.ptq import calibrate, spread
from pipeline.export.verify import Verification, encode_verified
from pipeline.files import write_whole
from pipeline.kernels import exporter_for
from pipeline.store import StoreError
from pipeline.store.errors import file_sentence
from pipeline.train.loop import logits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from models.network import Network
    from pipeline.context import Context


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One exported and verified file.

    Attributes:
        network: winner | baseline | another name of a network within the run.
        format: tflite | onnx.
        scheme: float32 | static8.
        input: size of the images it reads: (height, width, channels).
        verification: against torch and its own arithmetic, on the validation images.
    """

    network: str
    format: str
    scheme: str
    input: tuple[int, int, int]
    path: Path
    sha256: str
    bytes: int
    verification: Verification

    @property
    def accuracy(self) -> float:
        """Accuracy (0..1) of the file on the validation split."""
        if self.verification.accuracy is None:
            raise ValueError(f"{self.path.name} was verified without labels")
        return self.verification.accuracy


def folder(ctx: Context) -> Path:
    """Return the folder of the run's files, made if need be. Raises StoreError."""
    path = ctx.store.artifacts.folder.parent / "runs" / ctx.run.id
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(file_sentence(str(path), error)) from error
    return path


def save(ctx: Context, network: Network, name: str) -> Path:
    """Write a network under a readable name, for `edgewright export` and `verify`."""
    path = folder(ctx) / f"{name}.npz"
    network.save(path)
    return path


def export(ctx: Context, network: Network, name: str, format_: str, scheme: str) -> ModelFile:
    """Export a network and verify the file in its own runtime, unless that has been done.

    Raises:
        ExportError: the format cannot express an op of the network.
        VerificationError: the file does not compute what the network computes.
    """
    exporter = exporter_for(ctx, format_, scheme)
    calibration = ctx.recipe.quantize.calibration_images
    inputs = {
        "network": network.digest(),
        "format": format_,
        "scheme": scheme,
        "data": ctx.dataset_digest,
        "calibration_images": calibration if scheme == "static8" else 0,
        "int8_form": exporter.int8_form if scheme == "static8" else "",
    }
    file_name = f"{name}-{scheme}{exporter.suffix}"

    def work() -> tuple[dict[str, Any], Mapping[str, str]]:
        graph, dataset = lower(network.spec), ctx.dataset.at(network.spec.input)
        weights, quantization = fold(network), None
        if scheme == "static8":
            quantization = calibrate(graph, weights, spread(dataset.train.images, calibration))
        split = dataset.validation
        truth = logits(network.module, split.images)
        data, found = encode_verified(
            exporter,
            file_name,
            graph,
            weights,
            quantization,
            split.images,
            truth,
            split.labels,
        )
        return asdict(found), {"model": ctx.store.put_bytes(data)}

    step = ctx.once("export", inputs, work)
    sha256 = step.artifacts["model"]
    data = ctx.store.path(sha256).read_bytes()
    path = folder(ctx) / file_name
    if not path.is_file() or path.read_bytes() != data:
        write_whole(path, data)
    found = Verification.from_json(step.result)
    return ModelFile(name, format_, scheme, network.spec.input, path, sha256, len(data), found)
