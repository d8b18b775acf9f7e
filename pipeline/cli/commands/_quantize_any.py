"""What `edgewright quantize` does: our passes where the graph is known, else a library."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError, DeviceError, VerificationError
from pipeline.cli.commands._made_file import place, refuse_unwritten, stem_of
from pipeline.cli.options import echo, print_json, show_steps
from pipeline.compress.op_names import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from models.graph import Graph
    from models.model import Model
    from models.number_format import NumberFormat
    from pipeline.cli.commands._compress_device import Timing
    from pipeline.cli.commands._islands import Islands
    from pipeline.compress.back_off import BackedOff
    from pipeline.data.pictures.values import Values
    from pipeline.data.task import Task
    from pipeline.formats.api import Format, ReadOptions, Unsupported
    from pipeline.formats.beside import Beside
    from pipeline.formats.ends import Array
    from pipeline.formats.subjects import Subject

JUDGED_SAMPLES = 1000

_ADVICE = (
    "; the same command with `--max-drop 5`, say, leaves as few layers in float32 as it takes, and "
    "says which"
)

_TOLD_SHARE = 0.1
"""Share of a file's weights from which on it is said that a library left them real."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says; `further` options are those of the pass."""

    source: str
    options: ReadOptions
    data: Path | None
    values: Values | None
    scheme: NumberFormat
    format_: Format
    float_layers: tuple[str, ...]
    further: Mapping[str, Any]
    max_drop: float | None
    timing: Timing | None
    task: str
    count: int
    out: Path | None
    as_json: bool


def quantize_any(asked: Asked) -> None:
    """Read a model, quantise it, check the file, and say what came of it."""
    from pipeline.compress.judging import CHECKED_SAMPLES
    from pipeline.compress.passes.ptq import spread_rows
    from pipeline.formats.api import Unsupported
    from pipeline.formats.convert import write_checked
    from pipeline.formats.generated_inputs import blame_generated
    from pipeline.formats.source import read_model
    from pipeline.formats.subjects import ModelSubject, Remembered, find_runnable

    with show_steps(f"quantising {asked.source}") as tell:
        tell("reading it")
        model = read_model(asked.source, asked.options)
        if isinstance(model, Unsupported):
            _by_library(asked, model, tell)
            return
        format_ = asked.format_
        refuse_unwritten(format_, asked.scheme, "--scheme")
        target = _target(asked, format_.suffix)
        own = find_runnable(asked.source, asked.options) or ModelSubject(asked.source, model)
        subject = Remembered(own)
        calibration, judged, labels = _samples(asked, subject, model)
        found = _quantized(asked, model, subject, format_, (calibration, judged, labels), tell)
        tell(f"checking {target.name}")
        few = {
            name: values[spread_rows(len(values), CHECKED_SAMPLES)]
            for name, values in judged.items()
        }
        try:
            with blame_generated(generated=asked.data is None):
                checked = write_checked(format_, found.model, target, subject, few)
        except VerificationError as error:
            advice = _ADVICE if asked.scheme.is_static and asked.max_drop is None else ""
            raise VerificationError(f"{error}{advice}") from error
        tell(f"scoring {target.name}")
        scores = _scored(asked, subject, target, judged, labels)
    judged_by = found if asked.max_drop is not None else None
    islands, failed = _timed(asked, model, found, (subject, judged))
    _say(asked, target, judged_by, checked.beside, labels=labels, scores=scores, islands=islands)
    if failed:
        raise DeviceError(f"{failed}; {target} is written and checked all the same")


def _timed(
    asked: Asked, model: Model, found: BackedOff, samples: tuple[Subject, dict[str, Array]]
) -> tuple[Islands | None, str]:
    """Return what the file takes on the device, if one is named, or why that is not known."""
    from pipeline.cli.commands._islands import time_islands

    if asked.timing is None:
        return None, ""
    models = (model, found.throughout, found.model)
    try:
        return time_islands(asked.timing, asked.format_, models, samples, len(found.left)), ""
    except DeviceError as error:
        return None, str(error)


def _by_library(asked: Asked, unsupported: Unsupported, tell: Callable[[object], None]) -> None:
    """Quantise a file whose ops are not all known here by the library made for its format."""
    from pipeline.formats.files import find_format
    from pipeline.formats.generated_inputs import blame_generated
    from pipeline.formats.subjects import find_runnable
    from pipeline.formats.third_party.quantize import quantize_file, real_share

    source = find_runnable(asked.source, asked.options)
    if source is None:
        raise ConfigError(f"{unsupported.sentence}; and no library quantises such a file")
    if asked.format_.name != find_format(source.path).name:
        raise ConfigError(
            f"{unsupported.sentence}; a library quantises it in its own format alone: leave "
            "--format out"
        )
    if asked.timing is not None:
        raise ConfigError(
            f"{unsupported.sentence}; so a library quantises it, and --device times no such file: "
            "leave it out, and time both files with `edgewright compare`"
        )
    if asked.float_layers or asked.further or asked.max_drop is not None:
        option = "--options" if asked.further else "--max-drop"
        option = "--float-layers" if asked.float_layers else option
        raise ConfigError(
            f"{unsupported.sentence}; so a library quantises it as a whole, and {option} cannot be "
            "kept: leave it out"
        )
    target = _target(asked, source.path.suffix)
    calibration, judged, labels = _samples(asked, source)
    echo(f"edgewright: {unsupported.sentence}; a library quantises it", err=True)
    tell(f"a library quantises {source.name}")
    with blame_generated(generated=asked.data is None):
        beside = quantize_file(source, calibration, target, asked.scheme, asked.options, tell)
    share = real_share(source.path, target)
    if share > _TOLD_SHARE:
        echo(
            f"edgewright: {share:.0%} of the bytes of its weights stay float32: the library does "
            "not quantise the layers that have them",
            err=True,
        )
    scores = _scored(asked, source, target, judged, labels)
    _say(asked, target, None, beside, labels=labels, scores=scores)


def _quantized(
    asked: Asked,
    model: Model,
    subject: Subject,
    format_: Format,
    samples: tuple[dict[str, Array], dict[str, Array], Any],
    tell: Callable[[object], None],
) -> BackedOff:
    from pipeline.compress.judging import Judge
    from pipeline.compress.quantize import Wanted, quantize
    from pipeline.data import TASKS
    from pipeline.formats.convert import graph_inputs

    calibration, judged, labels = samples
    judge = None
    if asked.max_drop is not None:
        task, agreement = (TASKS.load(name)() for name in (asked.task, "agreement"))
        judge = Judge(subject, format_, judged, labels, task, agreement)
    wanted = Wanted(
        asked.scheme, asked.count, asked.float_layers, asked.max_drop, options=asked.further
    )
    inputs = graph_inputs(model, subject, calibration) if asked.scheme.is_static else None
    return quantize(model, inputs, wanted, judge, tell)


def _samples(
    asked: Asked, subject: Subject, model: Model | None = None
) -> tuple[dict[str, Array], dict[str, Array], Any]:
    """Return the inputs that calibrate, those that judge, and the truths of the latter."""
    from pipeline.formats.generated_inputs import generate_inputs, index_ranges

    if asked.data is None:
        ranges = {} if model is None else index_ranges(model)
        generated = generate_inputs(subject.ends, ranges=ranges)
        return generated, generated, None
    from pipeline.cli.samples import divide_samples

    judged_too = asked.max_drop is not None
    return divide_samples(
        asked.data,
        subject.ends,
        asked.values,
        calibrating=asked.count,
        judging=JUDGED_SAMPLES if judged_too else asked.count,
        apart=judged_too,
    )


@dataclass(frozen=True, slots=True)
class _Scores:
    """The task's score of a model and of its file, on so many samples."""

    task: Task
    first: float
    second: float
    samples: int

    @property
    def words(self) -> str:
        task = self.task
        return (
            f"{task.metric} {task.words(self.first)} before and {task.words(self.second)} now, on "
            f"{self.samples} samples"
        )


def _scored(
    asked: Asked, subject: Subject, target: Path, judged: dict[str, Array], labels: Any
) -> _Scores | None:
    """Score the model and its file; None without labels, or where they are none of the task."""
    from pipeline.data import TASKS
    from pipeline.data.task import score_outputs
    from pipeline.formats.beside import compare_files
    from pipeline.formats.subjects import find_runnable

    if labels is None or asked.max_drop is not None:
        return None
    file = find_runnable(str(target), _shapes_of_file(asked, target))
    if file is None:
        return None
    _, ours, theirs = compare_files((subject.ends, file.ends), judged, subject.run, file.run)
    task: Task = TASKS.load(asked.task)()
    name = subject.ends.outputs[0].name
    try:
        first, second = (score_outputs(task, outputs[name], labels) for outputs in (ours, theirs))
    except ConfigError as error:
        echo(f"edgewright: not scored: {error}", err=True)
        return None
    return _Scores(task, first, second, len(labels))


def _shapes_of_file(asked: Asked, target: Path) -> ReadOptions:
    """Return the options with the shapes of what the file still leaves open."""
    from device_agents.model_files import open_input, read

    file = read(target)
    shapes = asked.options.shapes
    own = {name: shape for name, shape in shapes.items() if open_input(file, name) is not None}
    return replace(asked.options, shapes=own)


def _target(asked: Asked, suffix: str) -> Path:
    return place(asked.source, asked.out, f"{stem_of(asked.source)}-{asked.scheme}{suffix}")


def shown_layers(graph: Graph, names: tuple[str, ...]) -> str:
    """Return ops as the arguments that leave them in float32."""
    return " ".join(f"--float-layers {shlex.quote(name)}" for name in shorten(graph, names))


def shown_option(graph: Graph, names: tuple[str, ...]) -> str:
    """Return ops as the option of a pass that leaves them in float32."""
    return f"float_layers={'+'.join(shorten(graph, names))}"


def _say(
    asked: Asked,
    target: Path,
    found: BackedOff | None,
    beside: Beside,
    *,
    labels: Any,
    scores: _Scores | None,
    islands: Islands | None = None,
) -> None:
    """Say what came of it; `found` is None where nothing was asked of what is lost."""
    decibels = [output.sqnr_db for output in beside.outputs if output.sqnr_db is not None]
    measure = "agreement" if labels is None else "score"
    if asked.as_json:
        print_json(
            {
                "model": asked.source,
                "file": str(target),
                "scheme": str(asked.scheme),
                "samples": beside.samples,
                "sqnr_db": min(decibels, default=None),
                "drop_points": None if found is None else found.lost.points,
                "drop_of": None if found is None else measure,
                "metric": None if scores is None else scores.task.metric,
                "score_before": None if scores is None else scores.first,
                "score": None if scores is None else scores.second,
                "left_in_float32": [] if found is None else list(found.left),
                "asked_in_float32": list(asked.float_layers),
                "tried": [] if found is None else _tried(found),
                "latency": None if islands is None else islands.to_json(),
                "outputs": [asdict(output) for output in beside.outputs],
            }
        )
        return
    echo(target)
    told = f": SQNR {min(decibels):.1f} dB at least" if decibels else ""
    echo(f"compared with {asked.source} on {beside.samples} samples{told}", err=True)
    if scores is not None:
        echo(scores.words, err=True)
    for sentence in () if islands is None else islands.sentences:
        echo(sentence, err=True)
    if found is None:
        return
    echo(f"loses {found.lost.points:.2f} points of {measure}, at most {asked.max_drop:g}", err=True)
    if found.left:
        graph = found.model.graph
        echo(
            f"throughout in {asked.scheme} {found.first.words}; {len(found.left)} of "
            f"{len(graph.ops)} ops are left in float32 for it: {shown_layers(graph, found.left)}",
            err=True,
        )
        tried = ", ".join(f"{one['left']}: {one['drop_points']:.2f}" for one in _tried(found))
        echo(f"tried, ops in float32 and the points lost: {tried}", err=True)


def _tried(found: BackedOff) -> list[dict[str, Any]]:
    """Return each file that was tried: ops left in float32, points lost, why it was refused."""
    return [
        {"left": count, "drop_points": lost.points, "refused": lost.refused or None}
        for count, lost in found.tried
    ]
