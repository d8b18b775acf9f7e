"""The files of a user's own model: written, quantised, and held against what they came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError
from device_agents.files import write_whole
from models.number_format import FLOAT32
from pipeline.compress.api import Needs
from pipeline.compress.chain import apply_passes, plan_quantization, to_model
from pipeline.evaluate.own_data import digest
from pipeline.formats import create
from pipeline.formats.convert import graph_inputs, write_checked
from pipeline.formats.subjects import find_runnable
from pipeline.formats.third_party.quantize import quantize_file
from pipeline.measure.form import Form
from pipeline.measure.kernels import choose_format
from pipeline.store.memo import StepKind
from pipeline.store.model_result import AS_IT_CAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from models.number_format import NumberFormat
    from pipeline.data.samples import Samples
    from pipeline.evaluate.own_model import OwnModel
    from pipeline.formats.beside import Beside
    from pipeline.formats.ends import FileEnds
    from pipeline.measure.bench import DeviceBench

WRITE = StepKind("write-model")
QUANTIZE = StepKind("quantize-file")

COMPARED_SAMPLES = 32


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A file of the model; `number_format` is a name for the page where it is as it came."""

    name: str
    format: str
    runtime: str
    number_format: str
    path: Path
    sha256: str
    sqnr_db: float | None = None
    error_share: float | None = None

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


def list_own_forms(own: OwnModel, formats: Sequence[str], wanted: Form) -> list[Form]:
    """Return what a model is written as: in float32 and as asked; codes that it holds stay."""
    if own.model is None:
        return []
    numbers: tuple[NumberFormat, ...] = (wanted.number_format, FLOAT32)
    if own.model.quantization is not None:
        numbers = (own.model.number_format,)
    names = dict.fromkeys((wanted.runtime, *formats))
    return [
        Form(name, number_format)
        for name in names
        for number_format in dict.fromkeys(numbers)
        if number_format in create(name).number_formats
    ]


def write_own(
    own: OwnModel, form: Form, *, bench: DeviceBench, folder: Path, train: Samples, held: Samples
) -> OwnFile:
    """Write a model in a form and hold the file against its source, unless that has been done.

    Args:
        own: the model.
        form: format and number format.
        bench: the device that it is for.
        folder: where it goes.
        train: samples to calibrate on.
        held: samples to compare on.

    Raises:
        ConfigError: it cannot be written so.
        VerificationError: the file computes something else.
    """
    if own.model is None:
        raise ConfigError(own.unsupported)
    model, number_format = own.model, form.number_format
    codes = model.quantization is not None
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
    }

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        subject = own.subject
        needs = Needs()
        if number_format.is_static and passes:
            needs = Needs(inputs=graph_inputs(model, subject, as_inputs(subject.ends, train)))
        made = to_model(apply_passes(model, passes, needs))
        few = as_inputs(subject.ends, held)
        checked = write_checked(format_, made, target, subject, few)
        return _figures(checked.beside), {"model": store.put_bytes(target.read_bytes())}

    step = bench.memo.once(WRITE, inputs, work)
    sha256 = step.artifacts["model"]
    _put(target, store.path(sha256).read_bytes())
    name = f"{form.runtime} {number_format}"
    return OwnFile(
        name, form.runtime, form.runtime, str(number_format), target, sha256, **step.result
    )


def quantize_original(
    own: OwnModel,
    number_format: NumberFormat,
    *,
    bench: DeviceBench,
    folder: Path,
    train: Samples,
) -> OwnFile:
    """Quantise the user's own file, of which no graph can be made, by the library for its format.

    Raises:
        ConfigError: it is no file, there is no library for it, or that failed.
        VerificationError: what it wrote computes something else.
    """
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
