"""edgewright export: a network as a file that a runtime loads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from device_agents import bounded
from device_agents.errors import ConfigError
from device_agents.files import write_whole
from models.number_format import FLOAT32, STATIC8
from pipeline.cli.completion import complete_source
from pipeline.cli.options import (
    INPUT_SHAPE,
    TRUST,
    WEIGHTS,
    NumberFormatType,
    data_option,
    echo,
    parse_shapes,
    pixel_options,
    show_waiting,
    to_values,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from models.number_format import NumberFormat
    from models.spec import ArchSpec
    from pipeline.formats.api import Format, ReadOptions
    from pipeline.formats.figures import Verification

_KERAS = (".keras", ".h5", ".hdf5")
_READ = (".tflite", ".onnx", ".pt2", ".pt", ".pth")
_FILES = (".npz",)
_CALIBRATION_ADVICE = (
    "static8 needs images to calibrate on; give --data RECIPE, whose training images are used"
)


_CONVERTED_IMAGES = 256
"""Validation images, at most, that a user's model and its file are run on: TensorFlow is slow."""


@click.command()
@click.argument("source", shell_complete=complete_source)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write into."
)
@click.option("--format", "format_", default="tflite", show_default=True, help="tflite or onnx.")
@click.option(
    "--scheme",
    type=NumberFormatType(),
    help="Number format: static8, or int8, is int8 weights and activations. Default: float32, or "
    "that of a model that holds codes.",
)
@data_option("Calibrate and compare on")
@WEIGHTS
@click.option(
    "--library",
    is_flag=True,
    help="Where our graph cannot say it: let litert-torch (of torch; installed on demand) or "
    "onnx2tf (of ONNX; where you installed it) write the TFLite file.",
)
@pixel_options
@INPUT_SHAPE
@TRUST
@click.option(
    "--signed-weights",
    is_flag=True,
    help="onnx static8 only: int8 weights, for ARM and for x86 with VNNI; wrong on other x86.",
)
def command(
    *,
    source: str,
    output: Path,
    format_: str,
    scheme: NumberFormat | None,
    data: Path | None,
    signed_weights: bool,
    weights: Path | None,
    library: bool,
    mean: str | None,
    scale: str | None,
    colours: str | None,
    shapes: tuple[str, ...],
    trust: bool,
) -> None:
    """Write SOURCE as a model file into a folder and print the file's path.

    SOURCE is a model of any format (.tflite, .onnx, .keras, .h5, .pt2, a SavedModel folder,
    FILE.py:CALLABLE for a torch module, an .npz of edgewright), a name that `edgewright zoo` shows
    or a one-line spec (the last two get random weights: for timing, not for use). A file is run and
    compared with what it came from before it is there.
    """
    from pipeline.formats import create

    given = scheme
    scheme = scheme or FLOAT32
    chosen = create(format_)
    if signed_weights:
        chosen = _signed(format_, scheme)
    path = Path(source)
    target = output / f"{path.stem}-{scheme}{chosen.suffix}"
    is_keras = path.suffix in _KERAS or bounded.is_folder(path)
    if is_keras or _is_any(source):
        from pipeline.cli.commands._export_any import Asked, UnsaidError, export_any
        from pipeline.formats.api import ReadOptions

        options = ReadOptions(parse_shapes(shapes), trust=trust, weights=weights)
        values = to_values(mean, scale, colours)
        try:
            export_any(Asked(source, output, chosen, given, data, values, options))
        except UnsaidError as error:
            if not is_keras and chosen.name == "tflite":
                _by_library(source, target, options, scheme, error, asked=library)
                return
            if chosen.name != "tflite":
                raise
            # TensorFlow's own file of it is checked against the model in TensorFlow.
            _convert(path, target, scheme, data)
    elif path.suffix in _FILES or bounded.is_file(path):
        _trained(path, target, chosen, scheme, data)
    else:
        spec, stem = _spec(source)
        content = _untrained(spec, chosen, scheme)
        echo("edgewright: the weights are random, for timing only", err=True)
        target = output / f"{stem}-{scheme}{chosen.suffix}"
        write_whole(target, content)
        echo(target)


def _by_library(
    source: str,
    target: Path,
    options: ReadOptions,
    scheme: NumberFormat,
    error: ConfigError,
    *,
    asked: bool,
) -> None:
    """Have a library convert what our graph cannot say, if the user asks for that."""
    from pipeline.cli.commands._export_any import say_compared, say_whose_weights
    from pipeline.cli.commands._made_file import stem_of
    from pipeline.formats.third_party.convert import LITERT_TORCH, ONNX2TF, convert_by_library

    of_tflite = Path(source).suffix == ".tflite"
    if of_tflite and not asked:
        raise error
    if not asked:
        of_onnx = Path(source).suffix == ".onnx"
        which = (
            f"{ONNX2TF}, where you have installed it"
            if of_onnx
            else f"{LITERT_TORCH.name} ({LITERT_TORCH.megabytes} MB, installed once)"
        )
        raise ConfigError(f"{error}; with --library it is converted by {which}") from error
    if of_tflite or scheme != FLOAT32:
        raise ConfigError(
            f"{error}; --library converts modules of torch and ONNX files, to float32"
        ) from error
    made = target.with_name(f"{stem_of(source)}-{scheme}.tflite")
    with show_waiting(f"converting {source} by a library"):
        found = convert_by_library(
            source, made, options, lambda said: echo(f"edgewright: {said}", err=True)
        )
    echo(made)
    say_compared(found, real=False)
    say_whose_weights(source, options)


def _is_any(source: str) -> bool:
    """Tell whether a source is a model that is read into a graph: no spec and no network."""
    path = Path(source)
    if path.suffix == ".npz":
        return False
    return path.suffix in _READ or bool(re.search(r"\.py:|^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", source))


def _signed(format_: str, scheme: NumberFormat) -> Format:
    """Return the format of int8 ONNX files with signed weights."""
    if (format_, scheme) != ("onnx", STATIC8):
        raise ConfigError(
            f"--signed-weights is for --format onnx --scheme static8, not {format_} {scheme}; "
            "leave it out"
        )
    from pipeline.formats.onnx import ONNX

    return ONNX("int8")


def _spec(source: str) -> tuple[ArchSpec, str]:
    """Return a spec by zoo name or one-line form, and a name for its file."""
    from models import zoo
    from models.spec import ArchSpec

    if ":" in source:
        spec = ArchSpec.parse(source)
        return spec, spec.digest()
    return zoo.get(source), source


def _untrained(spec: ArchSpec, format_: Format, scheme: NumberFormat) -> bytes:
    import numpy as np

    from models.lower import lower
    from models.model import random_model

    rng = np.random.default_rng(0)
    return format_.write(random_model(lower(spec), rng, scheme))


def _trained(
    source: Path, target: Path, format_: Format, scheme: NumberFormat, data: Path | None
) -> None:
    """Write a trained network and hold the file against it."""
    if scheme.is_static and data is None:
        raise ConfigError(_CALIBRATION_ADVICE)
    from models.weights_file import check_network
    from pipeline.cli.images import load_recipe_data, random_images

    # Before torch is imported, which takes seconds.
    check_network(source)
    given = load_recipe_data(data) if data is not None else None
    from models.network import Network
    from pipeline.compress.api import Needs
    from pipeline.compress.chain import apply_passes, plan_quantization, to_model
    from pipeline.formats.verify import write_verified
    from pipeline.train.loop import predict

    network = Network.load(source)
    images, needs, count = random_images(network.spec), Needs(), 1
    if given is not None:
        recipe, dataset = given[0], given[1].at(network.spec.input)
        count = recipe.quantize.calibration_images
        images, _ = dataset.validation.arrays()
        needs = Needs(dataset.train.arrays(count)[0])
    passes = plan_quantization(scheme, images=count)
    model = to_model(apply_passes(network, passes, needs))
    with show_waiting(f"verifying {target.name}"):
        truth = predict(network.module, images)
        content, found = write_verified(format_, target.name, model, images, truth)
    _finish(target, content, found)


def _convert(path: Path, target: Path, scheme: NumberFormat, data: Path | None) -> None:
    """Write a Keras file or SavedModel folder as TFLite, by TensorFlow's converter."""
    if scheme.is_static and data is None:
        raise ConfigError(_CALIBRATION_ADVICE)
    calibration: npt.NDArray[np.float32] | None = None
    images: npt.NDArray[np.float32] | None = None
    if data is not None:
        from pipeline.cli.images import load_recipe_data

        recipe, given = load_recipe_data(data)
        images = given.dataset.validation.arrays(_CONVERTED_IMAGES)[0]
        if scheme.is_static:
            calibration = given.dataset.train.arrays(recipe.quantize.calibration_images)[0]
    from pipeline.formats.tflite.converter import convert_saved_model
    from pipeline.formats.verify import verify_outputs

    with show_waiting(f"TensorFlow converts {path.name}"):
        made = convert_saved_model(path, calibration, images)
        found = verify_outputs(target.name, scheme, made.reference, made.outputs)
    _finish(target, made.content, found)


def _finish(target: Path, content: bytes, found: Verification) -> None:
    """Write a file that has been verified, and say so."""
    write_whole(target, content)
    echo(target)
    echo(
        f"verified on {found.images} images: SQNR {found.sqnr_db:.1f} dB, class agreement "
        f"{found.argmax_agreement:.1%}",
        err=True,
    )
