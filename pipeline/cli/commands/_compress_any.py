"""What `edgewright compress` does: passes one by one, judged as files, the last file checked."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError, DeviceError, VerificationError
from pipeline.cli.commands._compress_device import time_steps
from pipeline.cli.commands._compress_target import measured
from pipeline.cli.commands._compress_text import Outcome, say
from pipeline.cli.commands._export_any import say_whose_weights
from pipeline.cli.commands._made_file import choose_format, place, refuse_unwritten, stem_of
from pipeline.cli.commands._quantize_any import JUDGED_SAMPLES
from pipeline.cli.options import echo, show_steps

if TYPE_CHECKING:
    from pathlib import Path

    from models.model import Model
    from pipeline.cli.commands._compress_device import Timing
    from pipeline.cli.commands._compress_target import Aim
    from pipeline.compress.api import Pass
    from pipeline.compress.judging import Judge
    from pipeline.compress.prune_to_target import PruneToTarget
    from pipeline.compress.stepwise import Step
    from pipeline.compress.to_latency import Fitted
    from pipeline.data.pictures.values import Values
    from pipeline.evaluate.two_files import TwoFiles
    from pipeline.formats.api import Format, ReadOptions
    from pipeline.formats.ends import Array
    from pipeline.formats.subjects import Subject


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says; passes with the words that name them."""

    source: str
    passes: tuple[tuple[str, Pass], ...]
    options: ReadOptions
    data: Path | None
    values: Values | None
    format_name: str | None
    max_drop: float | None
    timing: Timing | None
    aim: Aim | None
    task: str
    count: int
    out: Path | None
    as_json: bool
    store: str | None = None
    fresh: bool = False

    @property
    def calibrating(self) -> list[tuple[str, Pass]]:
        """The passes that see samples, with the words that name them."""
        return [(words, one) for words, one in self.passes if "calibration" in one.uses]


def compress_any(asked: Asked) -> None:
    """Read a model, put it through passes, check the file, and say what each came to."""
    from pipeline.compress.api import Needs
    from pipeline.compress.remembered import Memory
    from pipeline.compress.stepwise import compress
    from pipeline.formats.api import Unsupported
    from pipeline.formats.convert import graph_inputs
    from pipeline.formats.generated_inputs import blame_generated
    from pipeline.formats.source import read_model
    from pipeline.formats.subjects import ModelSubject, find_runnable
    from pipeline.store import Store
    from pipeline.store.memo import Memo

    format_ = choose_format(asked.source, asked.format_name)
    _refuse_passes(asked, format_)
    target = place(asked.source, asked.out, f"{stem_of(asked.source)}-compressed{format_.suffix}")
    with (
        show_steps(f"compressing {asked.source}") as tell,
        blame_generated(generated=asked.data is None),
        ExitStack() as stack,
    ):
        tell("reading it")
        model = read_model(asked.source, asked.options)
        if isinstance(model, Unsupported):
            raise ConfigError(f"{model.sentence}; no pass can change it")
        subject = find_runnable(asked.source, asked.options) or ModelSubject(asked.source, model)
        calibration, judged, labels = _samples(asked, model, subject)
        judge = _judge(asked, subject, format_, judged, labels)
        # Passes that calibrate on nothing take models whose samples cannot be put together too.
        static = bool(asked.calibrating)
        needs = Needs(inputs=graph_inputs(model, subject, calibration) if static else None)
        passes = asked.passes
        measuring: PruneToTarget | None = None
        if asked.aim is not None:
            ((words, one),) = passes
            opened = measured(asked.aim, one.options, model, format_, tell)
            measuring = stack.enter_context(opened)
            passes = ((words, measuring),)
        store = stack.enter_context(Store.open(asked.store))
        memory = Memory.of(Memo(store), model, fresh=asked.fresh)
        steps = compress(
            model, passes, needs, judge, max_drop=asked.max_drop, memory=memory, tell=tell
        )
        fitted = None if measuring is None else measuring.fitted
        if fitted is not None:
            _check_measured(format_, steps[-1].model, fitted)
        tell(f"checking {target.name}")
        _write_checked(asked, format_, steps, target, subject, judged)
    first = {name: values[:1] for name, values in judged.items()}
    times, failed = _timed(asked, format_, steps, subject, first)
    outcome = Outcome(
        source=asked.source,
        file=target,
        steps=steps,
        task=None if judge.labels is None else judge.task,
        samples=len(next(iter(judged.values()), ())),
        max_drop=asked.max_drop,
        generated=asked.data is None,
        device="" if asked.timing is None else asked.timing.profile.name,
        times=times,
        latency=None if fitted is None or asked.aim is None else (fitted, asked.aim),
    )
    say(outcome, as_json=asked.as_json)
    say_whose_weights(asked.source, asked.options)
    invalid = [reason for one in times if one.verdict == "invalid" for reason in one.reasons]
    if failed or invalid:
        why = failed or f"the measurement is invalid: {'; '.join(dict.fromkeys(invalid))}"
        raise DeviceError(f"{why}; {target} is written and checked all the same")


def _write_checked(
    asked: Asked,
    format_: Format,
    steps: tuple[Step, ...],
    target: Path,
    subject: Subject,
    judged: dict[str, Array],
) -> None:
    """Write what the last pass gave and hold the file against it in real numbers.

    Raises:
        VerificationError: the file computes something else; nothing is written.
    """
    from pipeline.compress.judging import CHECKED_SAMPLES
    from pipeline.compress.passes.ptq import spread_rows
    from pipeline.formats.convert import write_checked
    from pipeline.formats.pairing import move_inputs
    from pipeline.formats.subjects import ModelSubject

    real = next(step.model for step in reversed(steps) if step.model.quantization is None)
    ours = ModelSubject(f"{asked.source} after its passes", real)
    few = {
        name: values[spread_rows(len(values), CHECKED_SAMPLES)] for name, values in judged.items()
    }
    given = move_inputs(subject.ends, ours.ends, few)
    write_checked(format_, steps[-1].model, target, ours, given)


def _timed(
    asked: Asked,
    format_: Format,
    steps: tuple[Step, ...],
    subject: Subject,
    first: dict[str, Array],
) -> tuple[tuple[TwoFiles, ...], str]:
    """Return what each pass gains on the device, if one is named, or why that is not known."""
    if asked.timing is None:
        return (), ""
    try:
        return time_steps(asked.timing, format_, steps, subject, first), ""
    except DeviceError as error:
        return (), str(error)


def _check_measured(format_: Format, model: Model, fitted: Fitted) -> None:
    """Make sure that what is written is what was measured. Raises VerificationError."""
    written = hashlib.sha256(format_.write(model)).hexdigest()
    if written != fitted.best.measured.sha256:
        raise VerificationError(
            f"the file would have the hash {written[:12]} and the one that was measured "
            f"{fitted.best.measured.sha256[:12]}: the {format_.name} writer gives other bytes for "
            "the same network; nothing is written"
        )


def _judge(
    asked: Asked, subject: Subject, format_: Format, judged: dict[str, Array], labels: Any
) -> Judge:
    """Return what judges; without the labels, where they are none of the task."""
    from pipeline.compress.chain import FOR_STORAGE
    from pipeline.compress.judging import Judge
    from pipeline.data import TASKS

    task, agreement = (TASKS.load(name)() for name in (asked.task, "agreement"))
    packs = any(one.name in FOR_STORAGE for _, one in asked.passes)
    judge = Judge(subject, format_, judged, labels, task, agreement, packs=packs)
    try:
        judge.score_source()
    except ConfigError as error:
        if asked.max_drop is not None:
            raise
        echo(f"edgewright: not scored: {error}", err=True)
        judge.labels = None
    return judge


def _samples(
    asked: Asked, model: Model, subject: Subject
) -> tuple[dict[str, Array], dict[str, Array], Any]:
    """Return the inputs that calibrate, those that judge, and the truths of the latter."""
    from pipeline.cli.samples import divide_samples, read_samples
    from pipeline.formats.generated_inputs import generate_inputs, index_ranges

    if asked.data is None:
        generated = generate_inputs(subject.ends, ranges=index_ranges(model))
        return generated, generated, None
    if not asked.calibrating:
        inputs, labels = read_samples(asked.data, subject.ends, asked.values, most=JUDGED_SAMPLES)
        return inputs, inputs, labels
    return divide_samples(
        asked.data,
        subject.ends,
        asked.values,
        calibrating=max(
            getattr(one.options, "images", asked.count) for _, one in asked.calibrating
        ),
        judging=JUDGED_SAMPLES,
        apart=True,
    )


def _refuse_passes(asked: Asked, format_: Format) -> None:
    """Refuse what the format does not hold, and what has no samples. Raises ConfigError."""
    from models.number_format import NumberFormat

    needing = [words for words, _ in asked.calibrating]
    what = f"{needing[0]} needs samples to calibrate on" if needing else ""
    if asked.max_drop is not None:
        what = what or "--max-drop needs samples to judge on"
    if what and asked.data is None:
        raise ConfigError(
            f"{what}; give --data FOLDER of pictures, or an .npz with an array for each input"
        )
    for _, one in asked.passes:
        if one.quantizes:
            refuse_unwritten(format_, NumberFormat.parse(one.options.scheme), "quantize:FORMAT")
