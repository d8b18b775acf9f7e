"""Compression passes. One file each (the convention: `pipeline.recipe.plugins`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from device_agents.plain_values import from_plain
from pipeline.recipe.plugins import PluginFolder

if TYPE_CHECKING:
    from pipeline.compress.api import Pass

PASSES = PluginFolder("pipeline.compress.passes", "pass")


def create(name: str, **options: Any) -> Pass:
    """Build a pass from plain options, such as ``create("ptq", images=100)``.

    Raises:
        ConfigError: the pass or an option is unknown, or the option cannot be.
    """
    plugin = PASSES.load(name)
    found: Pass = plugin(from_plain(plugin.Options, options, f"pass {name!r}"))
    return found
