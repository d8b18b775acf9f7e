"""edgewright quantize: any model with smaller numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from device_agents.errors import ConfigError
from models.number_format import FLOAT32
from pipeline.cli.options import (
    FORMAT,
    INPUT_SHAPE,
    JSON,
    SAMPLES,
    TASK,
    TRUST,
    NumberFormatType,
    Points,
    data_option,
    device_option,
    out_option,
    parse_shapes,
    pixel_options,
    to_values,
)

if TYPE_CHECKING:
    from pathlib import Path

    from models.number_format import NumberFormat


@click.command()
@click.argument("model")
@data_option("Calibrate and judge on")
@click.option(
    "--scheme",
    type=NumberFormatType(),
    default="static8",
    show_default=True,
    help="Number format: static8 (or int8), static16x8, dynamic8 or float16.",
)
@FORMAT
@click.option(
    "--float-layers",
    "float_layers",
    multiple=True,
    metavar="NAME",
    help="Leave this op in float32: its name, or a pattern such as 'head.*'. May be repeated.",
)
@click.option(
    "--options",
    "further",
    default="",
    metavar="NAME=VALUE,...",
    help="How static formats are made: ranges, percentile, weight_bits, per_tensor, rounding, "
    "iterations, bias_correction (docs/quantizing.md).",
)
@click.option(
    "--max-drop",
    type=Points(),
    metavar="POINTS",
    help="Leave layers in float32 until the file loses no more points (hundredths) of the task's "
    "score, or of agreement with MODEL where there are no labels.",
)
@device_option("Time the file there, in turns with MODEL in float32 and with codes throughout.")
@click.option(
    "--protocol",
    type=click.Choice(["quick", "thorough"]),
    help="How thoroughly --device times; default: thorough.",
)
@TASK
@SAMPLES
@out_option("MODEL-SCHEME")
@pixel_options
@INPUT_SHAPE
@TRUST
@JSON
def command(
    *,
    model: str,
    data: Path | None,
    scheme: NumberFormat,
    format_: str | None,
    float_layers: tuple[str, ...],
    further: str,
    max_drop: float | None,
    device: str | None,
    protocol: Literal["quick", "thorough"] | None,
    task: str,
    count: int,
    out: Path | None,
    mean: str | None,
    scale: str | None,
    colours: str | None,
    shapes: tuple[str, ...],
    trust: bool,
    as_json: bool,
) -> None:
    """Write MODEL with smaller numbers and print the file's path.

    MODEL is a model of any format (.tflite, .onnx, .keras, .h5, .pt2, a SavedModel folder,
    FILE.py:CALLABLE for a torch module, an .npz of edgewright). The file is run in its runtime and
    compared with MODEL before it is there. A model whose ops are not all known is quantised by
    ai-edge-quantizer (.tflite) or onnxruntime (.onnx), in a process of its own.
    """
    from pipeline.cli.commands._compress_device import find_timing
    from pipeline.cli.commands._made_file import choose_format
    from pipeline.cli.commands._quantize_any import Asked, quantize_any
    from pipeline.compress.pass_words import parse_options
    from pipeline.formats.api import ReadOptions

    made = choose_format(model, format_)
    if device is None and protocol is not None:
        raise ConfigError("--protocol says how a device times; give --device D with it")
    if scheme == FLOAT32:
        raise ConfigError(
            "float32 is what a model has before it is quantised; choose static8, static16x8, "
            "dynamic8 or float16, or write it with `edgewright export`"
        )
    if data is None and (scheme.is_static or max_drop is not None):
        what = f"{scheme} needs samples to calibrate on" if scheme.is_static else "--max-drop"
        needs = "" if scheme.is_static else " needs samples to judge on"
        raise ConfigError(
            f"{what}{needs}; give --data FOLDER of pictures, or an .npz with an array for each "
            "input"
        )
    further_options = parse_options(further, scheme)
    asked = Asked(
        source=model,
        options=ReadOptions(parse_shapes(shapes), trust=trust),
        data=data,
        values=to_values(mean, scale, colours),
        scheme=scheme,
        format_=made,
        float_layers=float_layers,
        further=further_options,
        max_drop=max_drop,
        timing=find_timing(device, protocol or "thorough", "quantize"),
        task=task,
        count=count,
        out=out,
        as_json=as_json,
    )
    quantize_any(asked)
