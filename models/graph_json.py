"""A graph as plain JSON values, for files and for processes of their own."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from models.graph import Graph, Op

if TYPE_CHECKING:
    from collections.abc import Mapping


def graph_to_json(graph: Graph) -> dict[str, Any]:
    """Return plain JSON values."""
    return asdict(graph)


def graph_from_json(data: Mapping[str, Any]) -> Graph:
    """Read what `graph_to_json` wrote (also after a trip through JSON text).

    Raises:
        KeyError, TypeError, ValueError: it is something else.
    """
    ops = tuple(Op(**{key: _frozen(value) for key, value in op.items()}) for op in data["ops"])
    height, width, channels = data["input_shape"]
    return Graph((height, width, channels), ops)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
