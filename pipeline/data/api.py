"""What a data set is to the rest of the pipeline.

Images are NCHW float32 already scaled as the network wants them (about -1..1), labels are int64.
Splits are fixed by the seed: training sees `train`, every choice is made on `validation`, and
`test` is touched once, by the final report.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from device_agents.errors import ConfigError
from pipeline.data.tasks.classification import Classification

if TYPE_CHECKING:
    from pipeline.data.task import Task

Images = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

Truths = Literal["classes", "numbers", "masks", "none"]
"""What a task holds outputs against."""

PARTS = ("train", "validation", "test")


class DataError(ConfigError):
    """A data set that cannot be read or used; the sentence names the file and what is wrong."""


@dataclass(frozen=True, slots=True)
class Split:
    """Images (N, C, H, W) and their labels (N,)."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Three disjoint splits of one data set."""

    name: str
    classes: int
    train: Split
    validation: Split
    test: Split
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
            train, validation, test = (
                Split(resize(part.images, height, width), part.labels)
                for part in (self.train, self.validation, self.test)
            )
            self._sizes[height, width] = Dataset(self.name, self.classes, train, validation, test)
        return self._sizes[height, width]

    def digest(self) -> str:
        """Return a hash of every pixel and label, so that a changed data set is not mistaken."""
        sha = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            sha.update(np.ascontiguousarray(split.images).tobytes())
            sha.update(np.ascontiguousarray(split.labels).tobytes())
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


def check(name: str, images: Images, labels: Labels) -> None:
    """Refuse what no network can be trained on. Raises DataError."""
    if images.ndim != 4 or 0 in images.shape:
        raise DataError(
            f"data set {name!r} holds no images (array of shape {images.shape}); "
            "it must hold (N, C, H, W) with none of them 0"
        )
    if len(images) != len(labels):
        raise DataError(f"data set {name!r} holds {len(images)} images but {len(labels)} labels")
    if not np.isfinite(images).all():
        raise DataError(f"data set {name!r} holds pixels that are NaN or infinite")
    if labels.min() < 0:
        raise DataError(f"data set {name!r} holds the label {labels.min()}; labels start at 0")
    if labels.max() >= len(labels):  # before they are counted, which takes memory for each class
        raise DataError(
            f"data set {name!r} holds the label {labels.max()} but only {len(labels)} images; "
            "number the classes from 0 without gaps"
        )
    counts = np.bincount(labels)
    if len(counts) < 2 or counts.min() < 3:
        few = int(np.argmin(counts))
        raise DataError(
            f"data set {name!r}: class {few} has {counts[few]} images; "
            "every class from 0 up needs at least 3, one for each split, and there must be two"
        )


def split(
    name: str,
    images: Images,
    labels: Labels,
    *,
    fractions: tuple[float, float, float],
    rng: np.random.Generator,
) -> Dataset:
    """Split into train, validation and test, each with the class proportions of the whole.

    Raises:
        DataError: the fractions leave a class without images to train on.
    """
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for label in range(int(labels.max()) + 1):
        rows = rng.permutation(np.flatnonzero(labels == label))
        n_test = max(1, round(fractions[2] * len(rows)))
        n_validation = max(1, round(fractions[1] * len(rows)))
        if n_test + n_validation >= len(rows):
            raise DataError(
                f"data set {name!r}: class {label} has {len(rows)} images, of which validation "
                f"takes {n_validation} and test {n_test}, so none is left to train on; lower "
                "data.split.validation and data.split.test or add images"
            )
        for part, chosen in zip(
            parts,
            (rows[n_test + n_validation :], rows[n_test : n_test + n_validation], rows[:n_test]),
            strict=True,
        ):
            part.extend(int(row) for row in chosen)
    train, validation, test = (
        Split(images[np.sort(part)], labels[np.sort(part)]) for part in parts
    )
    return Dataset(name, int(labels.max()) + 1, train, validation, test)
