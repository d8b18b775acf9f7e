"""What `edgewright compress` came to, as the page of a run tells it."""

from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from pipeline.cli.options import echo

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.cli.commands._compress_text import Outcome
    from pipeline.store.compression import Compression, StepRow


def write_report(outcome: Outcome, path: Path) -> None:
    """Write the page on what came of a model, and say where it is. Raises ConfigError."""
    from pipeline.report.compression_page import write_compression_report

    write_compression_report(to_compression(outcome), path)
    echo(f"report: {path}", err=True)


def to_compression(outcome: Outcome) -> Compression:
    """Return what came of a model as a run's page tells it."""
    from pipeline.evaluate.compression import count_layers, describe_step
    from pipeline.store.compression import Compression

    priors = (None, *outcome.steps)
    rows = [
        _timed(describe_step(step, prior, outcome.task, outcome.samples), outcome, place)
        for place, (step, prior) in enumerate(zip(outcome.steps, priors, strict=False))
    ]
    return Compression(
        source=outcome.source,
        format=outcome.format,
        device=outcome.device if outcome.times else "",
        metric=None if outcome.task is None else outcome.task.metric,
        samples=outcome.samples,
        split="generated" if outcome.generated else "given",
        steps=tuple(rows),
        layers=count_layers(outcome.steps[0].model, outcome.steps[-1].model),
    )


def _timed(row: StepRow, outcome: Outcome, place: int) -> StepRow:
    """Return a step with its time; of the model as it came its median over all comparisons."""
    if not outcome.times:
        return row
    if place == 0:
        return replace(row, latency_ms=median(one.first_ms for one in outcome.times))
    time = outcome.times[place - 1]
    return replace(
        row,
        latency_ms=time.second_ms,
        ratio=time.ratio,
        ratio_ci95=time.ratio_ci95,
        verdict=time.verdict,
        reasons=tuple(time.reasons),
    )
