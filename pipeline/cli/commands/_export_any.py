"""What `edgewright export` does with a model of somebody else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError
from models.number_format import FLOAT32
from pipeline.cli.commands._made_file import stem_of
from pipeline.cli.options import echo, show_waiting

if TYPE_CHECKING:
    from pathlib import Path

    from models.model import Model
    from models.number_format import NumberFormat
    from pipeline.data.pictures.values import Values
    from pipeline.formats.api import Format, ReadOptions
    from pipeline.formats.beside import Beside
    from pipeline.formats.ends import Array
    from pipeline.formats.subjects import Subject

CALIBRATION_SAMPLES = 256
COMPARED_SAMPLES = 32


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says; `scheme` is None where it says none."""

    source: str
    folder: Path
    format_: Format
    scheme: NumberFormat | None
    data: Path | None
    values: Values | None
    options: ReadOptions


class UnsaidError(ConfigError):
    """A model that our graph cannot say; the sentence names every op that is not known."""


def export_any(asked: Asked) -> None:
    """Read a model, bring it into a number format, write it, check it, and say so.

    Raises:
        UnsaidError: our graph cannot say it.
    """
    from pipeline.formats.api import Unsupported
    from pipeline.formats.convert import as_file, graph_inputs, write_checked
    from pipeline.formats.generated_inputs import blame_generated
    from pipeline.formats.source import read_model
    from pipeline.formats.subjects import ModelSubject, find_runnable

    with show_waiting(f"reading {asked.source}"):
        model = read_model(asked.source, asked.options)
    if isinstance(model, Unsupported):
        raise UnsaidError(
            f"{model.sentence}; it cannot be written in another format. `edgewright bench` times "
            "it and `edgewright deploy` deploys it as it is"
        )
    subject = find_runnable(asked.source, asked.options) or ModelSubject(asked.source, model)
    inputs = _inputs(asked, model, subject)
    made = _in_scheme(asked, model, subject, inputs)
    if model.quantization is not None and made.quantization is None:
        # Real numbers are what its codes stand for, and not what rounding makes of them.
        inputs = as_file(ModelSubject(asked.source, made), graph_inputs(model, subject, inputs))
        subject = ModelSubject(asked.source, made)
    target = asked.folder / f"{stem_of(asked.source)}-{made.number_format}{asked.format_.suffix}"
    few = {name: values[:COMPARED_SAMPLES] for name, values in inputs.items()}
    asked_for = blame_generated(generated=asked.data is None)
    with show_waiting(f"checking {target.name}"), asked_for:
        checked = write_checked(asked.format_, made, target, subject, few)
    echo(target)
    say_compared(checked.beside, real=asked.data is not None)
    say_whose_weights(asked.source, asked.options)


def _inputs(asked: Asked, model: Model, subject: Subject) -> dict[str, Array]:
    from pipeline.formats.generated_inputs import generate_inputs, index_ranges

    if asked.data is None:
        return generate_inputs(subject.ends, ranges=index_ranges(model))
    from pipeline.cli.samples import read_samples

    inputs, _ = read_samples(
        asked.data, subject.ends, asked.values, most=CALIBRATION_SAMPLES, part="train"
    )
    return inputs


def _in_scheme(asked: Asked, model: Model, subject: Subject, inputs: dict[str, Array]) -> Model:
    """Return the model in the number format asked for, its own if none is."""
    scheme = asked.scheme or model.number_format
    written = asked.format_.number_formats
    if asked.scheme is None and scheme not in written and not scheme.is_static:
        echo(
            f"edgewright: {asked.format_.name} files do not hold {scheme}, which {asked.source} is "
            "in; its weights are written as float32",
            err=True,
        )
        scheme = FLOAT32
    if scheme not in written:
        have = ", ".join(map(str, written))
        raise ConfigError(
            f"{asked.format_.name} files hold {have}, not {scheme}; choose one with --scheme"
        )
    if scheme == model.number_format:
        return model
    if model.quantization is not None:
        done = f"{model.number_format} taken as real numbers"
        model = replace(model, quantization=None, history=(*model.history, done))
    if scheme == FLOAT32:
        return model
    if scheme.is_static and asked.data is None:
        raise ConfigError(
            f"{scheme} needs samples to calibrate on; give --data FOLDER of pictures, or an .npz "
            "with an array for each input"
        )
    from pipeline.compress.api import Needs
    from pipeline.compress.chain import apply_passes, plan_quantization, to_model
    from pipeline.formats.convert import graph_inputs

    needs = Needs(inputs=graph_inputs(model, subject, inputs)) if scheme.is_static else Needs()
    passes = plan_quantization(scheme, images=CALIBRATION_SAMPLES)
    return to_model(apply_passes(model, passes, needs))


def say_whose_weights(source: str, options: ReadOptions) -> None:
    """Say whose weights a module has that code makes, where no others are given."""
    from pipeline.formats.torch.read import names_module

    if names_module(source) and options.weights is None:
        echo(
            f"edgewright: the weights are those that {source} makes, random ones if it loads none; "
            "--weights FILE.pt takes a state dict",
            err=True,
        )


def say_compared(found: Beside, *, real: bool) -> None:
    """Say how a file compares with its source; `real` is whether on samples of --data."""
    worst = [output.sqnr_db for output in found.outputs if output.sqnr_db is not None]
    told = f": SQNR {min(worst):.1f} dB at least" if worst else ""
    on = "samples of --data" if real else "generated samples"
    share = max((output.error_share for output in found.outputs), default=0.0)
    echo(
        f"compared with its source on {found.samples} {on}{told}, largest error {share:.2g} of an "
        "output's range",
        err=True,
    )
