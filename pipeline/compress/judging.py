"""What a quantised model loses against what it came from: run as the file that it is written as."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.formats.beside import compare_files

if TYPE_CHECKING:
    from models.model import Model
    from pipeline.data.task import Task
    from pipeline.formats.api import Format
    from pipeline.formats.ends import Array, Arrays
    from pipeline.formats.subjects import Subject


@dataclass(slots=True)
class Judge:
    """Holds files of one model against what it came from, on the same samples.

    Attributes:
        source: what it came from; it is run once.
        format_: what is written.
        inputs: by the source's names, (N, *shape) each.
        labels: truths of the task; None without any.
        task: what counts as good.
    """

    source: Subject
    format_: Format
    inputs: Arrays
    labels: Array | None
    task: Task
    _reference: Arrays | None = field(default=None, init=False)

    def drop_of(self, model: Model) -> float:
        """Return the points that a model's file loses: hundredths of the task's score.

        Without truths, of agreement with the source. What is looked at is the first output.

        Raises:
            ExportError: the format cannot express it.
            VerificationError: its outputs are others in number or shape.
        """
        content = self.format_.write(model)
        ends = self.format_.describe(content)
        _, ours, theirs = compare_files(
            (self.source.ends, ends),
            self.inputs,
            self._of_source,
            lambda given: ends.decode(self.format_.run(content, ends.encode(given))),
        )
        name = self.source.ends.outputs[0].name
        first, second = _samples(ours[name]), _samples(theirs[name])
        if self.labels is None:
            return 100 * (1 - self.task.agreement(second, first))
        return 100 * (self.task.score(first, self.labels) - self.task.score(second, self.labels))

    def _of_source(self, inputs: Arrays) -> Arrays:
        if self._reference is None:
            self._reference = self.source.run(inputs)
        return self._reference


def _samples(values: Array) -> Array:
    """Drop the batch dimension of 1 behind N, where there is one; a lone number is a row."""
    rows = values[:, 0] if values.ndim > 2 and values.shape[1] == 1 else values
    return rows if rows.ndim > 1 else rows[:, None]
