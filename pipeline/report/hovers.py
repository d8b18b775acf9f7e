"""What a reader sees when pointing at a candidate or an op: plotly's little HTML, escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.report.markup import count, duration, interval, number, percent, plot_text, unit

if TYPE_CHECKING:
    from pipeline.report.marks import OpShare
    from pipeline.store.result import CandidateRow

_SPEC_COLUMNS = 64


def candidate_text(row: CandidateRow) -> str:
    """Return a candidate's hover text: spec, size, accuracy, latency with interval, verdict."""
    again = " (measured before, reused)" if row.reused else ""
    lines = [
        f"<b>candidate {row.index}</b>{again}",
        *_wrap(row.spec),
        f"{count(row.params)} parameters, {count(row.macs)} MACs",
        f"accuracy {percent(row.accuracy)}, score {number(row.score, 4)}",
        f"latency {unit(row.latency_ms, 'ms')}, 95 % {interval(row.latency_ci95_ms)}",
        f"ratio to the reference {number(row.ratio)}, verdict {plot_text(row.verdict)}",
    ]
    return "<br>".join(lines)


def progress_text(row: CandidateRow) -> str:
    """Return a candidate's hover text in the progress of the search, where its spec is not."""
    return (
        f"<b>candidate {row.index}</b> after {duration(row.elapsed_s)}<br>"
        f"score {number(row.score, 4)}, accuracy {percent(row.accuracy)}, "
        f"latency {unit(row.latency_ms, 'ms')}"
    )


def op_text(share: OpShare) -> str:
    """Return an op's hover text."""
    op = share.op
    lines = [
        f"<b>{plot_text(op.name)}</b> ({plot_text(share.kind)})",
        f"{unit(op.latency_ms, 'ms')}, 95 % {interval(op.latency_ci95_ms)}",
        f"{percent(share.time_share, 1)} of the sum of ops",
        f"{count(op.macs)} MACs, {percent(share.macs_share, 1)} of all",
        f"{count(op.params)} parameters",
    ]
    return "<br>".join(lines)


def _wrap(spec: str) -> list[str]:
    lines = [""]
    for token in spec.split(":"):
        if lines[-1] and len(lines[-1]) + len(token) > _SPEC_COLUMNS:
            lines.append("")
        lines[-1] += ("" if lines == [""] else ":") + token
    return [plot_text(line) for line in lines]
