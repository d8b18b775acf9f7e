"""edgewright verify: does a file compute what its network computes?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from device_agents import bounded
from device_agents.errors import VerificationError
from pipeline.cli.options import JSON, echo, print_json, show_waiting

if TYPE_CHECKING:
    from models.number_format import NumberFormat
    from pipeline.formats.api import Format
    from pipeline.formats.figures import Verification


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
    from pipeline.cli.images import load_recipe_data, random_images
    from pipeline.formats.files import describe_file

    # Before torch is imported, which takes seconds.
    describe_file(model)
    check_network(network)
    given = load_recipe_data(data)[1] if data is not None else None
    from models.network import Network
    from pipeline.formats.figures import CLASSIFICATION, compare
    from pipeline.formats.files import find_format, run_file
    from pipeline.formats.limits import check
    from pipeline.formats.verify import compute_integers
    from pipeline.train.loop import predict

    format_, content = find_format(model), bounded.read_bytes(model)
    number_format = format_.read_number_format(content)
    loaded = Network.load(network)
    images, labels = random_images(loaded.spec), None
    if given is not None:
        split = given.at(loaded.spec.input).validation
        images, labels = split.images, split.labels
    with show_waiting(f"running {model.name}"):
        outputs = run_file(model, images, apart=True)
        integers = compute_integers(format_, content, loaded.model(), images)
        truth = predict(loaded.module, images)
        task = given.task if given is not None else CLASSIFICATION
        found = compare(truth, outputs, labels, integers, task=task)
    if as_json:
        print_json({"model": str(model), "scheme": str(number_format), **asdict(found)})
    else:
        echo(_sentence(model, number_format, found))
    try:
        check(found, number_format, model.name)
    except VerificationError as error:
        raise VerificationError(
            f"{error}{_advice(format_, content, found, number_format, data)}"
        ) from error


def _sentence(model: Path, number_format: NumberFormat, found: Verification) -> str:
    """Return the figures in words."""
    accuracy = "" if found.accuracy is None else f", accuracy {found.accuracy:.2%}"
    beside = ""
    if found.integers is not None:
        beside = (
            f"; its own integer arithmetic has {found.integers.sqnr_db:.1f} dB, from which the "
            f"farthest image is {found.integers.farthest_steps:.1f} steps of the output away"
        )
    elif number_format.is_static:
        beside = (
            "; held against the network alone, since the scales of the network's tensors are not "
            "in the file under edgewright's names"
        )
    return (
        f"{model} ({number_format}) on {found.images} images: SQNR {found.sqnr_db:.1f} dB, "
        f"class agreement {found.argmax_agreement:.1%}, largest error "
        f"{found.max_abs_error:.3g}{accuracy}{beside}"
    )


def _advice(
    format_: Format,
    content: bytes,
    found: Verification,
    number_format: NumberFormat,
    data: Path | None,
) -> str:
    """Return what may be behind a file that missed its limits, and what to do."""
    from pipeline.formats.onnx import ONNX

    if found.integers is not None and not found.integers.agrees:
        if isinstance(format_, ONNX) and format_.saturates_here(content):
            return (
                ": this computer's onnxruntime saturates where weights are signed (x86 without "
                "VNNI); export again, without --signed-weights, for a file that is right everywhere"
            )
        return ""
    if number_format.is_static and data is None:
        return (
            "; random images may lie outside the ranges that the file was calibrated for: compare "
            "on real ones with --data RECIPE"
        )
    return ""
