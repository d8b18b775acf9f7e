"""The chain of a recipe's [[compress]] on the winner of a search, and the file that comes of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.api import Failure
from device_agents.files import write_whole
from models.number_format import FLOAT32
from pipeline.compress.pass_words import QUANTIZE, make_quantizer
from pipeline.compress.recipe_passes import Planned
from pipeline.compress.stepwise import find_real
from pipeline.evaluate.compression import Taken, Work, plan_chain, put_through, tell_chain
from pipeline.evaluate.own_compression import choose_numbers
from pipeline.formats.figures import Verification
from pipeline.formats.files import run_file
from pipeline.formats.subjects import ModelSubject
from pipeline.formats.verify import write_verified
from pipeline.formats.written_file import WrittenFile
from pipeline.measure.form import Form
from pipeline.measure.kernels import choose_format
from pipeline.measure.outputs import infer_answers
from pipeline.store.memo import StepKind
from pipeline.store.result import ArtifactRow

if TYPE_CHECKING:
    import numpy.typing as npt

    from device_agents.api import BenchProtocol
    from models.model import Model
    from models.network import Network
    from models.number_format import NumberFormat
    from pipeline.compress.stepwise import Step
    from pipeline.data.api import Dataset, Split
    from pipeline.evaluate.files import Exports
    from pipeline.formats.api import Format
    from pipeline.recipe.recipe import Recipe
    from pipeline.store.compression import Compression

EXPORT = StepKind("export-compressed")
NAME = "compressed winner"


@dataclass(frozen=True, slots=True)
class WinnerCompressed:
    """The winner after the passes of its recipe.

    Attributes:
        work: what the passes worked on.
        steps: what they gave.
        real: the last in real numbers.
        format_: of its file.
        file: written and verified against the compressed network in real numbers.
    """

    work: Work
    steps: tuple[Step, ...]
    real: Model
    format_: Format
    file: WrittenFile

    def tell(self, to: Exports, protocol: BenchProtocol) -> tuple[Compression, ArtifactRow]:
        """Time the file of each step, score the last on the test split, and tell both."""
        bench, data = to.bench, to.data
        told = tell_chain(
            self.work, self.steps, self.format_, bench=bench, folder=to.folder, protocol=protocol
        )
        test = data.at(self.file.input).test
        truth = np.asarray(test.labels)
        real = _outputs(self.real, np.asarray(test.images))
        answers = infer_answers(bench, self.file, data)
        right = None if isinstance(answers, Failure) else data.task.right(answers, truth).mean()
        last = told.steps[-1]
        reasons = (answers.reason,) if isinstance(answers, Failure) else ()
        row = ArtifactRow(
            network=NAME,
            format=self.file.format,
            scheme=str(self.file.number_format),
            sha256=self.file.sha256,
            path=str(self.file.path),
            bytes=self.file.bytes,
            accuracy_torch=data.task.score(real, truth),
            accuracy_host=data.task.score(run_file(self.file.path, test.images), truth),
            accuracy_device=right,
            max_abs_error=self.file.verification.max_abs_error,
            sqnr_db=self.file.verification.sqnr_db,
            argmax_agreement=self.file.verification.argmax_agreement,
            latency_ms=last.latency_ms,
            ci95_ms=last.ci95_ms,
            verdict=last.verdict,
            reasons=(*last.reasons, *reasons),
            partitions=None,
            compression_rate=told.compression_rate(last),
            space_saving_rate=told.space_saving_rate(last),
            speed_up_rate=None,
        )
        return told, row


def compress_winner(
    network: Network, recipe: Recipe, usual: NumberFormat, to: Exports
) -> WinnerCompressed:
    """Put the winner through the passes of its recipe; write and verify what comes of it.

    Where no table quantises, it is brought into the `usual` number format after them.

    Raises:
        ConfigError: a pass refuses it.
        TargetError: more is lost than a pass may lose.
        VerificationError: the file does not compute what the compressed network computes.
    """
    bench = to.bench
    numbers = choose_numbers(recipe, usual)
    planned = list(plan_chain(recipe, bench))
    if not recipe.quantizes and numbers != FLOAT32:
        one = make_quantizer(QUANTIZE, str(numbers), {}, images=to.calibration_images)
        planned.append(Planned(f"{QUANTIZE}:{numbers}", one, None))
    dataset = to.data.at(network.spec.input)
    model = dataset.describe(network.model())
    source = ModelSubject("the winner", model)
    (end,) = source.ends.inputs

    def taken(split: Split, most: int | None) -> Taken:
        images, labels = split.arrays(most)
        return Taken({end.name: images.transpose(0, 2, 3, 1)[:, None]}, labels)

    work = Work(
        "the winner",
        model,
        source,
        to.data.task,
        lambda most: taken(dataset.train, most),
        taken(dataset.validation, None),
        len(dataset.train),
    )
    format_ = choose_format(bench, Form(bench.profile.runtime, numbers))
    steps = put_through(work, planned, format_, bench=bench, seed=recipe.seed)
    real = find_real([(one.words, one.one) for one in planned], steps)
    file = _write(steps[-1].model, real, format_, dataset, to)
    return WinnerCompressed(work, steps, real, format_, file)


def _write(last: Model, real: Model, format_: Format, dataset: Dataset, to: Exports) -> WrittenFile:
    """Write what the last pass gave, unless that has been done."""
    store = to.bench.memo.store
    name = f"winner-compressed-{last.number_format}{format_.suffix}"
    inputs = {
        "model": last.digest(),
        "real": real.digest(),
        "format": format_.name,
        "int8_form": format_.int8_form if last.number_format.is_static else "",
        "data": to.data.digest,
    }

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        images, labels = dataset.validation.arrays()
        content, found = write_verified(
            format_, name, last, images, _outputs(real, images), labels, task=to.data.task
        )
        return asdict(found), {"model": store.put_bytes(content)}

    step = to.bench.memo.once(EXPORT, inputs, work)
    sha256 = step.artifacts["model"]
    content = store.path(sha256).read_bytes()
    path = to.folder / name
    if not path.is_file() or path.read_bytes() != content:
        write_whole(path, content)
    found = Verification.from_json(step.result)
    return WrittenFile(
        NAME, format_.name, last.number_format, dataset.input, path, sha256, len(content), found
    )


def _outputs(model: Model, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return a network's scores (N, classes) of images (N, C, H, W)."""
    source = ModelSubject("", model)
    given = {source.ends.inputs[0].name: images.transpose(0, 2, 3, 1)[:, None]}
    (scores,) = source.run(given).values()
    rows: npt.NDArray[np.float32] = scores.reshape(len(images), -1)
    return rows
