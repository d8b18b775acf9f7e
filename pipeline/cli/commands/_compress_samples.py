"""The samples of `edgewright compress`: to calibrate on, to learn from, to judge by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.cli.commands._quantize_any import JUDGED_SAMPLES

if TYPE_CHECKING:
    from models.model import Model
    from pipeline.cli.commands._compress_any import Asked
    from pipeline.compress.api import Needs
    from pipeline.compress.judging import Judge
    from pipeline.formats.ends import Array
    from pipeline.formats.subjects import Subject


@dataclass(frozen=True, slots=True)
class Read:
    """Samples by the names of the source's inputs, (N, *shape) each.

    Attributes:
        judged: what is judged on.
        labels: truths of those; None without any.
        calibration: what passes calibrate on; empty where none does.
        learnt: what passes learn from, and none is judged on; empty where none does.
        truths: of those; None without any.
    """

    judged: dict[str, Array]
    labels: Any
    calibration: dict[str, Array]
    learnt: dict[str, Array]
    truths: Any = None


def read_for(asked: Asked, model: Model, subject: Subject) -> Read:
    """Read what the passes and their judge need. Raises ConfigError: one sentence."""
    from pipeline.compress.api import LEARNING

    wanted = (getattr(one.options, "images", asked.count) for _, one in asked.using("calibration"))
    count = max(wanted, default=0)
    return read_samples_for(asked, model, subject, count, learning=bool(asked.using(*LEARNING)))


def read_samples_for(
    asked: Asked, model: Model, subject: Subject, count: int, *, learning: bool = False
) -> Read:
    """Read samples to judge by, `count` at most to calibrate on, and others to learn from."""
    from pipeline.cli.samples import divide_samples, read_samples, share_samples
    from pipeline.compress.passes.ptq import spread_rows
    from pipeline.formats.generated_inputs import generate_inputs, index_ranges

    if asked.data is None:
        generated = generate_inputs(subject.ends, ranges=index_ranges(model))
        return Read(generated, None, generated if count else {}, {})
    where = (asked.data, subject.ends, asked.values)
    if learning:
        shared = share_samples(*where, judging=JUDGED_SAMPLES)
        few = {name: x[spread_rows(len(x), count)] for name, x in shared.learnt.items() if count}
        return Read(shared.judged, shared.labels, few, shared.learnt, shared.truths)
    if not count:
        inputs, labels = read_samples(*where, most=JUDGED_SAMPLES)
        return Read(inputs, labels, {}, {})
    calibration, judged, labels = divide_samples(
        *where, calibrating=count, judging=JUDGED_SAMPLES, apart=True
    )
    return Read(judged, labels, calibration, {})


def needs_of(read: Read, model: Model, subject: Subject, judge: Judge, tell: Any) -> Needs:
    """Return what passes may ask for; who teaches is the model as it came.

    `judge` has no labels where they are none of its task: nothing is learnt from them either.
    """
    from pipeline.compress.api import Lessons, Needs
    from pipeline.formats.convert import graph_inputs

    # Passes that use no samples take models whose samples cannot be put together too.
    inputs = graph_inputs(model, subject, read.calibration) if read.calibration else None
    if not read.learnt:
        return Needs(inputs=inputs)
    lessons = Lessons(
        graph_inputs(model, subject, read.learnt),
        None if judge.labels is None else read.truths,
        judge.task,
        teachers=(model,),
        tell=tell,
    )
    return Needs(inputs=inputs, lessons=lessons)
