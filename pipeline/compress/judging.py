"""What a quantised model loses against what it came from: run as the file that it is written as."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from device_agents.errors import VerificationError
from pipeline.compress.passes.ptq import spread_rows
from pipeline.data.task import score_outputs
from pipeline.formats.beside import Beside, check_files, compare_files, compare_output

if TYPE_CHECKING:
    from models.model import Model
    from pipeline.data.task import Task
    from pipeline.formats.api import Format
    from pipeline.formats.ends import Array, Arrays
    from pipeline.formats.subjects import Subject

CHECKED_SAMPLES = 32
"""On which a file is held against its source before it is handed over."""


@dataclass(frozen=True, slots=True)
class Lost:
    """What a file loses.

    Attributes:
        points: hundredths of the task's score, or of agreement.
        refused: why the file would not be handed over whatever it loses; empty if it would.
    """

    points: float
    refused: str = ""

    def holds(self, most: float) -> bool:
        """Tell whether the file can be handed over and loses no more points than `most`."""
        return self.points <= most and not self.refused

    @property
    def words(self) -> str:
        """Say what is lost, as the end of a sentence."""
        refused = f", and {self.refused}" if self.refused else ""
        return f"it loses {self.points:.2f} points{refused}"


@dataclass(slots=True)
class Judge:
    """Holds files of one model against what it came from, on the same samples.

    Attributes:
        source: what it came from; it is run once.
        format_: what is written.
        inputs: by the source's names, (N, *shape) each.
        labels: truths of the task; None without any.
        task: what counts as good, where there are labels, or where the only output is a row of
            scores.
        agreement: what counts as good of any other outputs.
    """

    source: Subject
    format_: Format
    inputs: Arrays
    labels: Array | None
    task: Task
    agreement: Task
    _reference: Arrays | None = field(default=None, init=False)

    def judge(self, model: Model) -> Lost:
        """Return what a model's file loses: hundredths of the task's score, of the first output.

        Without truths, of agreement with the source: that of the task where the source gives one
        row of scores; else of the output that agrees least.

        Raises:
            ExportError: the format cannot express it.
            VerificationError: its outputs are others in number or shape.
        """
        content = self.format_.write(model)
        ends = self.format_.describe(content)
        found, ours, theirs = compare_files(
            (self.source.ends, ends),
            self.inputs,
            self._of_source,
            lambda given: ends.decode(self.format_.run(content, ends.encode(given))),
        )
        return Lost(self._points(ours, theirs), self._refusal(found, content, ours, theirs))

    def _points(self, ours: Arrays, theirs: Arrays) -> float:
        name = self.source.ends.outputs[0].name
        if self.labels is not None:
            of_source = score_outputs(self.task, ours[name], self.labels)
            return 100 * (of_source - score_outputs(self.task, theirs[name], self.labels))
        first, second = _samples(ours[name]), _samples(theirs[name])
        if len(ours) == 1 and first.ndim == 2 and first.shape[1] > 1:  # (N, classes)
            return 100 * (1 - self.task.agreement(second, first))
        return 100 * (1 - min(self.agreement.agreement(theirs[name], ours[name]) for name in ours))

    def _refusal(self, found: Beside, content: bytes, ours: Arrays, theirs: Arrays) -> str:
        """Return why the file would be refused, on the samples on which it will be checked."""
        rows = spread_rows(found.samples, CHECKED_SAMPLES)
        figures = tuple(
            compare_output(one.name, one.other, ours[one.name][rows], theirs[one.name][rows])
            for one in found.outputs
        )
        numbers = [self.source.numbers, self.format_.read_numbers(content)]
        try:
            check_files(Beside(len(rows), figures), numbers, (self.source.name, "the file"))
        except VerificationError as error:
            return str(error)
        return ""

    def _of_source(self, inputs: Arrays) -> Arrays:
        if self._reference is None:
            self._reference = self.source.run(inputs)
        return self._reference


def _samples(values: Array) -> Array:
    """Drop the batch dimension of 1 behind N, where there is one."""
    return values[:, 0] if values.ndim > 2 and values.shape[1] == 1 else values
