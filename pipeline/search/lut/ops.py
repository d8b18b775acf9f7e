"""Which ops the networks of a space are made of: asked of the space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_agents.errors import ConfigError
from pipeline.search.api import KnowsOps

if TYPE_CHECKING:
    from models.graph import Op
    from models.spec import ArchSpec
    from pipeline.search.api import SearchSpace


def distinct_ops(space: SearchSpace[ArchSpec]) -> dict[str, Op]:
    """Return every op that a network of the space can have, by key, in the order of the chain.

    Raises:
        ConfigError: the space does not know its ops.
    """
    if not isinstance(space, KnowsOps):
        raise ConfigError(
            f"the ops of space {space.name!r} cannot be enumerated, so there is no latency table "
            "for it; take a chain of groups (mnasnet, proxyless) or an elastic space "
            '(ofa_mobilenet_v3, ofa_proxyless), or search with latency = "measured"'
        )
    found: dict[str, Op] = {}
    for op in space.graph_ops():
        found.setdefault(op.key, op)
    return found
