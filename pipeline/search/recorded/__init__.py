"""Recorded spaces: every point was trained and measured by others, so a search costs nothing.

One file each (the convention: `pipeline.plugins`). A file has the space, a frozen dataclass that
needs no data, and a function ``load(path)`` that reads the published columns as a `Recorded`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from device_agents.errors import ConfigError
from pipeline.plugins import PluginFolder, nearest_first
from pipeline.search.api import Spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

RECORDED = PluginFolder("pipeline.search.recorded", "recorded space")


@dataclass(frozen=True, slots=True)
class Recorded(Generic[Spec]):
    """A table of results.

    Attributes:
        rows: row of each point.
        columns: published columns by name, (points,) each.
    """

    rows: Mapping[Spec, int]
    columns: Mapping[str, npt.NDArray[np.float64]]

    def column(self, name: str) -> npt.NDArray[np.float64]:
        """Return a column, (points,).

        Raises:
            ConfigError: there is none of this name; lists the known ones, the nearest first.
        """
        if name not in self.columns:
            known = ", ".join(nearest_first(name, self.columns))
            raise ConfigError(f"the recorded data has no column {name!r}; have {known}")
        return self.columns[name]
