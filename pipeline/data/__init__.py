"""Data sets and tasks: one file each in `sets/` and `tasks/`, found by listing the folders.

A data set is a dataclass of its options with a `load(truths)` that returns all images at their
native size, (N, C, h, w) float32 about -1..1, and what a task holds outputs against, or refuses
that. A task says what counts as good (`pipeline.data.task`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.plain_values import from_plain
from pipeline.data.api import Data, DataError, Dataset, Split
from pipeline.data.splits import check, split
from pipeline.recipe.plugins import PluginFolder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.data.api import Loaded, Truths
    from pipeline.recipe.sections import DataSection

__all__ = [
    "DATASETS",
    "TASKS",
    "Data",
    "DataError",
    "Dataset",
    "Split",
    "load_data",
    "load_dataset",
]

DATASETS = PluginFolder("pipeline.data.sets", "data set")
TASKS = PluginFolder("pipeline.data.tasks", "task")


def load_data(section: DataSection, *, seed: int) -> Data:
    """Load what a recipe's [data] names; the same seed gives the same splits.

    Raises:
        ConfigError: as `load_dataset` does, or no such task.
    """
    task = TASKS.load(section.task)()
    dataset = load_dataset(
        section.name,
        section.options,
        resolution=section.resolution,
        fractions=section.split.fractions,
        seed=seed,
        truths=task.truths,
    )
    return Data(dataset, task)


def load_dataset(
    name: str,
    options: Mapping[str, Any],
    *,
    resolution: int,
    fractions: tuple[float, float, float],
    seed: int,
    truths: Truths = "classes",
) -> Dataset:
    """Load, resize and split a data set; the same seed gives the same splits.

    Raises:
        ConfigError: no such data set, or an option it does not know.
        DataError: its files are missing, damaged or not usable.
    """
    source = from_plain(DATASETS.load(name), options, f"data set {name!r}")
    loaded: Loaded = source.load(truths)
    if truths == "none":
        loaded = replace(loaded, labels=np.zeros(len(loaded.images), np.int64))
    else:
        check(name, loaded)
    sized = Split(loaded.images, loaded.labels).at(resolution, resolution)
    return split(
        name,
        replace(loaded, images=sized.images, labels=sized.labels),
        fractions=fractions,
        rng=np.random.default_rng(seed),
    )
