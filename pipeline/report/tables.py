"""The report's tables: finalists and baselines, front, artifacts, ops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.report.marks import Marks, OpShare, op_shares
from pipeline.report.markup import (
    DASH,
    TIMES,
    Html,
    bar,
    count,
    esc,
    finite,
    hashed,
    interval,
    number,
    percent,
    pill,
    table,
    unit,
)

if TYPE_CHECKING:
    from pipeline.store.result import ArtifactRow, CandidateRow, RunResult

DEFINITIONS = (
    (
        "Compression rate",
        "bytes of the float32 TFLite file of the same network / bytes of this file.",
    ),
    ("Space-saving rate", "1 \N{MINUS SIGN} 1 / compression rate."),
    (
        "Speed-up rate",
        "latency of the baseline's file of the same format and scheme / latency of this file.",
    ),
    (
        "SQNR",
        (
            "signal-to-quantisation-noise ratio of this file's outputs against the float torch "
            "network's, in decibels."
        ),
    ),
    ("Agreement", "share of images for which this file and the torch network name the same class."),
    (
        "Accuracy",
        (
            "share of the test split named rightly: by the torch network, by this file in its "
            "runtime on the host, and by this file on the device."
        ),
    ),
)


def trained_networks(marks: Marks) -> Html:
    """Return winner, finalists and baselines with both accuracies and both latencies."""
    rows: list[tuple[object, ...]] = []
    marked = set()
    for finalist in sorted(marks.finalists, key=lambda f: not f.winner):
        if finalist.winner:
            marked.add(len(rows))
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
    if not rows:
        return Html()
    head = (
        "network",
        "accuracy in the search",
        "accuracy, final weights",
        "ms in the search",
        "ms, measured after it",
        "95 % interval",
    )
    return table(head, rows, marked=frozenset(marked))


def by_device(marks: Marks) -> Html:
    """Return the finalists' latencies on every device of a search for several; else nothing."""
    devices = list(dict.fromkeys(name for f in marks.finalists for name in f.by_device_ms))
    if len(devices) < 2:
        return Html()
    rows = [
        (f"candidate {f.index}", *(number(f.by_device_ms.get(name)) for name in devices))
        for f in marks.finalists
    ]
    winners = frozenset(i for i, f in enumerate(marks.finalists) if f.winner)
    return table(("finalist", *(f"ms on {name}" for name in devices)), rows, marked=winners)


def front(marks: Marks) -> Html:
    """Return the candidates on the Pareto front, by latency."""

    def line(row: CandidateRow) -> tuple[object, ...]:
        return (
            row.index,
            number(row.latency_ms),
            interval(row.latency_ci95_ms),
            percent(row.accuracy),
            count(row.params),
            count(row.macs),
            number(row.score, 4),
            pill(row.verdict),
            Html(f"<code>{esc(row.spec)}</code>"),
        )

    head = (
        "candidate",
        "ms",
        "95 % interval",
        "accuracy in the search",
        "parameters",
        "MACs",
        "score",
        "verdict",
        "network",
    )
    chosen = frozenset(i for i, row in enumerate(marks.front) if row is marks.chosen)
    return table(head, map(line, marks.front), text_columns=frozenset({7, 8}), marked=chosen)


def artifact_costs(result: RunResult) -> Html:
    """Return size and speed of every exported file."""

    def line(row: ArtifactRow) -> tuple[object, ...]:
        return (
            _file(row),
            f"{row.bytes:,}",
            number(row.latency_ms),
            interval(row.ci95_ms),
            DASH if row.partitions is None else row.partitions,
            _times(row.compression_rate),
            percent(row.space_saving_rate, 1),
            _times(row.speed_up_rate),
            _verdict(row),
        )

    head = (
        "file",
        "bytes",
        "ms",
        "95 % interval",
        "partitions",
        "compression rate",
        "space-saving rate",
        "speed-up rate",
        "verdict",
    )
    rows = map(line, result.artifacts)
    return table(head, rows, text_columns=frozenset({0, 8}), marked=_winners(result))


def artifact_checks(result: RunResult) -> Html:
    """Return accuracy and faithfulness of every exported file."""

    def line(row: ArtifactRow) -> tuple[object, ...]:
        return (
            _file(row),
            percent(row.accuracy_torch),
            percent(row.accuracy_host),
            percent(row.accuracy_device),
            unit(row.sqnr_db, "dB"),
            number(row.max_abs_error),
            percent(row.argmax_agreement),
            hashed(row.sha256),
        )

    head = (
        "file",
        "accuracy, torch",
        "accuracy, host",
        "accuracy, device",
        "SQNR",
        "max |error|",
        "agreement",
        "SHA-256",
    )
    return table(head, map(line, result.artifacts), marked=_winners(result))


def failed_files(result: RunResult) -> Html:
    """Return the files that failed, with the reasons; nothing when none did."""
    if not result.failed_files:
        return Html()
    rows = [(f"{f.network} {f.format} {f.scheme}", f.reason) for f in result.failed_files]
    shown = table(("file", "why it failed"), rows, text_columns=frozenset({0, 1}))
    return Html(f"<h3>Left out, because they failed</h3>{shown}")


def ops(result: RunResult) -> Html:
    """Return every op of the winner with its costs, the three slowest marked."""
    shares = op_shares(result.ops)
    order = sorted(range(len(shares)), key=lambda i: -(shares[i].time_share or 0.0))
    longest = max((s.time_share or 0.0 for s in shares), default=0.0)
    most = max((s.macs_share or 0.0 for s in shares), default=0.0)

    def line(share: OpShare) -> tuple[object, ...]:
        op = share.op
        return (
            Html(f'<span title="{esc(op.key)}">{esc(op.name)}</span>'),
            share.kind,
            number(op.latency_ms),
            _bar(share.time_share, longest, "time"),
            _bar(share.macs_share, most, "macs"),
            count(op.macs),
            count(op.params),
            f"{op.activation_bytes:,}",
            _rate(share),
        )

    head = (
        "op",
        "kind",
        "ms",
        "share of the sum of ops",
        "share of MACs",
        "MACs",
        "parameters",
        "activation bytes",
        "GMAC/s",
    )
    slowest = frozenset(i for i in order[:3] if shares[i].time_share)
    return table(head, map(line, shares), text_columns=frozenset({0, 1}), marked=slowest)


def _bar(share: float | None, most: float, tone: str) -> Html:
    if share is None:
        return esc(None)
    return bar(share / most if most else 0.0, tone, percent(share, 1))


def _rate(share: OpShare) -> str:
    """MACs per measured second: low where memory or overhead rules, not arithmetic."""
    latency_ms = finite(share.op.latency_ms)
    return number(share.op.macs / latency_ms / 1e6) if latency_ms and share.op.macs else DASH


def _file(row: ArtifactRow) -> Html:
    name = f"{row.network} {row.format} {row.scheme}"
    return Html(f'<span title="{esc(row.path)}">{esc(name)}</span>')


def _verdict(row: ArtifactRow) -> Html:
    reasons = "".join(f"<small>{esc(reason)}</small>" for reason in row.reasons)
    return Html(f"{pill(row.verdict)}{reasons}")


def _times(rate: float | None) -> str:
    return DASH if finite(rate) is None else number(rate) + TIMES


def _winners(result: RunResult) -> frozenset[int]:
    return frozenset(i for i, row in enumerate(result.artifacts) if row.network == "winner")
