"""The report's figures as plotly figures.

Unusual: colours are CSS variables such as ``var(--winner)``. plotly accepts them as values and
`report.js` resolves them in the page, so that one figure serves light, dark and print. The
palette (in `report.css`) is Okabe and Ito's, told apart by colour-blind readers; every series
also has a sign or a dash of its own. Text from outside is escaped, for plotly reads a little HTML.
"""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from pipeline.report.drawing import add_points, log_ticks, rim, set_axes
from pipeline.report.hovers import candidate_text, op_text, progress_text
from pipeline.report.marks import Marks, OpShare, op_shares, over_limit
from pipeline.report.markup import finite, plot_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.store.result import CandidateRow, RunResult

KIND_COLOURS = {
    "conv 1\N{MULTIPLICATION SIGN}1": "var(--blue)",
    "conv": "var(--sky)",
    "depthwise": "var(--orange)",
    "dense": "var(--green)",
    "add": "var(--yellow)",
    "mul": "var(--purple)",
    "mean": "var(--vermilion)",
    "maxpool": "var(--grey)",
    "act": "var(--ink-soft)",
}


def accuracy_latency(result: RunResult) -> go.Figure | None:
    """Return accuracy over measured latency: candidates, front, finalists, winner, baselines.

    None when no candidate has both figures.
    """
    marks = Marks(result)
    shown = [c for c in result.candidates if marks.point(c) is not None]
    if not shown:
        return None
    figure = go.Figure()
    groups = (
        ("candidate, valid", lambda c: c.verdict == "valid", "circle", "var(--series)"),
        ("candidate, suspect", lambda c: c.verdict == "suspect", "circle-open", "var(--series)"),
        ("candidate, invalid", lambda c: c.verdict == "invalid", "x-thin", "var(--vermilion)"),
        ("candidate, estimated", lambda c: c.verdict is None, "circle-dot", "var(--series)"),
    )
    for name, belongs, symbol, colour in groups:
        rows = [c for c in shown if belongs(c)]
        if rows:
            line = {"width": 1.5, "color": colour} if symbol != "circle" else {"width": 0}
            look = {"symbol": symbol, "size": 8, "color": colour, "line": line, "opacity": 0.75}
            add_points(figure, name, [(marks.point(c), candidate_text(c)) for c in rows], look)
    _front(figure, marks)
    winner_side, baseline_side = label_sides(marks)
    _trained(figure, marks, winner_side)
    _baselines(figure, marks, baseline_side)
    set_axes(figure, "latency on the device, ms", "validation accuracy, %", height=520)
    latencies = [c.latency_ms for c in shown if c.latency_ms]
    if latencies and max(latencies) > 8 * min(latencies):
        ticks = log_ticks(min(latencies), max(latencies))
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=[f"{t:g}" for t in ticks])
    return figure


def progress(result: RunResult) -> go.Figure | None:
    """Return score and best score so far, candidate by candidate.

    What is `over_limit` is marked at the bottom. None when no candidate has a score.
    """
    scored = [c for c in result.candidates if finite(c.score) is not None]
    if not scored:
        return None
    scored.sort(key=lambda c: c.index)
    over = over_limit(result)
    within = [c for c in scored if c.index not in over]
    y = [float(c.score or 0.0) for c in within]
    figure = go.Figure()
    look = {"size": 6, "color": "var(--series)", "opacity": 0.65}
    points = [((float(c.index), b), progress_text(c)) for b, c in zip(y, within, strict=True)]
    add_points(figure, "candidate", points, look)
    figure.add_scatter(
        x=[float(c.index) for c in (*within, scored[-1])],
        y=[*accumulate(y, max), max(y)],
        name="best so far",
        mode="lines",
        line={"color": "var(--winner)", "width": 2.5, "shape": "hv"},
        hovertemplate="best so far %{y:.4f}<extra></extra>",
    )
    set_axes(
        figure, "candidate, in the order of the search", "score (higher is better)", height=340
    )
    if over:
        _below(figure, [c for c in scored if c.index in over])
    return figure


def op_costs(result: RunResult, *, of: str) -> go.Figure | None:
    """Return one bar per block, its ops stacked by kind: ``latency_ms`` or share of ``macs``.

    None when there is nothing to stack.
    """
    shares = op_shares(result.ops)
    known = [s for s in shares if _bar_value(s, of)]
    if not known:
        return None
    blocks = list(dict.fromkeys(s.block for s in shares))
    figure = go.Figure()
    named: set[str] = set()
    for kind, rows in _layers(known):
        colour = KIND_COLOURS.get(kind, "var(--grey)")
        figure.add_bar(
            y=[plot_text(s.block, 32) for s in rows],
            x=[_bar_value(s, of) for s in rows],
            name=plot_text(kind, 32),
            legendgroup=kind,
            showlegend=kind not in named,
            orientation="h",
            marker={"color": colour, "line": {"width": 1, "color": "var(--paper)"}},
            hovertext=[op_text(s) for s in rows],
            hoverinfo="text",
        )
        named.add(kind)
    title = "measured ms, each op alone" if of == "latency_ms" else "share of all MACs, %"
    set_axes(figure, title, "", height=90 + 24 * max(6, len(blocks)))
    order = [plot_text(b, 32) for b in reversed(blocks)]
    figure.update_yaxes(categoryorder="array", categoryarray=order, dtick=1)
    figure.update_layout(barmode="stack", bargap=0.25, hovermode="closest")
    return figure


def _below(figure: go.Figure, rows: Sequence[CandidateRow]) -> None:
    """Mark candidates in a strip under the figure, which has no scale.

    At their own heights they would leave all the others one line at the top.
    """
    look = {"symbol": "x-thin", "size": 6, "line": {"width": 1.5, "color": "var(--grey)"}}
    points = [((float(row.index), 0.0), progress_text(row)) for row in rows]
    add_points(figure, "over the limit", points, look)
    figure.data[-1].update(yaxis="y2")
    figure.update_layout(
        yaxis={"domain": [0.13, 1.0]},
        yaxis2={
            "domain": [0.0, 0.08],
            "range": [-1.0, 1.0],
            "showticklabels": False,
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
            "linecolor": "var(--line)",
        },
        xaxis={"anchor": "y2"},
    )


def _front(figure: go.Figure, marks: Marks) -> None:
    front = [p for c in marks.front if (p := marks.point(c)) is not None]
    if front:
        figure.add_scatter(
            x=[p[0] for p in front],
            y=[p[1] for p in front],
            name="Pareto front of the search",
            mode="lines",
            line={"color": "var(--front)", "width": 2, "dash": "dot", "shape": "hv"},
            hoverinfo="skip",
        )


def _trained(figure: go.Figure, marks: Marks, label_on: str) -> None:
    """Draw finalists with their final weights, each joined to its point in the search."""
    joints: list[tuple[float | None, float | None]] = []
    for finalist in marks.finalists:
        if finalist.proxy and finalist.trained:
            joints += [finalist.proxy, finalist.trained, (None, None)]
    if joints:
        figure.add_scatter(
            x=[p[0] for p in joints],
            y=[p[1] for p in joints],
            name="in the search to the end",
            mode="lines",
            line={"color": "var(--ink-soft)", "width": 1, "dash": "dash"},
            hoverinfo="skip",
        )
    others = [f for f in marks.finalists if not f.winner]
    if others:
        look = {"symbol": "diamond", "size": 11, "color": "var(--front)", **rim()}
        add_points(figure, "finalist, final weights", [(f.trained, f.text) for f in others], look)
    if marks.chosen is not None:
        look = {"symbol": "circle-open", "size": 15, "color": "var(--winner)", "line": {"width": 3}}
        points = [(marks.point(marks.chosen), candidate_text(marks.chosen))]
        add_points(figure, "chosen, in the search", points, look)
    best = [f for f in marks.finalists if f.winner]
    look = {"symbol": "star", "size": 19, "color": "var(--winner)", **rim()}
    if best:
        points = [(f.trained, f.text) for f in best]
        add_points(
            figure, "winner, final weights", points, look, label="<b>winner</b>", label_on=label_on
        )


def _baselines(figure: go.Figure, marks: Marks, label_on: str) -> None:
    for chosen, name, extent in (
        (False, "other baseline widths, fully trained", 10),
        (True, f"baseline {plot_text(marks.baseline_name, 48)}, fully trained", 15),
    ):
        rows = [b for b in marks.baselines if b.chosen == chosen]
        if rows:
            look: dict[str, Any] = {"symbol": "square", "size": extent, "color": "var(--baseline)"}
            look |= rim() if chosen else {"symbol": "square-open", "line": {"width": 2}}
            label = f"<b>{plot_text(marks.baseline_name, 32)}</b>" if chosen else None
            points = [(b.point, b.text) for b in rows]
            add_points(figure, name, points, look, label=label, label_on=label_on)
    if marks.baseline_proxy is not None:
        look = {"symbol": "square-open", "size": 13, "color": "var(--baseline)"}
        points = [(marks.point(marks.baseline_proxy), candidate_text(marks.baseline_proxy))]
        add_points(figure, "baseline, in the search", points, look)


def label_sides(marks: Marks) -> tuple[str, str]:
    """Return where the labels of winner and baseline stand, so that they never meet.

    The upper one's stands above it and the lower one's below; each extends towards the other, away
    from the edge of the figure that it may be near.
    """
    winner = next((f.trained for f in marks.finalists if f.winner), None)
    baseline = next((b.point for b in marks.baselines if b.chosen), None)
    if winner is None or baseline is None:
        return "top right", "top left"
    across = ("right", "left") if winner[0] <= baseline[0] else ("left", "right")
    along = ("top", "bottom") if winner[1] >= baseline[1] else ("bottom", "top")
    return f"{along[0]} {across[0]}", f"{along[1]} {across[1]}"


def _layers(shares: Sequence[OpShare]) -> list[tuple[str, list[OpShare]]]:
    """Group ops by place in their block, then kind: stacked so, a bar reads in running order."""
    places: Counter[str] = Counter()
    groups: dict[tuple[int, str], list[OpShare]] = {}
    for share in shares:
        groups.setdefault((places[share.block], share.kind), []).append(share)
        places[share.block] += 1
    return [(kind, groups[place, kind]) for place, kind in sorted(groups)]


def _bar_value(share: OpShare, of: str) -> float:
    if of == "latency_ms":
        return finite(share.op.latency_ms) or 0.0
    return 100.0 * (share.macs_share or 0.0)


def figures(result: RunResult) -> Sequence[tuple[str, go.Figure]]:
    """Return every figure that the run has data for, by its place in the page."""
    made = {
        "accuracy-latency": accuracy_latency(result),
        "progress": progress(result),
        "ops-ms": op_costs(result, of="latency_ms"),
        "ops-macs": op_costs(result, of="macs"),
    }
    return [(name, figure) for name, figure in made.items() if figure is not None]
