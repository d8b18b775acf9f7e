"""Data sets: one file each, found by listing this folder.

A data set is a dataclass of its options with a `load()` that returns all images at their native
size, (N, C, h, w) float32 about -1..1, and their labels (N,) int64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.api import DataError, Dataset, Split, check, resize, split
from pipeline.recipe.plugins import PluginFolder, from_plain

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DATASETS", "DataError", "Dataset", "Split", "load_dataset"]

DATASETS = PluginFolder("pipeline.data.sets", "data set")


def load_dataset(
    name: str,
    options: Mapping[str, Any],
    *,
    resolution: int,
    fractions: tuple[float, float, float],
    seed: int,
) -> Dataset:
    """Load, resize and split a data set; the same seed gives the same splits.

    Raises:
        ConfigError: no such data set, or an option it does not know.
        DataError: its files are missing, damaged or not usable.
    """
    source = from_plain(DATASETS.load(name), options, f"data set {name!r}")
    images, labels = source.load()
    check(name, images, labels)
    rng = np.random.default_rng(seed)
    return split(name, resize(images, resolution, resolution), labels, fractions=fractions, rng=rng)
