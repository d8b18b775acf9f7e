"""Search spaces: which networks there are. One file each (`pipeline.recipe.plugins`).

A space is a frozen dataclass whose fields are its options. Two are required, `input` (height,
width, channels) and `classes`; everything else has a default, so a recipe can name a space alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from device_agents.plain_values import from_plain
from pipeline.recipe.plugins import PluginFolder

if TYPE_CHECKING:
    from models.spec import ArchSpec
    from pipeline.search.api import SearchSpace

SPACES = PluginFolder(
    "pipeline.search.space",
    "search space",
    # What spaces are made of; recorded spaces, tables and tuning use it too.
    not_plugins=("categorical", "decisions", "once_for_all", "stages"),
)


def create(name: str, **options: Any) -> SearchSpace[ArchSpec]:
    """Build a space from plain options: ``create("mnasnet", input=(32, 32, 3), classes=10)``.

    Raises:
        ConfigError: the space or an option is unknown, missing, or cannot be.
    """
    space = from_plain(SPACES.load(name), options, f"search space {name!r}")
    return cast("SearchSpace[ArchSpec]", space)
