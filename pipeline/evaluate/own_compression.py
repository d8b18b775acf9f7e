"""The chain of a recipe's [[compress]] on a user's own model, and what is then written of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError
from models.number_format import FLOAT32, STATIC8, NumberFormat
from pipeline.compress.recipe_passes import read_tables
from pipeline.compress.stepwise import find_real
from pipeline.evaluate.compression import Taken, Work, plan_chain, put_through, tell_chain
from pipeline.evaluate.own_files import as_inputs, list_own_forms
from pipeline.formats.pairing import move_inputs
from pipeline.formats.subjects import Remembered
from pipeline.measure.form import Form
from pipeline.measure.kernels import choose_format

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from device_agents.api import BenchProtocol
    from models.model import Model
    from pipeline.compress.stepwise import Step
    from pipeline.data.samples import Part, Samples
    from pipeline.data.task import Task
    from pipeline.evaluate.own_data import OwnData
    from pipeline.evaluate.own_model import OwnModel
    from pipeline.formats.api import Format
    from pipeline.formats.ends import FileEnds
    from pipeline.formats.subjects import Subject
    from pipeline.measure.bench import DeviceBench
    from pipeline.recipe.recipe import Recipe
    from pipeline.store.compression import Compression


@dataclass(frozen=True, slots=True)
class MovedData:
    """A model's samples as another model of the same inputs takes them."""

    data: OwnData
    first: FileEnds
    second: FileEnds

    @property
    def task(self) -> Task:
        """What counts as good."""
        return self.data.task

    def take(self, part: Part, most: int) -> Samples:
        """Return samples of a split; see `OwnData.take`."""
        taken = self.data.take(part, most)
        inputs = move_inputs(self.first, self.second, as_inputs(self.first, taken))
        return replace(taken, inputs=inputs)


@dataclass(frozen=True, slots=True)
class OwnCompressed:
    """A model after the passes of its recipe.

    Attributes:
        own: the model as it came.
        work: what the passes worked on.
        steps: what they gave.
        real: the last in real numbers, which files are held against.
        format_: of the files that were judged.
    """

    own: OwnModel
    work: Work
    steps: tuple[Step, ...]
    real: Model
    format_: Format

    def list_forms(
        self, formats: Sequence[str], wanted: Form, more: Sequence[NumberFormat] = ()
    ) -> Iterator[tuple[OwnModel, Form]]:
        """Return what is written: the compressed model in float32 and as asked, by its forms.

        Of a chain that quantises, what it gave; else what `list_own_forms` says.
        """
        last = self.steps[-1].model
        for form in list_own_forms(self._named(self.real), formats, wanted, more):
            if last.quantization is None or form.number_format == FLOAT32:
                yield self._named(self.real), form
        if last.quantization is not None:
            for form in list_own_forms(self._named(last), formats, wanted):
                yield self._named(last), form

    def _named(self, model: Model) -> OwnModel:
        return replace(self.own, model=model, original=None)

    def tell(self, bench: DeviceBench, folder: Path, protocol: BenchProtocol) -> Compression:
        """Time the file of each step on the device, and tell what the passes came to."""
        return tell_chain(
            self.work, self.steps, self.format_, bench=bench, folder=folder, protocol=protocol
        )


def compress_own(own: OwnModel, data: OwnData, recipe: Recipe, bench: DeviceBench) -> OwnCompressed:
    """Put a model through the passes of its recipe.

    Raises:
        ConfigError: no graph could be made of it, or a pass refuses it.
        TargetError: more is lost than a pass may lose.
        VerificationError: the model's own file does not compute what it computes.
    """
    if own.model is None:
        raise ConfigError(
            f"{own.unsupported}; so no pass can change it: leave out [[compress]] to quantise it "
            "as a file"
        )
    section = recipe.need_model("run")
    planned = plan_chain(recipe, bench)
    subject = Remembered(own.subject)
    # An int8 file of the form that is written; of other number formats there is one.
    form = Form(bench.profile.runtime, choose_numbers(recipe, STATIC8))
    format_ = choose_format(bench, form)
    work = Work(
        own.name,
        own.model,
        subject,
        data.task,
        lambda most: _taken(subject, data.take("train", most)),
        _taken(subject, data.take("validation", section.samples)),
        section.samples,
    )
    steps = put_through(work, planned, format_, bench=bench, seed=recipe.seed)
    real = find_real([(one.words, one.one) for one in planned], steps)
    return OwnCompressed(own, work, steps, real, format_)


def choose_numbers(recipe: Recipe, usual: NumberFormat) -> NumberFormat:
    """Return the number format that the passes of a recipe give; `usual` where none quantises."""
    if not recipe.quantizes:
        return usual
    last = read_tables(recipe.compress, "the recipe")[-1].one
    return NumberFormat.parse(last.options.scheme)


def _taken(subject: Subject, samples: Samples) -> Taken:
    return Taken(as_inputs(subject.ends, samples), samples.labels)
