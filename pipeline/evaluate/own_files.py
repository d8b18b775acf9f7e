"""The files of a user's own model: written, quantised, and held against what they came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError
from device_agents.files import write_whole
from models.number_format import FLOAT32
from pipeline.compress.chain import plan_quantization
from pipeline.compress.judging import CHECKED_SAMPLES, Judge
from pipeline.compress.op_names import shorten
from pipeline.compress.passes.ptq import spread_rows
from pipeline.compress.quantize import Wanted, quantize, refuse_codes, slow_as_codes
from pipeline.data import TASKS
from pipeline.evaluate.own_data import digest
from pipeline.formats import create
from pipeline.formats.convert import graph_inputs, write_checked
from pipeline.formats.subjects import Remembered, find_runnable
from pipeline.formats.third_party.quantize import quantize_file
from pipeline.measure.form import Form
from pipeline.measure.kernels import choose_format
from pipeline.store.memo import StepKind
from pipeline.store.model_result import AS_IT_CAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from models.model import Model
    from models.number_format import NumberFormat
    from pipeline.compress.back_off import BackedOff
    from pipeline.data.samples import Samples
    from pipeline.data.task import Task
    from pipeline.evaluate.own_model import OwnModel
    from pipeline.formats.api import Format
    from pipeline.formats.beside import Beside
    from pipeline.formats.ends import FileEnds
    from pipeline.formats.subjects import Subject
    from pipeline.measure.bench import DeviceBench

WRITE = StepKind("write-model")
QUANTIZE = StepKind("quantize-file")


@dataclass(frozen=True, slots=True)
class Kept:
    """What of a model is to stay as it is where it is quantised.

    Attributes:
        float_layers: names or patterns of ops that stay in float32.
        max_drop: points that it may lose of the task's score; None to ask nothing.
        task: what counts as good.
    """

    float_layers: tuple[str, ...]
    max_drop: float | None
    task: Task


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A file of the model; `number_format` is a name for the page where it is as it came.

    Where it was asked what it may lose, `drop_points` is what it loses, `left_in_float32` the ops
    that were left so for it, and `drop_words` the sentence on it.
    """

    name: str
    format: str
    runtime: str
    number_format: str
    path: Path
    sha256: str
    sqnr_db: float | None = None
    error_share: float | None = None
    drop_points: float | None = None
    left_in_float32: tuple[str, ...] = ()
    drop_words: str = ""

    @property
    def is_original(self) -> bool:
        """Whether it is the user's own."""
        return self.name == AS_IT_CAME


def as_inputs(ends: FileEnds, given: Samples) -> dict[str, npt.NDArray[Any]]:
    """Return samples as a subject takes them: (N, *shape), the batch dimension of 1 included."""
    return {
        end.name: given.inputs[end.name].reshape(len(given), *(end.shape or ()))
        for end in ends.inputs
    }


def list_own_forms(
    own: OwnModel, formats: Sequence[str], wanted: Form, more: Sequence[NumberFormat] = ()
) -> list[Form]:
    """Return what a model is written as: in float32 and as asked; codes that it holds stay.

    `more` are number formats that are tried for the device's runtime too.
    """
    if own.model is None:
        return []
    numbers: tuple[NumberFormat, ...] = (wanted.number_format, FLOAT32)
    if own.model.quantization is not None:
        numbers, more = (own.model.number_format,), ()
    names = dict.fromkeys((wanted.runtime, *formats))
    return [
        Form(name, number_format)
        for name in names
        for number_format in dict.fromkeys((*numbers, *(more if name == wanted.runtime else ())))
        if number_format in create(name).number_formats
    ]


def write_own(
    own: OwnModel,
    form: Form,
    *,
    bench: DeviceBench,
    folder: Path,
    train: Samples,
    held: Samples,
    kept: Kept,
) -> OwnFile:
    """Write a model in a form and hold the file against its source, unless that has been done.

    Args:
        own: the model.
        form: format and number format.
        bench: the device that it is for.
        folder: where it goes.
        train: samples to calibrate on.
        held: samples to judge by what is lost, and to compare on.
        kept: what is to stay as it is.

    Raises:
        ConfigError: it cannot be written so.
        TargetError: it loses more than it may, whatever is left in float32.
        VerificationError: the file computes something else.
    """
    if own.model is None:
        raise ConfigError(own.unsupported)
    model, number_format = own.model, form.number_format
    codes = model.quantization is not None
    if codes and (kept.float_layers or kept.max_drop is not None):
        refuse_codes(model)
    passes = () if codes else plan_quantization(number_format, images=len(train))
    format_, store = choose_format(bench, form), bench.memo.store
    target = folder / f"{Path(own.name).stem}-{number_format}{format_.suffix}"
    inputs = {
        "model": model.digest(),
        "source": own.sha256,
        "format": form.runtime,
        "scheme": str(number_format),
        "int8_form": format_.int8_form if number_format.is_static else "",
        "samples": digest([train, held] if passes else [held]),
        **{f"pass {step.name}": step.version for step in passes},
        **(_asked(model, number_format, kept) if passes else {}),
    }

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        subject = Remembered(own.subject)
        judged = as_inputs(subject.ends, held)
        found = None
        if passes:
            found = _quantized(subject, model, number_format, format_, (train, held), kept)
        few = {name: x[spread_rows(len(x), CHECKED_SAMPLES)] for name, x in judged.items()}
        made = model if found is None else found.model
        checked = write_checked(format_, made, target, subject, few)
        figures = _figures(checked.beside)
        if found is not None and kept.max_drop is not None:
            figures |= {
                "drop_points": found.lost.points,
                "left_in_float32": list(found.left),
                "drop_words": _words(f"{form.runtime} {number_format}", found, kept),
            }
        return figures, {"model": store.put_bytes(target.read_bytes())}

    step = bench.memo.once(WRITE, inputs, work)
    sha256 = step.artifacts["model"]
    _put(target, store.path(sha256).read_bytes())
    name = f"{form.runtime} {number_format}"
    figures = {**step.result, "left_in_float32": tuple(step.result.get("left_in_float32", ()))}
    return OwnFile(name, form.runtime, form.runtime, str(number_format), target, sha256, **figures)


def _asked(model: Model, number_format: NumberFormat, kept: Kept) -> dict[str, Any]:
    """Return what of a step's inputs is asked of layers: nothing of most, as of steps before."""
    asked: dict[str, Any] = {}
    if named := [*kept.float_layers, *slow_as_codes(model, number_format)]:
        asked["float_layers"] = named
    if kept.max_drop is not None:
        asked |= {"max_drop": kept.max_drop, "metric": kept.task.metric}
    return asked


def _words(name: str, found: BackedOff, kept: Kept) -> str:
    """Say what a file loses, and which ops were left in float32 for it."""
    words = f"{name} loses {found.lost.points:.2f} points of {kept.task.metric}, at most "
    words += f"{kept.max_drop:g} asked"
    if not found.left:
        return words
    graph = found.model.graph
    return (
        f"{words}; {len(found.left)} of {len(graph.ops)} ops are left in float32 for it: "
        f"{', '.join(shorten(graph, found.left))}; without that {found.first.words}"
    )


def _quantized(
    subject: Subject,
    model: Model,
    number_format: NumberFormat,
    format_: Format,
    samples: tuple[Samples, Samples],
    kept: Kept,
) -> BackedOff:
    """Quantise the model on the first samples; the second ones judge, where that is asked."""
    train, held = samples
    judge = None
    if kept.max_drop is not None:
        given = as_inputs(subject.ends, held)
        agreement = TASKS.load("agreement")()
        judge = Judge(subject, format_, given, held.labels, kept.task, agreement)
    wanted = Wanted(number_format, len(train), kept.float_layers, kept.max_drop)
    inputs = None
    if number_format.is_static:
        inputs = graph_inputs(model, subject, as_inputs(subject.ends, train))
    return quantize(model, inputs, wanted, judge)


def quantize_original(
    own: OwnModel,
    number_format: NumberFormat,
    *,
    bench: DeviceBench,
    folder: Path,
    train: Samples,
    of_layers: str = "",
) -> OwnFile:
    """Quantise the user's own file, of which no graph can be made, by the library for its format.

    `of_layers` names what is asked of single layers, which no library can keep.

    Raises:
        ConfigError: it is no file, there is no library for it, that failed, or layers are asked of.
        VerificationError: what it wrote computes something else.
    """
    if of_layers:
        raise ConfigError(
            f"{own.unsupported}; so a library quantises it as a whole, and quantize.{of_layers} "
            "cannot be kept: leave it out"
        )
    original = own.original
    subject = None if original is None else find_runnable(str(original.path), own.options)
    if original is None or subject is None:
        raise ConfigError(own.unsupported)
    store = bench.memo.store
    target = folder / f"{Path(own.name).stem}-{number_format}{original.path.suffix}"
    inputs = {
        "file": original.sha256,
        "scheme": str(number_format),
        "samples": digest([train]),
        "shapes": {name: list(shape) for name, shape in own.options.shapes.items()},
    }

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        beside = quantize_file(
            subject,
            as_inputs(subject.ends, train),
            target,
            number_format,
            own.options,
            bench.events.say,
        )
        return _figures(beside), {"model": store.put_bytes(target.read_bytes())}

    step = bench.memo.once(QUANTIZE, inputs, work)
    _put(target, store.path(step.artifacts["model"]).read_bytes())
    name = f"{original.format} {number_format}"
    sha256 = step.artifacts["model"]
    return OwnFile(
        name, original.format, original.runtime, str(number_format), target, sha256, **step.result
    )


def _figures(beside: Beside) -> dict[str, Any]:
    """Return how the output does that compares worst."""
    worst = [output.sqnr_db for output in beside.outputs if output.sqnr_db is not None]
    return {
        "sqnr_db": min(worst, default=None),
        "error_share": max((output.error_share for output in beside.outputs), default=0.0),
    }


def _put(target: Path, content: bytes) -> None:
    if not target.is_file() or target.read_bytes() != content:
        write_whole(target, content)


def list_original(own: OwnModel) -> list[OwnFile]:
    """Return the user's own file, if a runtime takes it."""
    if own.original is None:
        return []
    found, model = own.original, own.model
    numbers = "" if model is None else str(model.number_format)
    return [OwnFile(AS_IT_CAME, found.format, found.runtime, numbers, found.path, found.sha256)]
