"""The files of a user's own model: written, held against what they came from, timed and scored."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.api import Failure, Measurement
from device_agents.errors import ConfigError, DeviceError, VerificationError
from device_agents.files import write_whole
from models import npz_file
from models.number_format import FLOAT32
from pipeline.compress.api import Needs
from pipeline.compress.chain import apply_passes, plan_quantization, to_model
from pipeline.evaluate.comparison import beside_headline
from pipeline.evaluate.own_data import digest
from pipeline.evaluate.own_model import AS_IT_CAME
from pipeline.formats import create
from pipeline.formats.api import ReadOptions
from pipeline.formats.beside import compare_files
from pipeline.formats.convert import graph_inputs, write_checked
from pipeline.formats.library.quantize import quantize_file
from pipeline.formats.subjects import find_runnable
from pipeline.measure.device_subject import DeviceSubject
from pipeline.measure.form import Form
from pipeline.measure.kernels import choose_format
from pipeline.store.memo import StepKind
from pipeline.store.model_result import ModelFileRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from device_agents.api import BenchProtocol
    from models.number_format import NumberFormat
    from pipeline.data.samples import Samples
    from pipeline.data.task import Task
    from pipeline.evaluate.own_model import OwnModel
    from pipeline.formats.beside import Beside
    from pipeline.formats.ends import Arrays, FileEnds
    from pipeline.formats.subjects import Subject
    from pipeline.measure.bench import DeviceBench

WRITE = StepKind("write-model")
QUANTIZE = StepKind("quantize-file")
RUN = StepKind("run-model")

COMPARED_SAMPLES = 32
_SENT_BYTES = 16 << 20


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


def time_own(
    files: Sequence[OwnFile], own: OwnModel, *, bench: DeviceBench, protocol: BenchProtocol
) -> dict[str, Measurement | Failure]:
    """Measure files by name; in turns with the first of the same runtime that could be measured.

    That is the model as it came, or in float32.
    """
    first: dict[str, OwnFile] = {}
    timed: dict[str, Measurement | Failure] = {}
    plain_first = sorted(files, key=lambda f: (not f.is_original, f.number_format != str(FLOAT32)))
    with bench.events.task("measure every file", len(files)) as task:
        for file in plain_first:
            beside = first.get(file.runtime)
            shapes = tuple(
                own.options.shapes if one is not None and one.is_original else {}
                for one in (file, beside)
            )
            found = bench.measure(
                {"model": file.sha256},
                lambda path=file.path: path,  # type: ignore[misc]
                protocol=protocol if beside is None else beside_headline(protocol),
                beside=beside,
                runtime=file.runtime,
                shapes=(shapes[0], shapes[1]),
            )
            if isinstance(found, Measurement):
                first.setdefault(file.runtime, file)
            timed[file.name] = found
            task.advance(file.path.name)
    return timed


def run_own(
    file: OwnFile | None, own: OwnModel, given: Samples, *, bench: DeviceBench, there: bool
) -> list[npt.NDArray[Any]]:
    """Return every output of samples (N, *shape), laid out as the source's, unless they are known.

    Args:
        file: runs; None for the source itself.
        own: the source.
        given: for its inputs.
        bench: the device, and the memory.
        there: run it on the device.

    Raises:
        ConfigError: it cannot be run here.
        DeviceError: nor there.
    """
    store = bench.memo.store
    inputs: dict[str, Any] = {
        "file": own.sha256 if file is None else file.sha256,
        "model": None if own.model is None else own.model.digest(),
        "samples": digest([given]),
    }
    if there:
        inputs |= {"device": bench.digest, "threads": bench.profile.threads, "run": bench.run_id}

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        source = own.subject
        values, names = as_inputs(source.ends, given), [end.name for end in source.ends.outputs]
        if file is None:
            outputs: Arrays = _batched(source.run)(values)
        elif file.is_original:
            outputs = _batched(_runner(file, own, bench, there=there).run)(values)
        else:
            found = run_own(None, own, given, bench=bench, there=False)
            known = dict(zip(names, found, strict=True))
            runner = _runner(file, own, bench, there=there)
            ends = (source.ends, runner.ends)
            _, _, outputs = compare_files(ends, values, lambda _: known, _batched(runner.run))
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {str(place): outputs[name] for place, name in enumerate(names)}
        np.savez(buffer, allow_pickle=False, **arrays)
        return {"outputs": len(names)}, {"outputs": store.put_bytes(buffer.getvalue())}

    step = bench.memo.once(RUN, inputs, work)
    kept = npz_file.read(store.path(step.artifacts["outputs"]))
    return [kept[str(place)] for place in range(step.result["outputs"])]


def _runner(file: OwnFile, own: OwnModel, bench: DeviceBench, *, there: bool) -> Subject:
    options = own.options if file.is_original else ReadOptions()
    found = find_runnable(str(file.path), options)
    if found is None:
        raise ConfigError(f"no runtime here runs {file.path}")
    if not there:
        return found
    shapes = options.shapes if file.is_original else {}
    return DeviceSubject(found, bench.device, file.runtime, shapes)


def _batched(run: Callable[[Arrays], Arrays]) -> Callable[[Arrays], dict[str, npt.NDArray[Any]]]:
    """Return what runs samples a few at once: so many bytes go to a process or a device."""

    def work(inputs: Arrays) -> dict[str, npt.NDArray[Any]]:
        count = len(next(iter(inputs.values())))
        each = max(1, sum(values.nbytes for values in inputs.values()) // count)
        step = max(1, _SENT_BYTES // each)
        parts = [
            run({name: values[at : at + step] for name, values in inputs.items()})
            for at in range(0, count, step)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return work


def score(task: Task, outputs: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """Return the score of outputs (N, 1, …); maps with channels first are turned.

    Raises:
        ConfigError: the outputs are none of the task.
    """
    one = outputs[:, 0] if outputs.ndim > 1 and outputs.shape[1] == 1 else outputs
    maps = truth.ndim == 3 and one.ndim == 4
    if task.truths == "masks" and maps and one.shape[1:3] != truth.shape[1:]:
        channels_first = one.shape[2:] == truth.shape[1:] or one.shape[1] < one.shape[3]
        one = np.moveaxis(one, 1, -1) if channels_first else one
    if task.truths == "none":
        return task.score(one, truth.reshape(one.shape))
    if task.truths == "classes":
        one = one.reshape(len(one), -1)
    return task.score(one, truth)


def score_own(
    file: OwnFile,
    own: OwnModel,
    given: Samples,
    *,
    task: Task,
    bench: DeviceBench,
) -> tuple[str | None, str | None, str]:
    """Return the scores of a file here and on the device, and what went wrong.

    Without labels the source's outputs are the truths, and the output that agrees least counts.
    """
    scores: list[str | None] = []
    wrong = ""
    for there in (False, True):
        try:
            outputs = run_own(file, own, given, bench=bench, there=there)
            if given.labels is not None:
                scores.append(task.words(score(task, outputs[0], given.labels)))
            else:
                truths = run_own(None, own, given, bench=bench, there=False)
                pairs = zip(outputs, truths, strict=True)
                scores.append(task.words(min(score(task, o, truth) for o, truth in pairs)))
        except (ConfigError, DeviceError, VerificationError) as error:
            scores.append(None)
            wrong = wrong or str(error)
    return scores[0], scores[1], wrong


def to_row(
    file: OwnFile,
    timed: Measurement | Failure,
    scores: tuple[str | None, str | None],
    beside: str,
) -> ModelFileRow:
    """Return a file as a row of the page."""
    figures = timed if isinstance(timed, Measurement) else None
    return ModelFileRow(
        name=file.name,
        format=file.format,
        scheme=file.number_format,
        sha256=file.sha256,
        path=str(file.path),
        bytes=file.path.stat().st_size,
        score_host=scores[0],
        score_device=scores[1],
        sqnr_db=file.sqnr_db,
        error_share=file.error_share,
        latency_ms=figures.median_ms if figures else None,
        ci95_ms=figures.ci95_ms if figures else None,
        verdict=figures.verdict if figures else None,
        reasons=figures.reasons if figures else (timed.reason,),  # type: ignore[union-attr]
        partitions=figures.partitions if figures else None,
        beside=beside if figures and figures.ratio else "",
        ratio=figures.ratio if figures else None,
        ratio_ci95=figures.ratio_ci95 if figures else None,
    )
