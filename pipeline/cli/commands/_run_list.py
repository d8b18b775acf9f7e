"""The runs of a store, for the commands that list them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.cli.options import console
from pipeline.store.model_result import ModelResult

if TYPE_CHECKING:
    from pipeline.store import Store
    from pipeline.store.records import Run
    from pipeline.store.result import RunResult


def rows(store: Store) -> list[dict[str, Any]]:
    """Return what there is to tell of every run, the newest first."""
    finished = store.list_results()
    return [_row(run, finished.get(run.id)) for run in reversed(store.runs())]


def _row(run: Run, result: RunResult | ModelResult | None) -> dict[str, Any]:
    if isinstance(result, ModelResult):
        return {**_row(run, None), "finished": True, "sentence": result.sentence}
    comparison = result.comparison if result else None
    kinds = ("table", "latency table"), ("model", "model"), ("pruned", "pruning")
    return {
        "run": run.id,
        "of": next((name for key, name in kinds if key in run.recipe), "recipe"),
        "device": run.device,
        "started_at": run.started_at,
        "finished": result is not None,
        "winner_ms": comparison.winner_ms if comparison else None,
        "winner_accuracy": comparison.winner_accuracy_test if comparison else None,
        "ratio": comparison.ratio if comparison else None,
        "baseline": result.baseline_name if result else None,
        "target_met": comparison.met if comparison else None,
        "outcome": comparison.outcome if comparison else None,
    }


def show(found: list[dict[str, Any]]) -> None:
    """Print the runs as a table."""
    from rich.table import Table

    table = Table("run", "device", "started", "winner", "result", box=None, pad_edge=False)
    for row in found:
        started = row["started_at"][:16].replace("T", " ")
        table.add_row(row["run"], row["device"], started, _winner(row), _outcome(row))
    console().print(table)


def _winner(row: dict[str, Any]) -> str:
    if row["winner_ms"] is None:
        return "-"
    return f"{row['winner_ms']:.4f} ms, {row['winner_accuracy']:.1%}"


def _outcome(row: dict[str, Any]) -> str:
    if row["of"] == "latency table":
        return "measurements of a latency table: the same `edgewright lut` takes them up"
    if row["of"] == "pruning":
        return "measurements of pruning: the same `edgewright compress` takes them up"
    if not row["finished"]:
        return "not finished: the same `edgewright run` goes on with it"
    if "sentence" in row:
        return str(row["sentence"])
    if row["outcome"] in ("no comparison", "learnt nothing"):
        return str(row["outcome"])
    verdict = {"met": "target met", "missed": "target missed"}.get(row["outcome"], row["outcome"])
    return f"{row['ratio']:.2f} of {row['baseline']}, {verdict}"
