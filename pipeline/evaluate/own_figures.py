"""The files of a user's own model: timed, run and scored, here and on the device."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.api import Failure, Measurement, TensorValue
from device_agents.errors import ConfigError, DeviceError, VerificationError
from models import npz_file
from models.number_format import FLOAT32
from pipeline.data.task import score_outputs
from pipeline.evaluate.comparison import beside_headline
from pipeline.evaluate.own_data import digest
from pipeline.evaluate.own_files import as_inputs
from pipeline.formats.api import ReadOptions
from pipeline.formats.beside import compare_files
from pipeline.formats.pairing import move_inputs
from pipeline.formats.subjects import find_runnable
from pipeline.measure.device_subject import DeviceSubject
from pipeline.store.memo import StepKind
from pipeline.store.model_result import ModelFileRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from device_agents.api import BenchProtocol
    from pipeline.data.samples import Samples
    from pipeline.data.task import Task
    from pipeline.evaluate.own_files import OwnFile
    from pipeline.evaluate.own_model import OwnModel
    from pipeline.formats.ends import Arrays
    from pipeline.formats.subjects import FileSubject, Subject
    from pipeline.measure.bench import DeviceBench

RUN = StepKind("run-model")

_SENT_BYTES = 16 << 20


def time_own(
    files: Sequence[OwnFile],
    own: OwnModel,
    given: Samples,
    *,
    bench: DeviceBench,
    protocol: BenchProtocol,
) -> dict[str, Measurement | Failure]:
    """Measure files by name; in turns with the first of the same runtime that could be measured.

    That is the model as it came, or in float32. Each runs on the first of `given`.
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
                inputs=(
                    _fed(file, own, given),
                    () if beside is None else _fed(beside, own, given),
                ),
            )
            if isinstance(found, Measurement):
                first.setdefault(file.runtime, file)
            timed[file.name] = found
            task.advance(file.path.name)
    return timed


def encode_own(file: OwnFile, own: OwnModel, given: Samples, most: int) -> list[npt.NDArray[Any]]:
    """Return a few samples of every input (N, *shape) in a file's own numbers and order.

    Raises:
        ConfigError: no runtime here runs it.
    """
    ends = _runnable(file, own).ends
    values = {name: rows[:most] for name, rows in as_inputs(own.subject.ends, given).items()}
    encoded = ends.encode(move_inputs(own.subject.ends, ends, values))
    return [encoded[end.name] for end in ends.inputs]


def _fed(file: OwnFile, own: OwnModel, given: Samples) -> list[TensorValue]:
    return [
        TensorValue(values.dtype.name, values.shape, values.tobytes())
        for values in encode_own(file, own, given, 1)
    ]


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
    found = _runnable(file, own)
    if not there:
        return found
    shapes = own.options.shapes if file.is_original else {}
    return DeviceSubject(found, bench.device, file.runtime, shapes)


def _runnable(file: OwnFile, own: OwnModel) -> FileSubject:
    found = find_runnable(str(file.path), own.options if file.is_original else ReadOptions())
    if found is None:
        raise ConfigError(f"no runtime here runs {file.path}")
    return found


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
                scores.append(task.words(score_outputs(task, outputs[0], given.labels)))
            else:
                truths = run_own(None, own, given, bench=bench, there=False)
                pairs = zip(outputs, truths, strict=True)
                scores.append(task.words(min(score_outputs(task, o, truth) for o, truth in pairs)))
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
        drop_points=file.drop_points,
        left_in_float32=file.left_in_float32,
        drop_words=file.drop_words,
        latency_ms=figures.median_ms if figures else None,
        ci95_ms=figures.ci95_ms if figures else None,
        verdict=figures.verdict if figures else None,
        reasons=figures.reasons if figures else (timed.reason,),  # type: ignore[union-attr]
        partitions=figures.partitions if figures else None,
        beside=beside if figures and figures.ratio else "",
        ratio=figures.ratio if figures else None,
        ratio_ci95=figures.ratio_ci95 if figures else None,
    )
