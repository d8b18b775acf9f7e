"""What a changed model loses against what it came from: run as the file that it is written as."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from device_agents.errors import VerificationError
from device_agents.model_files.weights import find_weights
from pipeline.coding import pack
from pipeline.compress.passes.ptq import spread_rows
from pipeline.data.task import score_outputs
from pipeline.formats.beside import Beside, check_files, compare_files, compare_output
from pipeline.formats.pairing import move_inputs

if TYPE_CHECKING:
    import numpy.typing as npt

    from models.model import Model
    from pipeline.data.task import Task
    from pipeline.formats.api import Format
    from pipeline.formats.ends import Array, Arrays
    from pipeline.formats.subjects import ModelSubject, Subject

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


@dataclass(frozen=True, slots=True)
class Worth:
    """What a model's file is worth beside what it came from.

    Attributes:
        bytes: size of the file.
        sqnr_db: of its worst output; None where all are integers.
        agreement: with what it came from, 0..1; see `Judge.judge`.
        score: by the task; None without truths.
        lost: the same as one figure.
        packed_bytes: of the file as `edgewright pack` packs it; None where nobody asked for it.
    """

    bytes: int
    sqnr_db: float | None
    agreement: float
    score: float | None
    lost: Lost
    packed_bytes: int | None = None


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
        made_from: what a file must compute to be handed over, where that is not the source, as of
            a network that was pruned first; its inputs are those of the source.
        reference: outputs of the source, once it has been run.
        packs: whether files are packed too, for what that makes of them.
    """

    source: Subject
    format_: Format
    inputs: Arrays
    labels: Array | None
    task: Task
    agreement: Task
    made_from: ModelSubject | None = None
    reference: Arrays | None = None
    packs: bool = False

    def judge(self, model: Model) -> Lost:
        """Return what a model's file loses: hundredths of the task's score, of the first output.

        Without truths, of agreement with the source: that of the task where the source gives one
        row of scores; else of the output that agrees least.

        Raises:
            ExportError: the format cannot express it.
            VerificationError: its outputs are others in number or shape.
        """
        content, found, ours, theirs = self._compared(model)
        return self._lost(content, found, ours, theirs)

    def measure(self, model: Model) -> Worth:
        """Return what a model's file is worth; raises as `judge`."""
        content, found, ours, theirs = self._compared(model)
        decibels = [output.sqnr_db for output in found.outputs if output.sqnr_db is not None]
        return Worth(
            bytes=len(content),
            sqnr_db=min(decibels, default=None),
            agreement=self._agreement(ours, theirs),
            score=None if self.labels is None else self._score(theirs, self.labels),
            lost=self._lost(content, found, ours, theirs),
            packed_bytes=self._packed_bytes(content) if self.packs else None,
        )

    def hold_to(self, made_from: ModelSubject) -> Judge:
        """Return a judge that refuses files for what they lose beside another model."""
        return replace(self, made_from=made_from)

    @property
    def unit(self) -> str:
        """What points are hundredths of."""
        return "agreement" if self.labels is None else self.task.metric

    def score_source(self) -> None:
        """Refuse labels that the source's outputs cannot be held against. Raises ConfigError."""
        if self.labels is not None:
            self._score(self._of_source(self.inputs), self.labels)

    def _packed_bytes(self, content: bytes) -> int:
        weights = find_weights(content, self.format_.name)
        return len(pack(content, weights).content)

    def _compared(self, model: Model) -> tuple[bytes, Beside, Arrays, Arrays]:
        """Return a model's file, and its outputs beside the source's."""
        content = self.format_.write(model)
        ends = self.format_.describe(content)
        found, ours, theirs = compare_files(
            (self.source.ends, ends),
            self.inputs,
            self._of_source,
            lambda given: ends.decode(self.format_.run(content, ends.encode(given))),
        )
        return content, found, ours, theirs

    def _lost(self, content: bytes, found: Beside, ours: Arrays, theirs: Arrays) -> Lost:
        if self.labels is None:
            share = 1 - self._agreement(ours, theirs)
        else:
            share = self._score(ours, self.labels) - self._score(theirs, self.labels)
        return Lost(100 * share, self._refusal(found, content, ours, theirs))

    def _score(self, outputs: Arrays, labels: Array) -> float:
        return score_outputs(self.task, outputs[self._first], labels)

    def _agreement(self, ours: Arrays, theirs: Arrays) -> float:
        return agree(self.task, self.agreement, ours, theirs)

    @property
    def _first(self) -> str:
        return self.source.ends.outputs[0].name

    def _refusal(self, found: Beside, content: bytes, ours: Arrays, theirs: Arrays) -> str:
        """Return why the file would be refused, on the samples on which it will be checked."""
        rows = spread_rows(found.samples, CHECKED_SAMPLES)
        numbers = [self.source.numbers, self.format_.read_numbers(content)]
        if self.made_from is not None:
            found, ours, theirs = self._beside_origin(self.made_from, content, rows)
            rows = np.arange(len(rows))
        figures = tuple(
            compare_output(one.name, one.other, ours[one.name][rows], theirs[one.name][rows])
            for one in found.outputs
        )
        try:
            check_files(Beside(len(rows), figures), numbers, (self.source.name, "the file"))
        except VerificationError as error:
            return str(error)
        return ""

    def _beside_origin(
        self, origin: ModelSubject, content: bytes, rows: npt.NDArray[np.int64]
    ) -> tuple[Beside, Arrays, Arrays]:
        """Return how a file compares with the model that it was made from, on some samples."""
        few = {name: values[rows] for name, values in self.inputs.items()}
        given = move_inputs(self.source.ends, origin.ends, few)
        ends = self.format_.describe(content)
        return compare_files(
            (origin.ends, ends),
            given,
            origin.run,
            lambda inputs: ends.decode(self.format_.run(content, ends.encode(inputs))),
        )

    def _of_source(self, inputs: Arrays) -> Arrays:
        if self.reference is None:
            self.reference = self.source.run(inputs)
        return self.reference


def agree(task: Task, agreement: Task, ours: Arrays, theirs: Arrays) -> float:
    """Return how far outputs say the same as those of a source, 0..1.

    Args:
        task: says it of an only output that is a row of scores.
        agreement: says it of any others: that of the output that agrees least.
        ours: of the source, by name.
        theirs: of what is held against it, by the same names.
    """
    if len(ours) == 1:
        first, second = (_samples(*outputs.values()) for outputs in (ours, theirs))
        if first.ndim == 2 and first.shape[1] > 1:  # (N, classes)
            return task.agreement(second, first)
    return min(agreement.agreement(theirs[name], ours[name]) for name in ours)


def _samples(values: Array) -> Array:
    """Drop the batch dimension of 1 behind N, where there is one."""
    return values[:, 0] if values.ndim > 2 and values.shape[1] == 1 else values
