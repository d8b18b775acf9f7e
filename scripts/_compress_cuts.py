"""The networks that are pruned to a share of their latency, and where what comes of each lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.model import Model
from pipeline.data.pictures.values import Values
from pipeline.formats import create
from pipeline.formats.api import ReadOptions
from pipeline.formats.source import read_model
from scripts._compress_bases import find
from scripts.other_models import fetch

if TYPE_CHECKING:
    from pathlib import Path

    from scripts._compress_rows import Asked

RESNET8 = "resnet8"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much work a run does.

    Attributes:
        nets: what is pruned.
        shares: of their latency, that they are pruned to.
        protocol: of measuring networks that may be handed over.
        rounds: of timing the peer's files.
        epochs: of the training afterwards.
        seeds: trainings of each network.
        train_images: that it sees; None for all.
        test_images: likewise.
    """

    nets: tuple[str, ...]
    shares: tuple[float, ...]
    protocol: str
    rounds: int
    epochs: int
    seeds: int
    train_images: int | None
    test_images: int | None


@dataclass(frozen=True, slots=True)
class Net:
    """A network that is pruned.

    Attributes:
        name: in figures.
        source: what the peer reads.
        model: the same, as ours are.
        values: how it is fed.
    """

    name: str
    source: Path
    model: Model
    values: Values


def load_net(name: str, asked: Asked) -> Net | str:
    """Return a network, or why it is not there."""
    if name == RESNET8:
        source = fetch("resnet8.tflite")
        return Net(name, source, read(source), Values((0.0,), (1.0,)))
    base = find(name, asked.work)
    if base is None:
        return f"{name} is not trained in {asked.work}"
    return Net(name, base.path, base.network.model(), Values())


def read(path: Path) -> Model:
    """Return the model of a file."""
    model = read_model(str(path), ReadOptions())
    if not isinstance(model, Model):
        raise SystemExit(model.sentence)
    return model


@dataclass(frozen=True, slots=True)
class Cut:
    """One network, one share of its latency, and where what comes of it is kept."""

    net: Net
    share: float
    place: Path
    sizes: Sizes

    @property
    def whole(self) -> Path:
        """The file of the whole network, by our writer."""
        path = self.place / "whole.tflite"
        if not path.is_file():
            write(self.net.model, path)
        return path


def write(model: Model, path: Path) -> None:
    """Write a model as TFLite; a reader never sees half of it."""
    half = path.with_suffix(".half")
    half.write_bytes(create("tflite").write(model))
    half.replace(path)
