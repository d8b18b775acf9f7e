"""What `edgewright verify A B` does: two files of any formats on the same inputs."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError
from pipeline.cli.options import console, echo, print_json, require_agent, show_steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.data.pictures.values import Values
    from pipeline.formats.api import ReadOptions
    from pipeline.formats.beside import Beside
    from pipeline.formats.ends import Array
    from pipeline.formats.subjects import Subject


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line says."""

    first: str
    second: str
    options: ReadOptions
    data: Path | None
    device: str | None
    task: str
    most: int
    values: Values | None
    as_json: bool


def verify_files(given: Given) -> None:
    """Compare two files and print how; raises VerificationError where they differ."""
    from pipeline.formats.beside import check_files, compare_files
    from pipeline.formats.generated_inputs import blame_generated
    from pipeline.formats.subjects import open_subject

    first = open_subject(given.first, _own_options(given.first, given.options))
    with open_file(given.second, given.options, given.device) as second:
        _refuse_unknown(given, first, second)
        inputs, labels = _inputs(given, first, second)
        with blame_generated(generated=given.data is None):
            found, ours, theirs = compare_files(
                (first.ends, second.ends), inputs, first.run, second.run
            )
    scores = _scores(given.task, labels, ours, theirs, found)
    numbers = [first.numbers, second.numbers]
    if given.as_json:
        told = {"first": given.first, "second": given.second, "device": given.device}
        print_json({**told, "numbers": numbers, **asdict(found), "scores": scores})
    else:
        _show(given, found, scores)
    check_files(found, numbers, (given.first, given.second), generated=given.data is None)


def _own_options(source: str, options: ReadOptions) -> ReadOptions:
    """Return the options with the shapes of what this model leaves open; the other may not."""
    from device_agents.model_files import open_input, read
    from pipeline.formats.files import is_runnable

    path = Path(source)
    if not options.shapes or not is_runnable(path):
        return options
    file = read(path)
    known = {name: s for name, s in options.shapes.items() if open_input(file, name) is not None}
    return replace(options, shapes=known)


def _refuse_unknown(given: Given, first: Subject, second: Subject) -> None:
    """Refuse a shape of an input that neither has. Raises ConfigError."""
    names = [end.name for subject in (first, second) for end in subject.ends.inputs]
    if unknown := [name for name in given.options.shapes if name and name not in names]:
        raise ConfigError(
            f"--input-shape {unknown[0]}: neither model has an input of that name; their inputs: "
            f"{', '.join(dict.fromkeys(names))}"
        )


@contextmanager
def open_file(source: str, options: ReadOptions, device: str | None) -> Iterator[Subject]:
    """Open a file as what gives outputs, on the device if one is named."""
    from pipeline.formats.subjects import FileSubject, open_subject
    from pipeline.measure.device_subject import DeviceSubject

    own = _own_options(source, options)
    found = open_subject(source, own)
    if device is None:
        yield found
        return
    if not isinstance(found, FileSubject):
        raise ConfigError(
            f"{source} is no file that a runtime takes, so no device can run it; export it first "
            "(`edgewright export`)"
        )
    from device_agents.model_files import RUNTIME_OF, read
    from device_agents.runner import Device
    from pipeline.store.leases import open_leases
    from profiles.registry import load_device

    profile = load_device(device)
    require_agent(profile, "verify", runtime=profile.runtime)
    runtime = RUNTIME_OF[read(found.path).format]
    with (
        show_steps(f"running {found.name} on {device}") as tell,
        open_leases(purpose=f"verify {found.name}") as leases,
        Device.open(replace(profile, runtime=runtime), leases=leases, on_step=tell) as opened,
    ):
        yield DeviceSubject(found, opened, runtime, own.shapes)


def _inputs(given: Given, first: Subject, second: Subject) -> tuple[dict[str, Array], Any]:
    """Return inputs of the first file by name (N, *shape), and labels if data has them."""
    from pipeline.formats.generated_inputs import generate_pair

    if given.data is None:
        return generate_pair(first.ends, second.ends), None
    from pipeline.cli.samples import read_samples

    return read_samples(given.data, first.ends, given.values, most=given.most)


def _scores(
    task: str, labels: Any, ours: dict[str, Array], theirs: dict[str, Array], found: Beside
) -> dict[str, float] | None:
    """Return the task's score of both files on their first output; None without labels."""
    if labels is None:
        return None
    from pipeline.data import TASKS

    scored = TASKS.load(task)()
    name = found.outputs[0].name
    if ours[name].dtype.kind != "f":
        return None
    first, second = (
        scored.score(outputs[name].reshape(len(labels), *outputs[name].shape[2:]), labels)
        for outputs in (ours, theirs)
    )
    return {"first": first, "second": second}


def _show(given: Given, found: Beside, scores: dict[str, float] | None) -> None:
    from rich.table import Table

    table = Table(title=f"{given.first} and {given.second}: {found.samples} samples")
    for heading in ("output", "in the other", "SQNR dB", "median", "cosine", "largest error"):
        table.add_column(heading, justify="right" if heading[0] in "Smlc" else "left")
    table.add_column("of its range", justify="right")
    for output in found.outputs:
        figures = [output.sqnr_db, output.typical_sqnr_db]
        decibels = ["-" if value is None else f"{value:.1f}" for value in figures]
        if output.equal_share is not None:
            decibels[0] = f"{output.equal_share:.1%} equal"
        table.add_row(
            output.name,
            "" if output.other == output.name else output.other,
            *decibels,
            "-" if output.cosine is None else f"{output.cosine:.6f}",
            f"{output.max_abs_error:.3g}",
            f"{output.error_share:.2g}",
        )
    console().print(table)
    if found.inputs_moved:
        echo(f"inputs were laid out for the second file: {', '.join(found.inputs_moved)}")
    if given.data is None:
        echo("on generated inputs; real ones (--data) say what it means for a network's answers")
    if scores is not None:
        echo(f"{given.task}: {scores['first']:.4f} and {scores['second']:.4f}")
