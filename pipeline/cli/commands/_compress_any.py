"""What `edgewright compress` does: passes one by one, judged as files, the last file checked."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError, DeviceError
from pipeline.cli.commands._compress_codes import compare_there
from pipeline.cli.commands._compress_device import time_steps
from pipeline.cli.commands._compress_report import write_report
from pipeline.cli.commands._compress_samples import needs_of, read_for
from pipeline.cli.commands._compress_target import measured
from pipeline.cli.commands._compress_text import Outcome, say
from pipeline.cli.commands._export_any import say_whose_weights
from pipeline.cli.commands._islands import time_islands
from pipeline.cli.commands._made_file import (
    choose_format,
    place,
    read_graph,
    refuse_unmeasured,
    refuse_unwritten,
    stem_of,
    write_compressed,
)
from pipeline.cli.options import echo, show_steps

if TYPE_CHECKING:
    from pathlib import Path

    from models.model import Model
    from pipeline.cli.commands._compress_device import Timing
    from pipeline.cli.commands._compress_samples import Read
    from pipeline.cli.commands._compress_target import Aim
    from pipeline.cli.commands._islands import Islands
    from pipeline.compress.api import Needs, Pass, Use
    from pipeline.compress.judging import Judge
    from pipeline.compress.prune_to_target import PruneToTarget
    from pipeline.compress.stepwise import Step
    from pipeline.data.pictures.values import Values
    from pipeline.evaluate.two_files import TwoFiles
    from pipeline.formats.api import Format, ReadOptions
    from pipeline.formats.ends import Array
    from pipeline.formats.subjects import Subject
    from pipeline.measure.codes import CodesBeside


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
    report: Path | None = None

    def using(self, *uses: Use) -> list[tuple[str, Pass]]:
        """Return the passes that use samples for any of this, with the words that name them."""
        return [(words, one) for words, one in self.passes if not one.uses.isdisjoint(uses)]


def compress_any(asked: Asked) -> None:
    """Read a model, put it through passes, check the file, and say what each came to."""
    from pipeline.compress.remembered import Memory
    from pipeline.compress.stepwise import compress, find_real
    from pipeline.formats.generated_inputs import blame_generated
    from pipeline.formats.subjects import ModelSubject
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
        model, subject = read_graph(asked.source, asked.options, else_what="no pass can change it")
        read = read_for(asked, model, subject)
        judged = read.judged
        judge = make_judge(asked, subject, format_, read)
        needs = needs_of(read, model, subject, judge, tell)
        passes = asked.passes
        measuring: PruneToTarget | None = None
        if asked.aim is not None:
            ((words, one),) = passes
            opened = measured(asked.aim, one.options, model, format_, tell, lessons=needs.lessons)
            measuring = stack.enter_context(opened)
            passes = ((words, measuring),)
        store = stack.enter_context(Store.open(asked.store))
        memory = Memory.of(Memo(store), model, fresh=asked.fresh)
        steps = compress(
            model, passes, needs, judge, max_drop=asked.max_drop, memory=memory, tell=tell
        )
        fitted = None if measuring is None else measuring.fitted
        if fitted is not None:
            refuse_unmeasured(format_, steps[-1].model, fitted.best.measured.sha256)
        tell(f"checking {target.name}")
        ours = ModelSubject(f"{asked.source} after its passes", find_real(passes, steps))
        write_compressed(format_, steps[-1].model, target, ours, (subject, judged))
    there = _run_there(asked, format_, steps, needs, (subject, judged), target)
    outcome = Outcome(
        source=asked.source,
        file=target,
        format=format_.name,
        steps=steps,
        task=None if judge.labels is None else judge.task,
        samples=len(next(iter(judged.values()), ())),
        max_drop=asked.max_drop,
        generated=asked.data is None,
        device="" if asked.timing is None else asked.timing.profile.name,
        times=there.times,
        islands=there.islands,
        codes=there.codes,
        latency=None if fitted is None or asked.aim is None else (fitted, asked.aim),
    )
    say(outcome, as_json=asked.as_json)
    if asked.report is not None:
        write_report(outcome, asked.report)
    say_whose_weights(asked.source, asked.options)
    there.check(target, outcome.device)


@dataclass(slots=True)
class _There:
    """What passes gain on the device, if one is named, and why it is not known."""

    times: tuple[TwoFiles, ...] = ()
    islands: Islands | None = None
    codes: CodesBeside | None = None
    failed: str = ""

    def check(self, target: Path, device: str) -> None:
        """Raise DeviceError for what failed or is invalid, VerificationError for wrong codes."""
        from pipeline.measure.codes import check_codes

        invalid = [why for one in self.times if one.verdict == "invalid" for why in one.reasons]
        if self.failed or invalid:
            why = self.failed or f"the measurement is invalid: {'; '.join(dict.fromkeys(invalid))}"
            raise DeviceError(f"{why}; {target} is written and checked all the same")
        if self.codes is not None:
            check_codes(self.codes, str(target), f"on device {device!r}")


def _run_there(
    asked: Asked,
    format_: Format,
    steps: tuple[Step, ...],
    needs: Needs,
    samples: tuple[Subject, dict[str, Array]],
    target: Path,
) -> _There:
    """Time what passes gain on the device and what layers in float32 cost; compare its codes."""
    there = _There()
    if asked.timing is None:
        return there
    subject, judged = samples
    first = {name: values[:1] for name, values in judged.items()}
    try:
        there.times = time_steps(asked.timing, format_, steps, subject, first)
        left = len(steps[-1].left)
        if left:
            models = (steps[-2].model, _throughout(asked, steps, needs), steps[-1].model)
            there.islands = time_islands(asked.timing, format_, models, samples, left)
        there.codes = compare_there(asked.timing, target, samples)
    except DeviceError as error:
        there.failed = str(error)
    return there


def _throughout(asked: Asked, steps: tuple[Step, ...], needs: Needs) -> Model:
    """Return what the last pass would give if it left no layer in float32 for what is lost."""
    from models.number_format import NumberFormat
    from pipeline.compress.passes.ptq import PTQ
    from pipeline.compress.quantize import Wanted, quantize_throughout

    _, last = asked.passes[-1]
    options = last.options
    wanted = Wanted(NumberFormat.parse(options.scheme), options.images, options.float_layers)
    if isinstance(last, PTQ):
        wanted = Wanted.by(last.options)
    return quantize_throughout(steps[-2].model, needs.inputs, wanted)


def make_judge(asked: Asked, subject: Subject, format_: Format, read: Read) -> Judge:
    """Return what judges; without the labels, where they are none of the task."""
    from pipeline.compress.chain import FOR_STORAGE
    from pipeline.compress.judging import Judge
    from pipeline.data import TASKS

    task, agreement = (TASKS.load(name)() for name in (asked.task, "agreement"))
    packs = any(one.name in FOR_STORAGE for _, one in asked.passes)
    judge = Judge(subject, format_, read.judged, read.labels, task, agreement, packs=packs)
    try:
        judge.score_source()
    except ConfigError as error:
        if asked.max_drop is not None:
            raise
        echo(f"edgewright: not scored: {error}", err=True)
        judge.labels = None
    return judge


def _refuse_passes(asked: Asked, format_: Format) -> None:
    """Refuse what the format does not hold, and what has no samples. Raises ConfigError."""
    from models.number_format import NumberFormat
    from pipeline.compress.api import LEARNING

    calibrating = [
        f"{words} needs samples to calibrate on" for words, _ in asked.using("calibration")
    ]
    training = [f"{words} needs samples to learn from" for words, _ in asked.using(*LEARNING)]
    what = next(iter((*training, *calibrating)), "")
    if asked.max_drop is not None:
        what = what or "--max-drop needs samples to judge on"
    if what and asked.data is None:
        raise ConfigError(
            f"{what}; give --data FOLDER of pictures, or an .npz with an array for each input"
        )
    for _, one in asked.passes:
        if one.quantizes:
            refuse_unwritten(format_, NumberFormat.parse(one.options.scheme), "quantize:FORMAT")
