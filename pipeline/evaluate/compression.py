"""The chain of passes of a recipe: done, judged as files, timed in turns, and told step by step."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.api import Failure, Measurement
from device_agents.files import write_whole
from pipeline.compress.api import LEARNING, Lessons, Needs
from pipeline.compress.judging import Judge
from pipeline.compress.recipe_passes import read_tables
from pipeline.compress.remembered import Memory
from pipeline.compress.stepwise import compress
from pipeline.data import TASKS
from pipeline.data.proportions import wilson
from pipeline.evaluate.comparison import beside_headline
from pipeline.formats.convert import graph_inputs
from pipeline.formats.pairing import move_inputs
from pipeline.formats.subjects import Remembered
from pipeline.store.compression import Compression, LayerRow, StepRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from device_agents.api import BenchProtocol
    from models.model import Model
    from pipeline.compress.recipe_passes import Planned
    from pipeline.compress.stepwise import Step
    from pipeline.data.task import Task
    from pipeline.formats.api import Format
    from pipeline.formats.ends import Arrays
    from pipeline.formats.subjects import Subject
    from pipeline.measure.bench import DeviceBench
    from pipeline.recipe.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Taken:
    """Samples as a source takes them, (N, *shape) by its names, with their truths if known."""

    inputs: Arrays
    labels: npt.NDArray[Any] | None

    def __len__(self) -> int:
        """Return the number of samples."""
        return max(map(len, self.inputs.values()), default=0)


@dataclass(frozen=True, slots=True)
class Work:
    """What a chain of passes works on.

    Attributes:
        name: of the model, as its user calls it.
        model: in real numbers.
        source: what it is held against, which has the same inputs and outputs.
        task: what counts as good.
        train: gives samples to calibrate on and to learn from, so many at most.
        held: samples that judge.
        most: samples that are learnt from, at most.
    """

    name: str
    model: Model
    source: Subject
    task: Task
    train: Callable[[int], Taken]
    held: Taken
    most: int


def plan_chain(recipe: Recipe, bench: DeviceBench) -> tuple[Planned, ...]:
    """Return the passes of a recipe, as its device likes them."""
    return read_tables(
        recipe.compress,
        "the recipe",
        images=recipe.quantize.calibration_images,
        multiple=bench.profile.channel_multiple,
    )


def put_through(
    work: Work, planned: Sequence[Planned], format_: Format, *, bench: DeviceBench, seed: int
) -> tuple[Step, ...]:
    """Put a model through the passes, each judged on validation samples; what is known stays so.

    Args:
        work: the model, and its samples.
        planned: the passes.
        format_: of the files that are judged.
        bench: remembers, and is told.
        seed: of every draw.

    Raises:
        ConfigError: a pass refuses the model.
        TargetError: more is lost than a pass may lose.
        VerificationError: the model's own file does not compute what it computes.
    """
    source = Remembered(work.source)
    agreement = TASKS.load("agreement")()
    held = work.held
    judge = Judge(source, format_, held.inputs, held.labels, work.task, agreement, packs=True)
    with bench.events.task("compress", len(planned)) as task:
        begun = 0

        def tell(words: str) -> None:
            nonlocal begun
            if begun < len(planned) and words == planned[begun].words:
                begun += 1
            task.update(max(begun - 1, 0), words)

        steps = compress(
            work.model,
            [(one.words, one.one) for one in planned],
            _needs(work, planned, seed, tell),
            judge,
            limits=[one.max_drop for one in planned],
            memory=Memory.of(bench.memo, work.model, fresh=False),
            tell=tell,
        )
        task.update(len(planned), steps[-1].name)
    return steps


def _needs(
    work: Work, planned: Sequence[Planned], seed: int, tell: Callable[[str], object]
) -> Needs:
    """Return what the passes use."""
    calibrating = [one.one for one in planned if "calibration" in one.one.uses]
    learning = any(one.one.uses & LEARNING for one in planned)

    def given(most: int) -> tuple[dict[str, Any], npt.NDArray[Any] | None]:
        taken = work.train(most)
        return graph_inputs(work.model, work.source, taken.inputs), taken.labels

    inputs = lessons = None
    if calibrating:
        inputs, _ = given(max(getattr(one.options, "images", 1) for one in calibrating))
    if learning:
        samples, truths = given(work.most)
        lessons = Lessons(samples, truths, work.task, (work.model,), seed=seed, tell=tell)
    return Needs(inputs=inputs, lessons=lessons)


@dataclass(frozen=True, slots=True)
class StepFile:
    """What a model is after a pass, as a file."""

    path: Path
    sha256: str


def tell_chain(
    work: Work,
    steps: Sequence[Step],
    format_: Format,
    *,
    bench: DeviceBench,
    folder: Path,
    protocol: BenchProtocol,
) -> Compression:
    """Write the file of each step, time it in turns with that of the model as it came, and tell.

    Args:
        work: what was worked on.
        steps: what came of it.
        format_: of the files.
        bench: the device.
        folder: of the run; the files go to `compression` in it.
        protocol: of the first file; the others are timed as files beside a headline are.
    """
    files, fed = [], []
    first = {name: values[:1] for name, values in work.held.inputs.items()}
    for place, step in enumerate(steps):
        content = format_.write(step.model)
        path = folder / "compression" / f"{place}-{step.name.partition(':')[0]}{format_.suffix}"
        path = path.with_name(path.name.replace(" ", "-"))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
        files.append(StepFile(path, hashlib.sha256(content).hexdigest()))
        ends = format_.describe(content)
        fed.append(ends.to_device(move_inputs(work.source.ends, ends, first)))
    timed: list[Measurement | Failure] = []
    with bench.events.task("time every step", len(steps)) as task:
        for file, inputs in zip(files, fed, strict=True):
            beside = files[0] if timed else None
            timed.append(
                bench.measure(
                    {"model": file.sha256},
                    lambda path=file.path: path,  # type: ignore[misc]
                    protocol=beside_headline(protocol) if timed else protocol,
                    beside=beside,
                    inputs=(inputs, fed[0] if timed else ()),
                )
            )
            task.advance(file.path.name)
    priors = (None, *steps)
    rows = [
        _row(step, prior, work, found)
        for step, prior, found in zip(steps, priors, timed, strict=False)
    ]
    return Compression(
        source=work.name,
        format=format_.name,
        device=bench.name,
        metric=None if work.held.labels is None else work.task.metric,
        samples=len(work.held),
        split="validation",
        steps=tuple(rows),
        layers=count_layers(steps[0].model, steps[-1].model),
    )


def _row(step: Step, prior: Step | None, work: Work, timed: Measurement | Failure) -> StepRow:
    task = None if work.held.labels is None else work.task
    row = describe_step(step, prior, task, len(work.held))
    if isinstance(timed, Failure):
        return replace(row, reasons=(timed.reason,))
    return replace(
        row,
        latency_ms=timed.median_ms,
        ci95_ms=timed.ci95_ms,
        ratio=timed.ratio,
        ratio_ci95=timed.ratio_ci95,
        verdict=timed.verdict,
        reasons=timed.reasons,
    )


def describe_step(step: Step, prior: Step | None, task: Task | None, samples: int) -> StepRow:
    """Return a step as it is shown, without its time.

    Args:
        step: the model as it came, or after a pass.
        prior: the step before; None of the model as it came.
        task: what scores are of; None where there are none.
        samples: on so many it was judged.
    """
    worth = step.worth
    score = None if task is None else worth.score
    shares = task is not None and task.truths == "classes"
    return StepRow(
        name=step.name,
        done=step.done,
        changed=prior is not None and not step.is_as(prior),
        bytes=worth.bytes,
        packed_bytes=worth.packed_bytes,
        macs=step.macs,
        params=step.params,
        agreement=worth.agreement,
        sqnr_db=worth.sqnr_db,
        score=score,
        score_ci95=None if score is None or not shares else wilson(score, samples),
        shown="" if score is None or task is None else task.words(score),
        lost_points=worth.lost.points,
        left_in_float32=step.left,
    )


def count_layers(first: Model, last: Model) -> tuple[LayerRow, ...]:
    """Return the parameters of each layer of a model before and after its passes."""
    kinds = {op.name: op.kind for op in first.graph.ops}
    rows = []
    for name, arrays in first.weights.items():
        left = last.weights.get(name, ())
        after = sum(array.size for array in left)
        zeros = int(np.count_nonzero(left[0] == 0)) if left else 0
        before = sum(array.size for array in arrays)
        rows.append(LayerRow(name, kinds.get(name, "constant"), before, after, after - zeros))
    return tuple(rows)
