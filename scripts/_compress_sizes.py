"""Size against accuracy: weights pruned, shared, both, and both coded (Deep Compression's figure).

Sizes without a coder are those of the tables that each would be stored in: a bit for each weight
that may be 0, 32 bits for a weight or some for its code, and the values of each layer once;
everything else of the file as it is. The coded size is that of the packed TFLite file. Networks are
kept in the work folder as they are made, so that a run that is killed goes on.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from device_agents.model_files.weights import find_weights
from models.execute import execute_all
from models.model import Model
from pipeline.coding import pack
from pipeline.compress.api import Needs
from pipeline.compress.magnitude import storable_layers
from pipeline.compress.passes import create
from pipeline.data.proportions import wilson
from pipeline.data.tasks.classification import Classification
from pipeline.formats import create as create_format
from pipeline.train.lessons import Lessons
from scripts._compress_bases import BATCH, FileCheckpoints, find, load_cifar
from scripts._compress_rows import unmeasured
from scripts.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from pipeline.data.api import Data
    from scripts._compress_rows import Asked

NETS = ("vgg", "mbv2")
LINES = ("pruned", "shared", "both", "both, coded")
DROP_POINTS = 0.5
TO_SINGLE, TO_FLOAT = 2.5, 30.0
"""What the over-parameterised net is to reach at `DROP_POINTS`."""

_BARRED = "vgg"
_RATE = 0.01
_RUN = 500


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is tried.

    Attributes:
        ratios: shares of the weights that are 0.
        bits: of codes of shared weights.
        both_bits: the same of pruned ones.
        pruning_epochs: in which weights become 0.
        sharing_epochs: in which values are trained.
        images: to train on at most; None for all.
        tested: test images.
    """

    ratios: tuple[float, ...] = (0.8, 0.9, 0.95)
    bits: tuple[int, ...] = (5, 4, 3)
    both_bits: tuple[int, ...] = (5, 4)
    pruning_epochs: int = 3
    sharing_epochs: int = 1
    images: int | None = None
    tested: int = 10_000


QUICK = Effort((0.9,), (4,), (5,), 1, 1, 1_000, 500)


@dataclass(frozen=True, slots=True)
class Sized:
    """A network of a line: what was done, its size, and the share of images it names rightly."""

    line: str
    what: str
    bytes: float
    right: float
    images: int


def rows(asked: Asked) -> Iterator[Figure]:
    """Give the lines of each base, and what the whole chain comes to."""
    data: Data | None = None
    for name in NETS:
        if asked.nets and name not in asked.nets:
            continue
        base = find(name, asked.work)
        if base is None:
            bar = f">= {TO_SINGLE:g}x and {TO_FLOAT:g}x" if name == _BARRED else ""
            yield unmeasured(f"{name}: sizes", f"{name} is not trained in {asked.work}", bar)
            continue
        data = data or load_cifar(asked.data)
        effort = QUICK if asked.quick else Effort()
        model, folder = base.network.model(), asked.folder if asked.quick else asked.work / "sizes"
        found: list[Sized] = []
        for one in size_lines(model, data, effort, folder):
            found.append(one)
            yield _figure(name, one, found[0])
        yield from _verdicts(name, found, barred=name == _BARRED and not asked.quick)


def size_lines(model: Model, data: Data, effort: Effort, folder: Path) -> Iterator[Sized]:
    """Give the model as it is, then each line's networks.

    Args:
        model: of one picture (1, 32, 32, 3), in real numbers.
        data: CIFAR-10.
        effort: how much is tried.
        folder: that networks are kept in.
    """
    lessons = _lessons(model, data, effort)
    inputs, labels = _tested(model, data, effort)
    size = len(_written(model))

    def sized(line: str, what: str, network: Model, bytes_: float) -> Sized:
        return Sized(line, what, bytes_, _right(network, inputs, labels), len(labels))

    yield sized("float", "as it came", model, size)
    sparse = {}
    for ratio in effort.ratios:
        options = {"ratio": ratio, "epochs": effort.pruning_epochs}
        sparse[ratio] = _made("sparsify", options, model, lessons, folder)
        bytes_ = table_bytes(sparse[ratio], size)
        yield sized("pruned", f"{ratio:.0%} zeros", sparse[ratio], bytes_)
    for bits in effort.bits:
        options = {"bits": bits, "epochs": effort.sharing_epochs}
        made = _made("share", options, model, lessons, folder)
        yield sized("shared", f"{bits} bits", made, table_bytes(made, size, bits))
    for ratio, thin in sparse.items():
        for bits in effort.both_bits:
            options = {"bits": bits, "epochs": effort.sharing_epochs}
            made = _made("share", options, thin, lessons, folder)
            both = sized(
                "both", f"{ratio:.0%} zeros, {bits} bits", made, table_bytes(made, size, bits)
            )
            yield both
            content = _written(made)
            coded = len(pack(content, find_weights(content, "tflite")).content)
            yield replace(both, line="both, coded", bytes=coded)


def table_bytes(model: Model, file_bytes: int, bits: int | None = None) -> float:
    """Return what a network takes without a coder; see above.

    Args:
        model: in real numbers.
        file_bytes: of its file.
        bits: of the codes of its weights; None where they are float32.
    """
    found = float(file_bytes)
    for op in storable_layers(model.graph):
        weight = model.weights[op.name][0]
        zeros = weight.size - np.count_nonzero(weight)
        found -= 4 * weight.size
        if zeros:
            found += weight.size / 8
        found += (weight.size - zeros) * (32 if bits is None else bits) / 8
        if bits is not None:
            found += 4 * len(np.unique(weight))
    return found


def smallest(found: Sequence[Sized], line: str, least: float) -> Sized | None:
    """Return the smallest network of a line that names a share of the images rightly."""
    good = [one for one in found if one.line == line and one.right >= least]
    return min(good, key=lambda one: one.bytes, default=None)


def _figure(name: str, one: Sized, first: Sized) -> Figure:
    low, high = wilson(one.right, one.images) or (math.nan, math.nan)
    return Figure(
        f"{name}: {one.line}, {one.what}",
        f"{one.bytes:,.0f} bytes, {100 * one.right:.2f} % ({100 * low:.2f} to {100 * high:.2f})",
        f"{first.bytes / one.bytes:.1f}x smaller, {100 * (one.right - first.right):+.2f} points, "
        f"{one.images} test images",
        value=one.bytes,
    )


def _verdicts(name: str, found: Sequence[Sized], *, barred: bool) -> Iterator[Figure]:
    """Say what lines come to where no more than half a point is lost."""
    least = found[0].right - DROP_POINTS / 100
    best = {line: smallest(found, line, least) for line in LINES}
    single = min((one.bytes for line in LINES[:2] if (one := best[line])), default=found[0].bytes)
    for what, line, beside, bar in (
        ("both beside the better of pruned and shared", "both", single, TO_SINGLE),
        ("the whole chain beside float32", "both, coded", found[0].bytes, TO_FLOAT),
    ):
        one = best[line]
        rate = beside / one.bytes if one else 0.0
        told = f"{rate:.1f}x smaller ({one.what})" if one else "none loses so little"
        yield Figure(
            f"{name}: {what}, at {DROP_POINTS:g} points",
            told,
            f"{beside:,.0f} bytes",
            f">= {bar:g}x" if barred else "",
            met=rate >= bar if barred else None,
            value=rate,
        )


def _lessons(model: Model, data: Data, effort: Effort) -> Lessons:
    images, labels = data.dataset.train.arrays(effort.images)
    inputs = {model.graph.inputs[0].name: np.ascontiguousarray(images.transpose(0, 2, 3, 1))}
    return Lessons(inputs, labels.astype(np.int64), Classification(), teachers=(model,))


def _tested(
    model: Model, data: Data, effort: Effort
) -> tuple[dict[str, npt.NDArray[np.float32]], npt.NDArray[np.int64]]:
    images, labels = data.dataset.test.arrays(effort.tested)
    channels_last = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    return {model.graph.inputs[0].name: channels_last}, labels.astype(np.int64)


def _made(
    name: str, options: dict[str, float], model: Model, lessons: Lessons, folder: Path
) -> Model:
    """Return what a pass makes of a model; kept, and taken up where it was killed."""
    samples = len(lessons)
    key = f"{model.digest()}:{name}:{sorted(options.items())}:{_RATE}:{samples}"
    file = folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"
    if file.is_file():
        return Model.load(file)
    folder.mkdir(parents=True, exist_ok=True)
    state = FileCheckpoints(file.with_suffix(".state.npz"))
    one = create(name, **options, batch_size=BATCH, learning_rate=_RATE)
    made: Model = one.apply(model, Needs(lessons=replace(lessons, checkpoints=lambda _: state)))
    made.save(file)
    state.path.unlink(missing_ok=True)
    return made


def _written(model: Model) -> bytes:
    return create_format("tflite").write(model)


def _right(
    model: Model,
    inputs: dict[str, npt.NDArray[np.float32]],
    labels: npt.NDArray[np.int64],
) -> float:
    """Return the share of pictures that a model names rightly."""
    hits = 0
    for start in range(0, len(labels), _RUN):
        some = {name: values[start : start + _RUN] for name, values in inputs.items()}
        (scores,) = execute_all(model, some).values()
        named = np.asarray(scores).reshape(len(labels[start : start + _RUN]), -1).argmax(1)
        hits += int((named == labels[start : start + _RUN]).sum())
    return hits / len(labels)
