"""The section on a chain of passes: its table, its remarks, and its two figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from pipeline.report.drawing import add_points, log_ticks, rim, set_axes
from pipeline.report.markup import (
    DASH,
    TIMES,
    interval,
    number,
    percent,
    plot_text,
    unit,
)
from pipeline.report.tables import Column, table
from pipeline.report.templating import TEMPLATES, parts

if TYPE_CHECKING:
    from markupsafe import Markup

    from pipeline.store.compression import Compression, LayerRow, StepRow

SIZE_ACCURACY, LAYERS = "compression-size", "compression-layers"
_MOST_LAYERS = 60
"""Bars that a figure has room for: of more layers those with most parameters."""


def compression_section(found: Compression | None, drawn: dict[str, str]) -> str:
    """Return the section as HTML; empty where nothing was compressed."""
    if found is None:
        return ""
    shown = shown_layers(found)
    return TEMPLATES.get_template("compression.html").render(
        found=found,
        drawn=drawn,
        sizes=_sizes(found),
        speeds=_speeds(found),
        done=[step for step in found.steps if step.done],
        remarks=list(found.remarks()),
        layers=_layers(shown),
        hidden=len(found.layers) - len(shown),
        summary=_summary(found),
    )


def compression_figures(found: Compression | None) -> list[tuple[str, go.Figure]]:
    """Return the figures of a chain by their names."""
    if found is None:
        return []
    drawn = [(SIZE_ACCURACY, size_accuracy(found))]
    return [*drawn, (LAYERS, layer_bars(found))] if found.layers else drawn


def size_accuracy(found: Compression) -> go.Figure:
    """Return points lost over bytes, from step to step: as files, and as files that are packed."""
    figure = go.Figure()
    packed = [step.packed_bytes for step in found.steps if step.packed_bytes is not None]
    lines = [("file", "circle", "var(--winner)", [step.bytes for step in found.steps])]
    if len(packed) == len(found.steps):
        lines.append(("packed file", "diamond", "var(--blue)", packed))
    for name, symbol, colour, sizes in lines:
        lost = [step.lost_points for step in found.steps]
        points = list(zip(map(float, sizes), lost, strict=True))
        figure.add_scatter(
            x=[x for x, _ in points],
            y=[y for _, y in points],
            mode="lines",
            line={"color": colour, "width": 1.5, "dash": "dot"},
            hoverinfo="skip",
            showlegend=False,
            name=name,
        )
        texts = [_hover(found, step, name) for step in found.steps]
        look = {"symbol": symbol, "size": 11, "color": colour, **rim()}
        add_points(figure, name, list(zip(points, texts, strict=True)), look)
        figure.data[-1].update(
            mode="markers+text",
            text=[str(place) for place in range(len(points))],
            textposition="top center",
            cliponaxis=False,
        )
    set_axes(figure, "bytes", f"points of {plot_text(found.unit)} lost", height=380)
    low, high = (pick(one.bytes for one in found.steps) for pick in (min, max))
    low = min([low, *packed])
    ticks = [tick for tick in log_ticks(low, high) if low / 2 <= tick <= 2 * high]
    figure.update_xaxes(type="log", tickvals=ticks, ticktext=[_bytes(t) for t in ticks])
    # Nothing lost is at the top: up is better, as in every figure of accuracy.
    figure.update_yaxes(autorange="reversed")
    return figure


def layer_bars(found: Compression) -> go.Figure:
    """Return a bar for each layer: the share of its parameters that is kept, zero, and gone."""
    rows = shown_layers(found)
    names = [plot_text(layer.name, 32) for layer in rows]
    figure = go.Figure()
    series = (
        ("kept", "var(--blue)", [layer.nonzero for layer in rows]),
        ("kept as zero", "var(--sky)", [layer.after - layer.nonzero for layer in rows]),
        ("gone", "var(--grey)", [max(layer.before - layer.after, 0) for layer in rows]),
    )
    wholes = [max(layer.before, layer.after, 1) for layer in rows]
    for name, colour, counts in series:
        if not any(counts):
            continue
        figure.add_bar(
            y=names,
            x=[100 * count / whole for count, whole in zip(counts, wholes, strict=True)],
            name=name,
            orientation="h",
            marker={"color": colour, "line": {"width": 1, "color": "var(--paper)"}},
            hovertext=[_layer_hover(layer) for layer in rows],
            hoverinfo="text",
        )
    set_axes(figure, "share of the layer's weights, %", "", height=90 + 22 * max(6, len(rows)))
    figure.update_xaxes(range=[0, 100])
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], dtick=1)
    figure.update_layout(barmode="stack", bargap=0.25, hovermode="closest")
    return figure


def shown_layers(found: Compression) -> list[LayerRow]:
    """Return the layers that there is room for, in the order of the network."""
    by_size = sorted(range(len(found.layers)), key=lambda place: -found.layers[place].before)
    return [found.layers[place] for place in sorted(by_size[:_MOST_LAYERS])]


def _summary(found: Compression) -> str:
    """Return what the chain as a whole came to, in a sentence."""
    first, last = found.steps[0], found.steps[-1]
    words = (
        f"{first.bytes:,} to {last.bytes:,} bytes "
        f"({number(found.compression_rate(last))}{TIMES} smaller"
    )
    packed = found.packed_rate(last)
    words += f"; packed {last.packed_bytes:,} bytes, {number(packed)}{TIMES})" if packed else ")"
    if last.speed_up is not None and last.speed_up_ci95 is not None:
        fast = f"{number(last.speed_up)}{TIMES} as fast on {found.device}"
        words += f"; {fast}, 95 % interval {interval(last.speed_up_ci95, 3)}"
    if found.metric is None:
        return f"{words}; agreement with the model as it came {percent(last.agreement)}."
    return f"{words}; {found.metric} {first.shown} to {last.shown}."


_STEP: Column[tuple[int, StepRow]] = Column(
    "step", lambda row: parts.titled(f"{row[0]}. {row[1].name}", row[1].done), text=True
)


def _sizes(found: Compression) -> Markup:
    """Return scores and sizes after every pass."""
    scored = found.metric is not None
    columns: list[Column[tuple[int, StepRow]]] = [_STEP]
    if scored:
        columns += [
            Column(found.unit, lambda row: row[1].shown or DASH),
            Column("95 % interval", lambda row: _share_interval(row[1])),
        ]
    else:
        columns.append(Column("agreement", lambda row: percent(row[1].agreement)))
    columns += [
        Column("points lost", lambda row: number(row[1].lost_points)),
        Column("SQNR", lambda row: unit(row[1].sqnr_db, "dB")),
        Column("bytes", lambda row: f"{row[1].bytes:,}"),
        Column("compression rate", lambda row: number(found.compression_rate(row[1]))),
        Column("space-saving rate", lambda row: percent(found.space_saving_rate(row[1]), 1)),
        Column("packed bytes", lambda row: _count(row[1].packed_bytes)),
        Column("packed, rate", lambda row: number(found.packed_rate(row[1]))),
    ]
    return table(columns, list(enumerate(found.steps)), [len(found.steps) - 1])


def _speeds(found: Compression) -> Markup | None:
    """Return work and latency after every pass; None where nothing was timed."""
    if not found.device:
        return None
    columns: tuple[Column[tuple[int, StepRow]], ...] = (
        _STEP,
        Column("MACs", lambda row: f"{row[1].macs:,}"),
        Column("parameters", lambda row: f"{row[1].params:,}"),
        Column("ms", lambda row: number(row[1].latency_ms)),
        Column("95 % interval", lambda row: interval(row[1].ci95_ms)),
        Column("speed-up rate", lambda row: number(row[1].speed_up)),
        Column("95 % interval of it", lambda row: interval(row[1].speed_up_ci95, 3)),
        Column("verdict", lambda row: parts.pill(row[1].verdict, row[1].reasons), text=True),
    )
    return table(columns, list(enumerate(found.steps)), [len(found.steps) - 1])


def _layers(rows: list[LayerRow]) -> Markup:
    columns: tuple[Column[LayerRow], ...] = (
        Column("layer", lambda row: parts.code(row.name), text=True),
        Column("kind", lambda row: row.kind, text=True),
        Column("weights before", lambda row: f"{row.before:,}"),
        Column("after", lambda row: f"{row.after:,}"),
        Column("not zero", lambda row: f"{row.nonzero:,}"),
        Column("kept", lambda row: percent(row.nonzero / row.before if row.before else None, 1)),
    )
    return table(columns, rows)


def _share_interval(step: StepRow) -> str:
    if step.score_ci95 is None:
        return DASH
    low, high = step.score_ci95
    return f"[{percent(low)}, {percent(high)}]"


def _count(value: int | None) -> str:
    return DASH if value is None else f"{value:,}"


def _bytes(value: float) -> str:
    for limit, name in ((1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            return f"{value / limit:g} {name}"
    return f"{value:g} B"


def _hover(found: Compression, step: StepRow, kind: str) -> str:
    size = step.packed_bytes if kind == "packed file" else step.bytes
    lines = [
        f"<b>{plot_text(step.name)}</b>, {kind}",
        f"{_count(size)} bytes, {number(step.lost_points)} points of {plot_text(found.unit)} lost",
    ]
    if step.shown:
        lines.append(f"{plot_text(found.unit)} {plot_text(step.shown)}")
    if step.latency_ms is not None:
        lines.append(f"{unit(step.latency_ms, 'ms')}, {number(step.speed_up)}{TIMES} as fast")
    return "<br>".join(lines)


def _layer_hover(layer: LayerRow) -> str:
    return (
        f"<b>{plot_text(layer.name)}</b> ({plot_text(layer.kind)})<br>"
        f"{layer.before:,} weights before, {layer.after:,} after, {layer.nonzero:,} not zero"
    )


def drawn_figures(found: Compression | None) -> dict[str, Any]:
    """Return the figures of a chain as JSON, by their names in the page."""
    return {name: figure.to_json() for name, figure in compression_figures(found)}
