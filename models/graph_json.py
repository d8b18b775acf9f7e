"""A graph as plain JSON values, for files and for processes of their own."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING, Any

from models.graph import Graph, Op, Tensor
from models.ops import FLOAT, KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

_WORDS = ("inf", "-inf", "nan")


def graph_to_json(graph: Graph) -> dict[str, Any]:
    """Return plain JSON values."""
    ops = [asdict(op) for op in graph.ops]
    for op in ops:
        del op["out_shape"], op["out_dtype"]  # the kind's rules give them
        op["attributes"] = {name: _plain(value) for name, value in op["attributes"].items()}
        if set(op["in_dtypes"]) == {FLOAT}:
            del op["in_dtypes"]
    inputs = [asdict(tensor) for tensor in graph.inputs]
    for tensor in inputs:
        if tensor["dtype"] == FLOAT:
            del tensor["dtype"]
    return {
        "inputs": inputs,
        "ops": ops,
        "outputs": list(graph.outputs),
    }


def graph_from_json(data: Mapping[str, Any]) -> Graph:
    """Read what `graph_to_json` wrote (also after a trip through JSON text).

    Raises:
        GraphError, KeyError, TypeError, ValueError: it is something else.
    """
    inputs = tuple(Tensor(**_frozen(tensor)) for tensor in data["inputs"])
    ops = []
    for stored in data["ops"]:
        op = _frozen(stored)
        given = {name: _number(value) for name, value in op["attributes"].items()}
        op["attributes"] = KINDS[op["kind"]].attributes(**given)
        ops.append(Op(**op))
    return Graph(inputs, tuple(ops), tuple(data["outputs"]))


def _plain(value: Any) -> Any:
    """Return an infinite number as a word: JSON has no such numbers."""
    return str(value) if isinstance(value, float) and not isfinite(value) else value


def _number(value: Any) -> Any:
    return float(value) if value in _WORDS else value


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
