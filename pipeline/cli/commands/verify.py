"""edgewright verify: do two models compute the same?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from device_agents import bounded
from device_agents.errors import VerificationError
from pipeline.cli.options import (
    INPUT_SHAPE,
    JSON,
    TASK,
    TRUST,
    data_option,
    device_option,
    echo,
    parse_shapes,
    pixel_options,
    print_json,
    show_waiting,
    to_values,
)

if TYPE_CHECKING:
    from models.number_format import NumberFormat
    from pipeline.formats.api import Format
    from pipeline.formats.figures import Verification


@click.command()
@click.argument("model")
@click.argument("other", required=False)
@click.option(
    "--network",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="The network of edgewright that MODEL was exported from, in place of OTHER.",
)
@data_option("Compare on")
@device_option("Run OTHER on this device; with --codes, MODEL.")
@TASK
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Of --data, at most, evenly spread.",
)
@click.option(
    "--per-layer",
    is_flag=True,
    help="Rank the layers of a quantised MODEL by what each costs its outputs; OTHER is the float "
    "model that it was made of. A float MODEL alone is quantised for it.",
)
@click.option(
    "--codes",
    is_flag=True,
    help="Hold the codes of an int8 MODEL alone against exact integer arithmetic with them.",
)
@click.option(
    "--picture",
    type=click.Path(path_type=Path),
    metavar="FILE.svg",
    help="With --per-layer: draw the ranking too.",
)
@pixel_options
@INPUT_SHAPE
@TRUST
@JSON
def command(
    *,
    model: str,
    other: str | None,
    network: Path | None,
    data: Path | None,
    device: str | None,
    task: str,
    samples: int,
    per_layer: bool,
    codes: bool,
    picture: Path | None,
    mean: str | None,
    scale: str | None,
    colours: str | None,
    shapes: tuple[str, ...],
    trust: bool,
    as_json: bool,
) -> None:
    """Run MODEL and OTHER on the same inputs and compare their outputs.

    Either may be a file of any format (.tflite, .onnx, .keras, .h5, .pt2, a SavedModel folder,
    FILE.py:CALLABLE, .npz). Files that differ by more than their numbers allow end with exit code
    5.

    With --network a file is held against the network that it was exported from. A static8 file is
    held against its own integer arithmetic too: which of the two it misses tells a wrong file or
    runtime from a network that int8 does not suit.

    With --codes an int8 file is run, here or on a device, and its codes are counted that equal
    exact integer arithmetic with the codes that it holds: what kernels there are off by.

    With --per-layer it is told which layers lose what int8 costs, and what to do about each.
    """
    if picture is not None and not per_layer:
        raise click.UsageError("--picture draws what --per-layer finds; give that too")
    if codes and (other is not None or network is not None or per_layer):
        raise click.UsageError("--codes looks at one file; leave OTHER, --network, --per-layer out")
    if network is not None:
        if other is not None or device is not None or per_layer:
            raise click.UsageError(
                "--network stands in place of OTHER, for files run here and compared as a whole; "
                "--per-layer takes a network's .npz as OTHER"
            )
        _against_network(Path(model), network, data, as_json=as_json)
        return
    from pipeline.formats.api import ReadOptions

    options = ReadOptions(parse_shapes(shapes), trust=trust)
    values = to_values(mean, scale, colours)
    if per_layer:
        if device is not None:
            raise click.UsageError("--per-layer computes here; leave --device out")
        from pipeline.cli.commands._verify_layers import Asked, verify_layers

        verify_layers(Asked(model, other, options, data, values, picture, as_json))
        return
    from pipeline.cli.commands._verify_files import Given, verify_files

    if codes:
        from pipeline.cli.commands._verify_codes import verify_codes

        verify_codes(Given("", model, options, data, device, task, samples, values, as_json))
        return
    if other is None:
        raise click.UsageError("give OTHER, a second model, --network FILE.npz, or --codes")
    verify_files(Given(model, other, options, data, device, task, samples, values, as_json))


def _against_network(model: Path, network: Path, data: Path | None, *, as_json: bool) -> None:
    """Compare a file with the network that it was exported from."""
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
        images, labels = given.at(loaded.spec.input).validation.arrays()
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
