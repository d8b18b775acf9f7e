"""What the report's figures are drawn with: marks with hover texts, axes, ticks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    import plotly.graph_objects as go

    from pipeline.report.marks import Point


def add_points(
    figure: go.Figure,
    name: str,
    points: Iterable[tuple[Point | None, str]],
    marker: dict[str, Any],
    *,
    label: str | None = None,
    label_on: str = "top right",
) -> None:
    """Add a trace of (point, hover text) pairs; points that are not known are left out."""
    known = [(p, t) for p, t in points if p is not None]
    figure.add_scatter(
        x=[p[0] for p, _ in known],
        y=[p[1] for p, _ in known],
        name=name,
        mode="markers" if label is None else "markers+text",
        text=None if label is None else [label] * len(known),
        textposition=label_on,
        cliponaxis=label is None,
        marker=marker,
        hovertext=[t for _, t in known],
        hoverinfo="text",
    )


def set_axes(figure: go.Figure, x_title: str, y_title: str, *, height: int) -> None:
    """Name the axes, set the height and what all figures look like."""
    line = {"gridcolor": "var(--grid)", "linecolor": "var(--line)", "zeroline": False}
    figure.update_xaxes(title={"text": x_title, "standoff": 8}, automargin=True, **line)
    figure.update_yaxes(title={"text": y_title, "standoff": 8}, automargin=True, **line)
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 56, "r": 16, "t": 16, "b": 48},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "var(--ink)", "size": 13, "family": "system-ui, sans-serif"},
        hoverlabel={"align": "left", "bgcolor": "var(--paper)", "font": {"color": "var(--ink)"}},
        modebar={
            "bgcolor": "rgba(0,0,0,0)",
            "color": "var(--ink-soft)",
            "activecolor": "var(--ink)",
        },
        legend={
            "orientation": "h",
            "traceorder": "normal",
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "x": 0,
        },
    )


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten from just below `low` to just above `high`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [10.0**power * step for power in powers for step in (1, 2, 5)]


def rim() -> dict[str, Any]:
    """Return the line around a mark that lies on others."""
    return {"line": {"width": 1.5, "color": "var(--paper)"}}
