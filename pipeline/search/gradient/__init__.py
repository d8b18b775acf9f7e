"""Gradient searches: they own their training loop instead of being asked. One file each.

A gradient search is a class built as ``Search(space, seed, options)`` (the convention:
`pipeline.recipe.plugins`; the protocol: `pipeline.search.gradient.api`). It trains one network that
holds the whole space and lets the gradient move the probabilities of its choices, so it sees torch
and data, and latencies only as a model and as a function that measures one network. A recipe names
it in `search.strategy` like any strategy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from device_agents.plain_values import from_plain
from pipeline.recipe.plugins import PluginFolder

if TYPE_CHECKING:
    from models.spec import ArchSpec
    from pipeline.search.api import SearchSpace
    from pipeline.search.gradient.api import GradientSearch

GRADIENTS = PluginFolder(
    "pipeline.search.gradient", "gradient search", not_plugins=("api", "cells")
)


def is_gradient(name: str) -> bool:
    """Tell whether a recipe's `search.strategy` names a gradient search."""
    return name.replace("-", "_") in GRADIENTS.names()


def create(name: str, space: SearchSpace[ArchSpec], seed: int, **options: Any) -> GradientSearch:
    """Build a gradient search from plain options.

    Raises:
        ConfigError: the search or an option is unknown, the option cannot be, or the space is not
            one that it can search.
    """
    plugin = GRADIENTS.load(name)
    options = from_plain(plugin.Options, options, f"gradient search {name!r}")
    return cast("GradientSearch", plugin(space, seed, options))
