"""The samples of a run of a user's own model: a recipe's pictures, or arrays for any inputs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data import TASKS, load_data
from pipeline.data.samples import Samples, picture_size, samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.model import Input
    from pipeline.data.api import Dataset
    from pipeline.data.samples import End, Part
    from pipeline.data.task import Task
    from pipeline.recipe.recipe import Recipe
    from pipeline.recipe.sections import DataSection

_PICTURES = "images"


@dataclass(frozen=True)
class OwnData:
    """Samples for the inputs of one model.

    Attributes:
        recipe: says where they are.
        ends: the model's inputs; every dimension known.
        classes: what the model calls its classes; empty if it does not say.
    """

    recipe: Recipe
    ends: tuple[End, ...]
    classes: tuple[str, ...] = ()

    def take(self, part: Part, most: int) -> Samples:
        """Return samples of a split, so many at most.

        Raises:
            ConfigError: they cannot be read, or are none of these inputs.
        """
        if self.dataset is not None:
            split = {
                "train": self.dataset.train,
                "validation": self.dataset.validation,
                "test": self.dataset.test,
            }[part]
            images, labels = split.arrays(most)
            fed = images if self.ends[0].layout == "NCHW" else images.transpose(0, 2, 3, 1)
            given = None if self.task.truths == "none" else labels
            return Samples(
                {self.ends[0].name: np.ascontiguousarray(fed)},
                given,
                self.dataset.class_names,
                self.dataset.skipped,
            )
        return samples(
            self._path,
            self.ends,
            truths=self.task.truths,
            part=part,
            most=most,
            classes=self.classes,
        )

    @cached_property
    def task(self) -> Task:
        """What counts as good: as the recipe says, else as the labels are."""
        section = self.recipe.data
        named = section.task if section is not None else self._section.task
        made: Task = TASKS.load(named or self._guess())()
        return made

    @cached_property
    def dataset(self) -> Dataset | None:
        """The recipe's [data] at the size of the model; None where arrays are given."""
        section = self.recipe.data
        if section is None:
            return None
        size = picture_size(Path(section.name), self.ends)
        options = {**section.options, **self._fed(section, size[2])}
        given = replace(section, resolution=max(size[:2]), options=options)
        return load_data(given, seed=self.recipe.seed).at(size)

    @property
    def feed(self) -> Input | None:
        """How pixels are fed to the model; None where they are not, or nobody says."""
        return None if self.dataset is None else self.dataset.feed

    @property
    def words(self) -> str:
        """Where the samples are from."""
        section = self.recipe.data
        if section is None:
            return str(self._path)
        return " ".join([section.name, *map(str, filter(None, [section.options.get("path")]))])

    @property
    def _section(self) -> Any:
        return self.recipe.model

    @property
    def _path(self) -> Path:
        return Path(self._section.data)

    def _guess(self) -> str:
        labels = samples(self._path, self.ends, most=1).labels
        if labels is None:
            return "agreement"
        if labels.ndim >= 3:  # (N, H, W)
            return "segmentation"
        return "regression" if labels.dtype.kind == "f" else "classification"

    def _fed(self, section: DataSection, channels: int) -> dict[str, Any]:
        """Return how the model is fed, where the recipe does not say: colours, mean and scale."""
        if section.name != _PICTURES:
            return {}
        fed: dict[str, Any] = {}
        values = self.ends[0].values
        said = "" if values is None else values.colours
        if "colours" not in section.options:
            fed["colours"] = "grey" if channels == 1 else said or "RGB"
        if values is not None and "mean" not in section.options:
            fed |= {"mean": list(values.mean), "scale": list(values.scale)}
        return fed


def digest(taken: Sequence[Samples]) -> str:
    """Return a hash of every value of some samples."""
    sha = hashlib.sha256()
    for one in taken:
        for name, values in one.inputs.items():
            sha.update(f"{name}:{values.dtype}:{values.shape};".encode())
            sha.update(np.ascontiguousarray(values).tobytes())
        if one.labels is not None:
            sha.update(np.ascontiguousarray(one.labels).tobytes())
    return sha.hexdigest()[:16]
