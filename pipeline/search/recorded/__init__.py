"""Recorded spaces: every point was trained and measured by others, so a search costs nothing.

One file each (the convention: `pipeline.recipe.plugins`). A file has the space, a frozen dataclass
that needs no data, and a function ``load(path)`` that reads the published columns as a `Recorded`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

import numpy as np

from device_agents.errors import ConfigError
from device_agents.near_names import nearest_first
from models import npz_file
from pipeline.recipe.plugins import PluginFolder
from pipeline.search.api import Spec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    import numpy.typing as npt

RECORDED = PluginFolder("pipeline.search.recorded", "recorded space")


@dataclass(frozen=True, slots=True)
class Recorded(Generic[Spec]):
    """A table of results.

    Attributes:
        rows: row of each point.
        columns: published columns by name, (points,) each.

    Raises:
        ConfigError: on construction, a column that has not one value per point.
    """

    rows: Mapping[Spec, int]
    columns: Mapping[str, npt.NDArray[np.float64]]

    def __post_init__(self) -> None:
        for name, column in self.columns.items():
            if column.shape != (len(self.rows),):
                raise ConfigError(
                    f"the recorded column {name!r} is of shape {column.shape} for {len(self.rows)} "
                    "different points; give one value per point, and each point once"
                )

    def column(self, name: str) -> npt.NDArray[np.float64]:
        """Return a column, (points,).

        Raises:
            ConfigError: there is none of this name; lists the known ones, the nearest first.
        """
        if name not in self.columns:
            known = ", ".join(nearest_first(name, self.columns))
            raise ConfigError(f"the recorded data has no column {name!r}; have {known}")
        return self.columns[name]


def numbers(
    columns: Mapping[str, npt.NDArray[Any]], path: Path
) -> dict[str, npt.NDArray[np.float64]]:
    """Return columns as float64.

    Raises:
        ConfigError: one of them holds something else; the sentence names the file and the column.
    """
    for name, column in columns.items():
        if column.dtype.kind not in "fiub":
            raise ConfigError(f"{path} holds {column.dtype} in the column {name!r}, not numbers")
    return {name: column.astype(np.float64) for name, column in columns.items()}


def arrays(path: Path, what: str) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a published file; `what` says in the error what it should hold.

    Raises:
        ConfigError: the file is not there, cannot be read or is no archive of arrays.
    """
    try:
        return npz_file.read(path)
    except ConfigError as error:
        raise ConfigError(
            f"{path} cannot be read as {what}: {error}; give the published .npz file"
        ) from error
