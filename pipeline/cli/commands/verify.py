"""edgewright verify: does a file compute what its network computes?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from device_agents.errors import VerificationError
from pipeline.cli.options import JSON, print_json, waiting


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--network",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="The network that the file was exported from.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="RECIPE",
    help="Compare on the validation images of this recipe instead of random ones.",
)
@JSON
def command(*, model: Path, network: Path, data: Path | None, as_json: bool) -> None:
    """Run MODEL in its own runtime on this computer and compare it with its network.

    A file that misses the limits of its number format ends with exit code 5.
    """
    from pipeline.export.verify import artifact_io

    # Before torch is imported, which takes seconds.
    artifact_io(model)
    from models.network import Network
    from pipeline.cli.images import random_images, recipe_data
    from pipeline.export.verify import check, compare, run_artifact
    from pipeline.train.loop import logits

    loaded = Network.load(network)
    images, labels = random_images(loaded.spec), None
    if data is not None:
        split = recipe_data(data)[1].at(loaded.spec.input).validation
        images, labels = split.images, split.labels
    scheme = _scheme(model)
    with waiting(f"running {model.name}"):
        found = compare(
            logits(loaded.module, images), run_artifact(model, images, apart=True), labels
        )
    if as_json:
        print_json({"model": str(model), "scheme": scheme, **asdict(found)})
    else:
        accuracy = "" if found.accuracy is None else f", accuracy {found.accuracy:.2%}"
        click.echo(
            f"{model} ({scheme}) on {found.images} images: SQNR {found.sqnr_db:.1f} dB, "
            f"class agreement {found.argmax_agreement:.1%}, largest error "
            f"{found.max_abs_error:.3g}{accuracy}"
        )
    try:
        check(found, scheme, model.name)
    except VerificationError as error:
        if data is not None or scheme == "float32":
            raise
        raise VerificationError(
            f"{error}; random images may lie outside the ranges that the file was calibrated for: "
            "compare on real ones with --data RECIPE"
        ) from error


def _scheme(model: Path) -> str:
    """Return the number format of a file: an int8 input, or in ONNX any quantised tensor."""
    from pipeline.export.verify import artifact_io

    quantised = artifact_io(model).input.scale is not None
    return "static8" if quantised or b"QuantizeLinear" in model.read_bytes() else "float32"
