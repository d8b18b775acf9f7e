"""What `edgewright compress` prints."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.cli.commands._quantize_any import shown_layers
from pipeline.cli.options import console, echo, print_json

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.compress.stepwise import Step
    from pipeline.data.task import Task


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a model.

    Attributes:
        source: as the user calls it.
        file: what was written.
        steps: the model as it came, and after each pass.
        task: what scores are of; None where there are none.
        samples: on so many all was judged.
        max_drop: points that might be lost; None where nothing was asked.
        generated: whether nobody gave the samples.
    """

    source: str
    file: Path
    steps: tuple[Step, ...]
    task: Task | None
    samples: int
    max_drop: float | None
    generated: bool


def say(outcome: Outcome, *, as_json: bool) -> None:
    """Print what came of a model."""
    if as_json:
        print_json(_json(outcome))
        return
    _say_table(outcome)
    for step in outcome.steps[1:]:
        echo(f"{step.name}: {step.done}", err=True)
        if step.left:
            shown = shown_layers(step.model.graph, step.left)
            ops = len(step.model.graph.ops)
            echo(f"left in float32 for it {len(step.left)} of {ops} ops: {shown}", err=True)
    if outcome.max_drop is not None:
        points = outcome.steps[-1].worth.lost.points
        unit = _unit(outcome)
        echo(f"loses {points:.2f} points of {unit}, at most {outcome.max_drop:g}", err=True)
    kind = "generated samples, which say little of it" if outcome.generated else "samples"
    echo(f"beside {outcome.source} on {outcome.samples} {kind}", err=True)
    echo(outcome.file)


def _unit(outcome: Outcome) -> str:
    return "agreement" if outcome.task is None else outcome.task.metric


def _json(outcome: Outcome) -> dict[str, Any]:
    return {
        "model": outcome.source,
        "file": str(outcome.file),
        "samples": outcome.samples,
        "generated": outcome.generated,
        "metric": None if outcome.task is None else outcome.task.metric,
        "drop_points": outcome.steps[-1].worth.lost.points,
        "drop_of": _unit(outcome),
        "steps": [
            _step_json(step, before)
            for step, before in zip(outcome.steps, (None, *outcome.steps), strict=False)
        ],
        "history": list(outcome.steps[-1].model.history),
    }


def _step_json(step: Step, before: Step | None) -> dict[str, Any]:
    worth = {name: value for name, value in asdict(step.worth).items() if name != "lost"}
    return {
        "name": step.name,
        "done": step.done,
        "changed": before is not None and not step.is_as(before),
        "macs": step.macs,
        "params": step.params,
        **worth,
        "lost_points": step.worth.lost.points,
        "left_in_float32": list(step.left),
    }


def _say_table(outcome: Outcome) -> None:
    from rich.table import Table

    table = Table("step", "bytes", "of it", "MACs", "parameters", "SQNR", "agreement")
    if outcome.task is not None:
        table.add_column(outcome.task.metric)
    for step in outcome.steps:
        worth = step.worth
        rate = f"{worth.bytes / outcome.steps[0].worth.bytes:.1%}"
        row = [step.name, f"{worth.bytes:,}", rate, f"{step.macs:,}", f"{step.params:,}"]
        row += ["-" if worth.sqnr_db is None else f"{worth.sqnr_db:.1f} dB"]
        row += [f"{worth.agreement:.2%}"]
        if outcome.task is not None and worth.score is not None:
            row.append(outcome.task.words(worth.score))
        table.add_row(*row)
    console().print(table)
