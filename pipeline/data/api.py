"""What a data set is to the rest of the pipeline.

Images are NCHW float32 already scaled as the network wants them (about -1..1); labels are what a
task holds outputs against: int64 classes (N,), float32 numbers (N, k), or int64 maps of classes
(N, H, W). Splits are the data set's own or fixed by the seed: training sees `train`, every choice
is made on `validation`, and `test` is touched once, by the final report.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from device_agents.errors import ConfigError
from pipeline.data.tasks.classification import Classification

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.model import Input, Model
    from pipeline.data.task import Task

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

Truths = Literal["classes", "numbers", "masks", "none"]
"""What a task holds outputs against."""

IGNORED = 255
"""The class, in maps of classes, of pixels that do not count."""

PARTS = ("train", "validation", "test")


class DataError(ConfigError):
    """A data set that cannot be read or used; the sentence names the file and what is wrong."""


class Held(Protocol):
    """Rows that become an array where they are indexed, such as pictures that are decoded then."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The first is the number of rows."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def __getitem__(self, rows: Any, /) -> Array:
        """Return some rows, by any index of the first axis."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        """Return all rows, which takes their memory."""

    def take(self, rows: npt.NDArray[np.intp], /) -> Held:
        """Return some of the rows, still held."""

    def at(self, height: int, width: int, /) -> Held:
        """Return the same rows at another size."""

    def digest(self) -> str:
        """Return a hash of what the values come from."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the files of a data set hold.

    Attributes:
        images: (N, C, H, W) float32.
        labels: as the module says; zeros (N,) where there are none.
        parts: (N,) numbers of `PARTS`: what each image is for; None where the files do not say.
        classes: what each class is called, in order; empty where that is not known.
        outputs: how many classes there are, where labels are maps of them.
        feed: how an image's pixels become what a network is fed; None where that is not known.
        skipped: a line for each file that was left out, with its name and why.
    """

    images: Images | Held
    labels: Array | Held
    parts: Labels | None = None
    classes: tuple[str, ...] = ()
    outputs: int = 0
    feed: Input | None = None
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Split:
    """Images (N, C, H, W) and their labels (N, …)."""

    images: Images | Held
    labels: Array | Held

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def take(self, rows: npt.NDArray[np.intp]) -> Split:
        """Return some of the images with their labels."""
        images, labels = self.images, self.labels
        return Split(
            images[rows] if isinstance(images, np.ndarray) else images.take(rows),
            labels[rows] if isinstance(labels, np.ndarray) else labels.take(rows),
        )

    def at(self, height: int, width: int) -> Split:
        """Return the same images, and maps of labels, at another size."""
        images, labels = self.images, self.labels
        return Split(
            resize(images, height, width)
            if isinstance(images, np.ndarray)
            else images.at(height, width),
            labels if isinstance(labels, np.ndarray) else labels.at(height, width),
        )

    def arrays(self, count: int | None = None) -> tuple[Images, Array]:
        """Return images and labels as arrays: all of them, or so many, evenly spread."""
        if count is None or count >= len(self):
            return np.asarray(self.images), np.asarray(self.labels)
        rows = np.linspace(0, len(self) - 1, count).astype(int)
        return self.images[rows], self.labels[rows]

    def batches(self, size: int) -> Iterator[tuple[Images, Array]]:
        """Give the images with their labels, so many at once."""
        for start in range(0, len(self), size):
            yield self.images[start : start + size], self.labels[start : start + size]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Three disjoint splits of one data set.

    Attributes:
        classes: how many; of numbers, how many each image has.
        class_names: in order; empty where they are not known.
        feed: as of `Loaded`.
        skipped: as of `Loaded`.
    """

    name: str
    classes: int
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...] = ()
    feed: Input | None = None
    skipped: tuple[str, ...] = ()
    _sizes: dict[tuple[int, int], Dataset] = field(default_factory=dict, repr=False, compare=False)

    @property
    def input(self) -> tuple[int, int, int]:
        """Image size as a spec gives it: (height, width, channels)."""
        channels, height, width = self.train.images.shape[1:]
        return (height, width, channels)

    def at(self, size: tuple[int, int, int]) -> Dataset:
        """Return the same images resized to (height, width, channels), as a spec's `input` is.

        Each size is made once and kept. It depends on nothing but this data set and the size, so
        what is remembered of a network needs this data set's digest alone.

        Raises:
            DataError: another number of channels.
        """
        if size == self.input:
            return self
        if size[2] != self.input[2]:
            raise DataError(
                f"data set {self.name!r} has images of {self.input[2]} channels, the network "
                f"reads {size[2]}; only height and width can be resized"
            )
        height, width = size[:2]
        if (height, width) not in self._sizes:
            self._sizes[height, width] = replace(
                self,
                train=self.train.at(height, width),
                validation=self.validation.at(height, width),
                test=self.test.at(height, width),
                _sizes={},
            )
        return self._sizes[height, width]

    def describe(self, model: Model) -> Model:
        """Return a model that says how pixels are fed to it and what its classes are called.

        One that says so already, or of a data set where it is not known, stays as it is.
        """
        inputs, outputs = model.inputs, model.outputs
        if self.feed is not None and len(inputs) == 1 and not inputs[0].mean:
            feed = self.feed
            fed = replace(inputs[0], mean=feed.mean, scale=feed.scale, colours=feed.colours)
            inputs = (fed,)
        if self.class_names and len(outputs) == 1 and not outputs[0].labels:
            outputs = (replace(outputs[0], labels=self.class_names),)
        return replace(model, inputs=inputs, outputs=outputs)

    def digest(self) -> str:
        """Return a hash of every pixel and label, so that a changed data set is not mistaken."""
        sha = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            for values in (split.images, split.labels):
                if isinstance(values, np.ndarray):
                    sha.update(np.ascontiguousarray(values).tobytes())
                else:
                    sha.update(values.digest().encode())
        return sha.hexdigest()[:16]


@dataclass(frozen=True)
class Data:
    """A data set and what is asked of networks on it; hashed once."""

    dataset: Dataset
    task: Task = field(default_factory=Classification)

    @cached_property
    def digest(self) -> str:
        """Of every pixel and label (`Dataset.digest`), and of what is asked of networks.

        The usual task is left out: keys of steps had none.
        """
        pixels = self.dataset.digest()
        task = type(self.task)
        return pixels if task is Classification else f"{pixels}-{task.__name__}"

    def at(self, size: tuple[int, int, int]) -> Dataset:
        """Return the data set for networks that read (height, width, channels).

        Raises:
            DataError: another number of channels.
        """
        return self.dataset.at(size)


def user_path(text: str) -> Path:
    """Return the path that an option names; an unknown user's ``~`` stays as it is."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises RuntimeError


def resize(images: Images, height: int, width: int) -> Images:
    """Resize (N, C, h, w) to (N, C, height, width), bilinear, half-pixel centres."""
    rows = _interpolation(images.shape[2], height)
    cols = _interpolation(images.shape[3], width)
    return np.ascontiguousarray(rows @ images @ cols.T, dtype=np.float32)


def _interpolation(size: int, out: int) -> npt.NDArray[np.float32]:
    """Return the (out, size) matrix of one-dimensional bilinear interpolation."""
    at = np.clip((np.arange(out) + 0.5) * size / out - 0.5, 0, size - 1)
    low = np.minimum(at.astype(int), max(size - 2, 0))
    weight = at - low
    matrix = np.zeros((out, size), np.float32)
    matrix[np.arange(out), low] = 1 - weight
    matrix[np.arange(out), np.minimum(low + 1, size - 1)] += weight
    return matrix


def refuse_truths(name: str, truths: Truths) -> None:
    """Refuse what a data set of classes does not hold. Raises DataError."""
    if truths not in ("classes", "none"):
        raise DataError(
            f"data set {name!r} holds classes, and the task asks for {truths}; use "
            'data.task = "classification" or the data set images'
        )
