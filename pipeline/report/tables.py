"""The report's tables: finalists and baselines, front, artifacts, ops."""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Generic, TypeVar

from pipeline.report.marks import FinalistMark, Marks, OpShare, op_shares
from pipeline.report.markup import DASH, TIMES, count, finite, interval, number, percent, unit
from pipeline.report.templating import parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from markupsafe import Markup

    from pipeline.store.result import ArtifactRow, CandidateRow, FailedFile, RunResult

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """A column: its title, what it shows of a row, and whether that is text, which reads from left.

    A cell is a value or one of the template's `parts`.
    """

    title: str
    cell: Callable[[Row], object]
    text: bool = False


def table(
    columns: Iterable[Column[Row]], rows: Iterable[Row], marked: Iterable[int] = ()
) -> Markup:
    """Return a table with the rows of these places emphasised."""
    shown: Markup = parts.table(tuple(columns), rows, frozenset(marked))
    return shown


def trained_networks(marks: Marks) -> Markup | None:
    """Return winner, finalists and baselines with both accuracies and both latencies, if any."""
    rows: list[tuple[object, ...]] = []
    finalists = sorted(marks.finalists, key=lambda f: not f.winner)
    for finalist in finalists:
        name = f"{'winner' if finalist.winner else 'finalist'}, candidate {finalist.index}"
        proxy, full = percent(finalist.proxy_accuracy), percent(finalist.accuracy)
        searched = f"{number(finalist.predicted_ms)} ({finalist.predicted_source})"
        measured = (number(finalist.latency_ms), interval(finalist.latency_ci95_ms))
        rows.append((name, proxy, full, searched, *measured))
    for baseline in sorted(marks.baselines, key=lambda b: not b.chosen):
        row = marks.baseline_proxy if baseline.chosen else None
        name = f"{baseline.name} ({'the baseline' if baseline.chosen else 'tried'})"
        proxy = percent(None if row is None else row.accuracy)
        measured = (number(baseline.latency_ms), DASH)
        rows.append((name, proxy, percent(baseline.accuracy), DASH, *measured))
    titles = (
        "network",
        "accuracy in the search",
        "accuracy, final weights",
        "ms in the search",
        "ms, measured after it",
        "95 % interval",
    )
    columns = [Column(title, itemgetter(i), text=i == 0) for i, title in enumerate(titles)]
    winners = [i for i, finalist in enumerate(finalists) if finalist.winner]
    return table(columns, rows, winners) if rows else None


def by_device(marks: Marks) -> Markup | None:
    """Return the finalists' latencies on every device of a search for several; else None."""
    devices = list(dict.fromkeys(name for f in marks.finalists for name in f.by_device_ms))
    if len(devices) < 2:
        return None

    def on(device: str) -> Column[FinalistMark]:
        return Column(f"ms on {device}", lambda f: number(f.by_device_ms.get(device)))

    columns = (Column("finalist", lambda f: f"candidate {f.index}", text=True), *map(on, devices))
    winners = [i for i, f in enumerate(marks.finalists) if f.winner]
    return table(columns, marks.finalists, winners)


def front(marks: Marks) -> Markup:
    """Return the candidates on the Pareto front, by latency."""
    columns: tuple[Column[CandidateRow], ...] = (
        Column("candidate", lambda row: row.index),
        Column("ms", lambda row: number(row.latency_ms)),
        Column("95 % interval", lambda row: interval(row.latency_ci95_ms)),
        Column("accuracy in the search", lambda row: percent(row.accuracy)),
        Column("parameters", lambda row: count(row.params)),
        Column("MACs", lambda row: count(row.macs)),
        Column("score", lambda row: number(row.score, 4)),
        Column("verdict", lambda row: parts.pill(row.verdict), text=True),
        Column("network", lambda row: parts.code(row.spec), text=True),
    )
    return table(columns, marks.front, [i for i, r in enumerate(marks.front) if r is marks.chosen])


_FILE: Column[ArtifactRow] = Column(
    "file",
    lambda row: parts.titled(f"{row.network} {row.format} {row.scheme}", row.path),
    text=True,
)


def artifact_costs(result: RunResult) -> Markup:
    """Return size and speed of every exported file."""
    columns: tuple[Column[ArtifactRow], ...] = (
        _FILE,
        Column("bytes", lambda row: f"{row.bytes:,}"),
        Column("ms", lambda row: number(row.latency_ms)),
        Column("95 % interval", lambda row: interval(row.ci95_ms)),
        Column("partitions", lambda row: row.partitions),
        Column("compression rate", lambda row: _times(row.compression_rate)),
        Column("space-saving rate", lambda row: percent(row.space_saving_rate, 1)),
        Column("speed-up rate", lambda row: _times(row.speed_up_rate)),
        Column("verdict", lambda row: parts.pill(row.verdict, row.reasons), text=True),
    )
    return table(columns, result.artifacts, _winners(result))


def artifact_checks(result: RunResult) -> Markup:
    """Return accuracy and faithfulness of every exported file."""
    columns: tuple[Column[ArtifactRow], ...] = (
        _FILE,
        Column("accuracy, torch", lambda row: percent(row.accuracy_torch)),
        Column("accuracy, host", lambda row: percent(row.accuracy_host)),
        Column("accuracy, device", lambda row: percent(row.accuracy_device)),
        Column("SQNR", lambda row: unit(row.sqnr_db, "dB")),
        Column("max |error|", lambda row: number(row.max_abs_error)),
        Column("agreement", lambda row: percent(row.argmax_agreement)),
        Column("SHA-256", lambda row: parts.hashed(row.sha256)),
    )
    return table(columns, result.artifacts, _winners(result))


def failed_files(result: RunResult) -> Markup:
    """Return the files that failed, with the reasons."""
    columns: tuple[Column[FailedFile], ...] = (
        Column("file", lambda row: f"{row.network} {row.format} {row.scheme}", text=True),
        Column("why it failed", lambda row: row.reason, text=True),
    )
    return table(columns, result.failed_files)


def ops(result: RunResult) -> Markup:
    """Return every op of the winner with its costs, the three slowest marked."""
    shares = op_shares(result.ops)
    order = sorted(range(len(shares)), key=lambda i: -(shares[i].time_share or 0.0))
    longest = max((s.time_share or 0.0 for s in shares), default=0.0)
    most = max((s.macs_share or 0.0 for s in shares), default=0.0)
    columns: tuple[Column[OpShare], ...] = (
        Column("op", lambda share: parts.titled(share.op.name, share.op.key), text=True),
        Column("kind", lambda share: share.kind, text=True),
        Column("ms", lambda share: number(share.op.latency_ms)),
        Column("95 % interval", lambda share: interval(share.op.latency_ci95_ms)),
        Column("share of the sum of ops", lambda s: parts.bar(s.time_share, longest, "time")),
        Column("share of MACs", lambda share: parts.bar(share.macs_share, most, "macs")),
        Column("MACs", lambda share: count(share.op.macs)),
        Column("parameters", lambda share: count(share.op.params)),
        Column("activation bytes", lambda share: f"{share.op.activation_bytes:,}"),
        Column("GMAC/s", _rate),
    )
    return table(columns, shares, [i for i in order[:3] if shares[i].time_share])


def _rate(share: OpShare) -> str:
    """MACs per measured second: low where memory or overhead rules, not arithmetic."""
    latency_ms = finite(share.op.latency_ms)
    return number(share.op.macs / latency_ms / 1e6) if latency_ms and share.op.macs else DASH


def _times(rate: float | None) -> str:
    return DASH if finite(rate) is None else number(rate) + TIMES


def _winners(result: RunResult) -> list[int]:
    return [i for i, row in enumerate(result.artifacts) if row.network == "winner"]
