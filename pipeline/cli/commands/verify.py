"""edgewright verify: does a file compute what its network computes?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from device_agents import bounded
from device_agents.errors import VerificationError
from pipeline.cli.options import JSON, echo, print_json, waiting

if TYPE_CHECKING:
    from pipeline.formats.api import Exporter
    from pipeline.formats.verify import Verification


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

    A static8 file is held against its own integer arithmetic too: which of the two it misses tells
    a wrong file or runtime from a network that int8 does not suit. A file that misses the limits
    of its number format ends with exit code 5.
    """
    from models.weights_file import check_network
    from pipeline.cli.images import random_images, recipe_data
    from pipeline.formats.verify import artifact_io

    # Before torch is imported, which takes seconds.
    artifact_io(model)
    check_network(network)
    given = recipe_data(data)[1] if data is not None else None
    from models.fold import fold
    from models.lower import lower
    from models.network import Network
    from pipeline.formats.verify import (
        check,
        compare,
        exporter_of,
        integers_of,
        run_artifact,
    )
    from pipeline.train.loop import logits

    exporter, content = exporter_of(model), bounded.read_bytes(model)
    scheme = _scheme(exporter, content)
    loaded = Network.load(network)
    images, labels = random_images(loaded.spec), None
    if given is not None:
        split = given.at(loaded.spec.input).validation
        images, labels = split.images, split.labels
    with waiting(f"running {model.name}"):
        outputs = run_artifact(model, images, apart=True)
        integers = integers_of(exporter, content, lower(loaded.spec), fold(loaded), images)
        found = compare(logits(loaded.module, images), outputs, labels, integers)
    if as_json:
        print_json({"model": str(model), "scheme": scheme, **asdict(found)})
    else:
        echo(_sentence(model, scheme, found))
    try:
        check(found, scheme, model.name)
    except VerificationError as error:
        raise VerificationError(
            f"{error}{_advice(exporter, content, found, scheme, data)}"
        ) from error


def _sentence(model: Path, scheme: str, found: Verification) -> str:
    """Return the figures in words."""
    accuracy = "" if found.accuracy is None else f", accuracy {found.accuracy:.2%}"
    beside = ""
    if found.integers is not None:
        beside = (
            f"; its own integer arithmetic has {found.integers.sqnr_db:.1f} dB, from which the "
            f"farthest image is {found.integers.farthest_steps:.1f} steps of the output away"
        )
    elif scheme == "static8":
        beside = (
            "; held against the network alone, since the scales of the network's tensors are not "
            "in the file under edgewright's names"
        )
    return (
        f"{model} ({scheme}) on {found.images} images: SQNR {found.sqnr_db:.1f} dB, "
        f"class agreement {found.argmax_agreement:.1%}, largest error "
        f"{found.max_abs_error:.3g}{accuracy}{beside}"
    )


def _advice(
    exporter: Exporter, content: bytes, found: Verification, scheme: str, data: Path | None
) -> str:
    """Return what may be behind a file that missed its limits, and what to do."""
    from pipeline.formats.onnx import ONNX

    if found.integers is not None and not found.integers.agrees:
        if isinstance(exporter, ONNX) and exporter.saturates_here(content):
            return (
                ": this computer's onnxruntime saturates where weights are signed (x86 without "
                "VNNI); export again, without --signed-weights, for a file that is right everywhere"
            )
        return ""
    if scheme == "static8" and data is None:
        return (
            "; random images may lie outside the ranges that the file was calibrated for: compare "
            "on real ones with --data RECIPE"
        )
    return ""


def _scheme(exporter: Exporter, content: bytes) -> str:
    """Return the number format of a file: an int8 input, or in ONNX any quantised tensor."""
    quantised = exporter.describe(content).input.scale is not None
    return "static8" if quantised or b"QuantizeLinear" in content else "float32"
