"""What `edgewright verify --per-layer` does: which layers lose what a number format costs."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError
from device_agents.files import write_whole
from models.number_format import STATIC8
from pipeline.cli.options import console, echo, print_json, show_steps
from pipeline.compress.op_names import find_ops, shorten

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from models.graph import Graph
    from models.model import Model
    from pipeline.compress.sensitivity import Sensitivity
    from pipeline.data.pictures.values import Values
    from pipeline.formats.api import ReadOptions
    from pipeline.formats.ends import Array
    from pipeline.formats.subjects import Subject

CALIBRATION_SAMPLES = 256
GENERATED_SAMPLES = 48

_ROWS = 20
_NAME_CHARS = 44


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says: of two models one is quantised, the other its float one."""

    model: str
    other: str | None
    options: ReadOptions
    data: Path | None
    values: Values | None
    picture: Path | None
    as_json: bool


def verify_layers(asked: Asked) -> None:
    """Find what each layer costs, and say it as a table, as JSON and as a picture."""
    from pipeline.compress.sensitivity import advise, measure_layers

    if asked.picture is not None and asked.picture.suffix != ".svg":
        raise ConfigError(f"--picture {asked.picture} does not end in .svg, which is drawn")
    with show_steps(f"verifying {asked.model} layer by layer") as tell:
        subject = _prepare(asked, tell)
        model = subject.model
        found = measure_layers(model, subject.inputs, tell)
    if asked.picture is not None:
        from pipeline.cli.layer_picture import draw_layers

        write_whole(asked.picture, draw_layers(found, asked.model).encode())
    arguments = [
        part for name in shorten(model.graph, found.suggested) for part in ("--float-layers", name)
    ]
    if asked.as_json:
        layers = [{**asdict(layer), "advice": advise(layer)} for layer in found.layers]
        told = {"model": asked.model, "scheme": str(model.number_format), **asdict(found)}
        print_json({**told, "layers": layers, "arguments": arguments})
        return
    _show(asked, subject, found, arguments)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A quantised model with its weights in real numbers, inputs of its graph, its float model.

    `source` is what the float model is called, None where there is none; `plain` is its graph.
    """

    model: Model
    inputs: dict[str, Array]
    source: str | None
    plain: Graph


def _prepare(asked: Asked, tell: Callable[[object], None]) -> _Prepared:
    from pipeline.compress.passes.ptq import calibrate_all, spread_rows
    from pipeline.compress.real_weights import take_weights
    from pipeline.compress.simulated import affordable_samples
    from pipeline.formats.convert import graph_inputs
    from pipeline.formats.subjects import ModelSubject, find_runnable

    tell("reading it")
    source, model, real = asked.model, _read(asked.model, asked.options), asked.other
    plain = model.graph
    if asked.other is not None:
        other = _read(asked.other, asked.options)
        static = [one.number_format.is_static for one in (model, other)]
        if static.count(True) != 1:
            raise ConfigError(
                f"{asked.model} is {model.number_format} and {asked.other} {other.number_format}; "
                "of two models --per-layer takes one in static8 or static16x8 and the float one "
                "that it was made of"
            )
        if static[1]:
            source, model, other, real = asked.other, other, model, asked.model
        model, plain = take_weights(model, other), other.graph
    subject = find_runnable(source, asked.options) or ModelSubject(source, model)
    inputs = graph_inputs(model, subject, _inputs(asked, subject))
    if not model.number_format.is_static:
        tell("calibrating")
        real = source
        model = calibrate_all(replace(model, quantization=None), inputs, number_format=STATIC8)
        plain = model.graph
    count = affordable_samples(model.graph)
    few = {name: x[spread_rows(len(x), count)] for name, x in inputs.items()}
    return _Prepared(model, few, real, plain)


def _read(source: str, options: ReadOptions) -> Model:
    from pipeline.formats.api import Unsupported
    from pipeline.formats.source import read_model

    found = read_model(source, options)
    if isinstance(found, Unsupported):
        raise ConfigError(f"{found.sentence}; its layers cannot be told apart")
    return found


def _inputs(asked: Asked, subject: Subject) -> dict[str, Array]:
    from pipeline.formats.generated_inputs import generate_inputs

    if asked.data is None:
        return generate_inputs(subject.ends, count=GENERATED_SAMPLES)
    from pipeline.cli.samples import read_samples

    inputs, _ = read_samples(
        asked.data, subject.ends, asked.values, most=CALIBRATION_SAMPLES, part="train"
    )
    return inputs


def _show(asked: Asked, subject: _Prepared, found: Sensitivity, arguments: list[str]) -> None:
    from rich.table import Table

    from pipeline.compress.sensitivity import advise

    model = subject.model
    table = Table(title=f"{asked.model} ({model.number_format}): what each layer costs")
    for heading in ("layer", "op"):
        table.add_column(heading)
    for heading in ("range", "step", "SQNR dB", "alone dB", "loss", "by weights"):
        table.add_column(heading, justify="right")
    table.add_column("what to do")
    for layer in found.layers[:_ROWS]:
        table.add_row(
            _brief(layer.name),
            layer.kind,
            f"{layer.low:.3g} to {layer.high:.3g}",
            f"{layer.scale:.3g}",
            f"{layer.sqnr_db:.1f}",
            f"{layer.alone_db:.1f}",
            f"{layer.share:.1%}",
            f"{layer.weight_share:.0%}",
            advise(layer),
        )
    console().print(table)
    if (more := len(found.layers) - _ROWS) > 0:
        echo(f"and {more} more, which cost less; --json has them all")
    echo(
        f"on {found.samples} samples all together leave {found.sqnr_db:.1f} dB SQNR before what "
        "squashes the outputs (softmax, sigmoid)"
    )
    if arguments:
        command = _command(asked, subject, arguments)
        echo(f"{found.suggested_db:.1f} dB with these in float32: {command}")
    else:
        echo("no few layers in float32 would mend much of it; --scheme static16x8 may")
    if asked.other is None and _has_codes(model):
        echo("what rounded weights cost is not in it: name the float model too, as OTHER")
    if asked.data is None:
        echo("on generated inputs; real ones (--data) have other ranges")


def _command(asked: Asked, subject: _Prepared, arguments: list[str]) -> str:
    """Return the command that leaves layers in float32; the arguments alone if it would not."""
    try:
        find_ops(subject.plain, arguments[1::2])
    except ConfigError:  # the float model has other names
        return shlex.join(arguments)
    if subject.source is None:
        return shlex.join(arguments)
    command = ["edgewright", "quantize", subject.source, *arguments]
    if asked.data is not None:
        command += ["--data", str(asked.data)]
    if asked.values is not None:
        for option, numbers in (("--mean", asked.values.mean), ("--scale", asked.values.scale)):
            command += [option, ",".join(f"{number:.9g}" for number in numbers)]
    return shlex.join(command)


def _has_codes(model: Model) -> bool:
    return model.quantization is not None and bool(model.quantization.weights)


def _brief(name: str) -> str:
    """Return the end of a long name, which is what tells it from others."""
    return name if len(name) <= _NAME_CHARS else f"…{name[1 - _NAME_CHARS :]}"
