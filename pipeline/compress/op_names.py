"""Ops of a network by what a user calls them: names, or patterns of names."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError
from device_agents.near_names import did_you_mean, nearest_first

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from models.graph import Graph

_SHOWN = 8
_LONG = 40


def find_ops(graph: Graph, names: Collection[str]) -> frozenset[str]:
    """Return the ops of these names; a ``*`` in one stands for anything, a ``?`` for one letter.

    Raises:
        ConfigError: no op has such a name; says which are most like it.
    """
    known = [op.name for op in graph.ops]
    found: set[str] = set()
    for name in names:
        # A name may hold brackets and stars of its own.
        matching = [op for op in known if op == name] or [
            op for op in known if fnmatchcase(op, name.replace("[", "[[]"))
        ]
        if not matching:
            offered = list(dict.fromkeys(map(_cut, shorten(graph, known))))
            near = nearest_first(name, offered)
            more = ", ..." if len(near) > _SHOWN else ""
            raise ConfigError(
                f"no op of the network is named {name!r}; {did_you_mean(name, offered)}"
                f"it has {len(known)} ops: {', '.join(near[:_SHOWN])}{more}"
            )
        found.update(matching)
    return frozenset(found)


def shorten(graph: Graph, names: Iterable[str]) -> tuple[str, ...]:
    """Return names as a user may give them: a long one as a pattern that no other op matches."""
    known = [op.name for op in graph.ops]
    return tuple(name if len(name) <= _LONG else _pattern(name, known) for name in names)


def _cut(name: str) -> str:
    """Return a name that no pattern shortens as a pattern of its first letters."""
    return name if len(name) <= _LONG else f"{name[: _LONG - 1]}*"


def _pattern(name: str, known: Sequence[str]) -> str:
    for place in reversed([n for n, letter in enumerate(name) if letter in "/;." and n]):
        pattern = f"*{name[place:]}"
        if set("*?[") & set(pattern[1:]):
            break
        if sum(fnmatchcase(op, pattern) for op in known) == 1:
            return pattern
    return name
