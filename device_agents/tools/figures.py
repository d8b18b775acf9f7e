"""Reads a log that somebody else made, of whichever tool, into figures with a verdict each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.tools import benchmark_model, benchmark_text, benchncnn, onnxruntime_perf_test

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a log.

    Attributes:
        latency_ms: None unless `status` is accepted or truncated.
        runs: timed invokes behind it.
        delegation: who ran the ops, in words; empty where the tool has none.
        reasons: why it does not count, or what to know of it.
    """

    tool: str
    label: str
    status: benchmark_model.Status
    latency_ms: float | None
    statistic: str
    runs: int | None
    threads: int | None
    delegation: str
    reasons: tuple[str, ...]


def read_log(text: str) -> tuple[Figure, ...]:
    """Return every figure of a log in order of the tools; empty when it is of no known tool."""
    return (*_benchmark_model(text), *_ncnn(text), *_onnxruntime(text))


def _benchmark_model(text: str) -> Iterator[Figure]:
    for run in benchmark_text.parse_log(text):
        found = benchmark_model.accept(run)
        refused = run.delegation.refused
        ops = "1 op" if len(refused) == 1 else f"{len(refused)} ops"
        more = (f"{ops} refused by a delegate: {refused[0]}",) if refused else ()
        yield Figure(
            "benchmark_model",
            run.graph,
            found.status,
            found.latency_ms,
            found.statistic,
            found.runs,
            run.threads,
            str(run.delegation),
            (*found.reasons, *more),
        )


def _ncnn(text: str) -> Iterator[Figure]:
    for run in benchncnn.parse_log(text):
        for row in run.rows:
            status: benchmark_model.Status = "failed" if row.problem else "accepted"
            reasons = (row.problem,) if row.problem else ("average; benchncnn tells no median",)
            if not row.problem and run.loops is None:
                status, reasons = "incomplete", ("the log lacks the settings of the run",)
            yield Figure(
                "benchncnn",
                row.name,
                status,
                row.avg_ms if status == "accepted" else None,
                "average" if status == "accepted" else "",
                run.loops,
                run.threads,
                "" if run.gpu_device in (None, -1) else f"GPU {run.gpu_device}",
                reasons,
            )


def _onnxruntime(text: str) -> Iterator[Figure]:
    results = onnxruntime_perf_test.parse_samples(text)
    for samples in results:
        count = len(samples.samples_ns)
        yield Figure(
            *("onnxruntime_perf_test", samples.model, "accepted", samples.median_ms, "median"),
            *(count, None, "", ()),
        )
    report = onnxruntime_perf_test.parse_report(text)
    # What stands behind the rows of a result file says less than the rows.
    if report is None or results:
        return
    status: benchmark_model.Status = "accepted"
    reasons: tuple[str, ...] = ()
    if report.failures:
        status, reasons = "failed", report.failures
    elif report.unreadable:
        status = "incomplete"
        reasons = (f"cannot read, or reads twice: {report.unreadable[0]!r}",)
    elif not report.complete:
        status = "incomplete"
        reasons = ("the report lacks its average, its total or its count, or they disagree",)
    good = status == "accepted"
    middle = report.percentiles_ms.get("P50")
    yield Figure(
        "onnxruntime_perf_test",
        "",
        status,
        (middle if middle is not None else report.average_ms) if good else None,
        ("median" if middle is not None else "average") if good else "",
        report.iterations,
        None,
        "",
        reasons,
    )
