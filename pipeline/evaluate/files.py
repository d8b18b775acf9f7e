"""The files a run gives its user: exported models beside the store, under readable names."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from device_agents.files import write_whole
from models.number_format import NumberFormat
from pipeline.compress.api import Needs
from pipeline.compress.chain import apply_passes, plan_quantization, to_model
from pipeline.formats.model_file import ModelFile
from pipeline.formats.verify import Verification, write_verified
from pipeline.measure.kernels import exporter_for
from pipeline.store.memo import StepKind
from pipeline.store.run_folder import run_folder
from pipeline.train.loop import logits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from models.network import Network
    from pipeline.measure.context import Context


EXPORT = StepKind("export")


def save(ctx: Context, network: Network, name: str) -> Path:
    """Write a network under a readable name, for `edgewright export` and `verify`."""
    path = run_folder(ctx.store, ctx.run) / f"{name}.npz"
    network.save(path)
    return path


def export(ctx: Context, network: Network, name: str, format_: str, scheme: str) -> ModelFile:
    """Export a network and verify the file in its own runtime, unless that has been done.

    Raises:
        ExportError: the format cannot express an op of the network.
        VerificationError: the file does not compute what the network computes.
    """
    exporter, number_format = exporter_for(ctx, format_, scheme), NumberFormat.parse(scheme)
    calibration = ctx.recipe.quantize.calibration_images
    passes = plan_quantization(number_format, images=calibration)
    inputs = {
        "network": network.digest(),
        "format": format_,
        "scheme": scheme,
        "data": ctx.dataset_digest,
        "calibration_images": calibration if number_format.is_static else 0,
        "int8_form": exporter.int8_form if number_format.is_static else "",
        # A first version goes without saying, as in the keys of stores that know of no passes.
        **{f"pass {step.name}": step.version for step in passes if step.version > 1},
    }
    file_name = f"{name}-{scheme}{exporter.suffix}"

    def work() -> tuple[dict[str, Any], Mapping[str, str]]:
        dataset = ctx.dataset.at(network.spec.input)
        model = to_model(apply_passes(network, passes, Needs(dataset.train.images)))
        split = dataset.validation
        truth = logits(network.module, split.images)
        data, found = write_verified(exporter, file_name, model, split.images, truth, split.labels)
        return asdict(found), {"model": ctx.store.put_bytes(data)}

    step = ctx.memo.once(EXPORT, inputs, work)
    sha256 = step.artifacts["model"]
    data = ctx.store.path(sha256).read_bytes()
    path = run_folder(ctx.store, ctx.run) / file_name
    if not path.is_file() or path.read_bytes() != data:
        write_whole(path, data)
    found = Verification.from_json(step.result)
    return ModelFile(name, format_, scheme, network.spec.input, path, sha256, len(data), found)
