"""Between the layout that a network's user has and the graph's own. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping

Array = npt.NDArray[Any]

_TO_GRAPH: Mapping[str, tuple[int, ...]] = {"NCHW": (0, 2, 3, 1), "NCL": (0, 2, 1)}
"""Layouts that are not the graph's: how their axes are put into its order."""


def to_graph(layout: str, values: Array) -> Array:
    """Return values as the graph reads them: a view of (N, H, W, C) for NCHW, (N, L, C) for NCL.

    Args:
        layout: of `models.model.Input` or `Output`; a map's counts for tensors of four axes only.
        values: as their user has them.
    """
    order = _order(layout, values)
    return values if order is None else values.transpose(order)


def to_user(layout: str, values: Array) -> Array:
    """Return what the graph gives in the layout of its user: the reverse of `to_graph`."""
    order = _order(layout, values)
    return (
        values if order is None else values.transpose([order.index(i) for i in range(len(order))])
    )


def _order(layout: str, values: Array) -> tuple[int, ...] | None:
    order = _TO_GRAPH.get(layout)
    return order if order is not None and len(order) == values.ndim else None
