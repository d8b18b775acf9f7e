"""Search strategies: what to try next. One file each (the convention: `pipeline.recipe.plugins`).

A strategy is a class built as ``Strategy(space, rng, options)``; its class attribute `Options` is
the frozen dataclass of its options, all with defaults. It draws randomness from `rng` alone and
sees no device, torch or store, so a search replays bit for bit from its seed and its trials.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

from device_agents.plain_values import from_plain
from pipeline.recipe.plugins import PluginFolder

if TYPE_CHECKING:
    import numpy as np

    from pipeline.search.api import SearchSpace, Spec, Strategy

STRATEGIES = PluginFolder("pipeline.search.strategy", "search strategy")


def create(
    name: str, space: SearchSpace[Spec], rng: np.random.Generator, **options: Any
) -> Strategy[Spec]:
    """Build a strategy from plain options, such as ``create("mnasnet_ppo", space, rng, batch=8)``.

    Raises:
        ConfigError: the strategy or an option is unknown, or the option cannot be.
    """
    plugin = STRATEGIES.load(name)
    strategy = plugin(space, rng, from_plain(plugin.Options, options, f"strategy {name!r}"))
    return cast("Strategy[Spec]", strategy)


def limits(name: str, latency_limit_ms: float) -> dict[str, float]:
    """Return the options by which a strategy is told the limit; empty where it needs none.

    Raises:
        ConfigError: the strategy is unknown.
    """
    known = {field.name for field in fields(STRATEGIES.load(name).Options)}
    limit = {"latency_limit_ms": latency_limit_ms}
    return {key: value for key, value in limit.items() if key in known}
