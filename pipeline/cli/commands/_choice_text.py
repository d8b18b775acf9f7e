"""What `edgewright compress` prints where it chose the passes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from device_agents.plural import number_of
from pipeline.cli.commands._quantize_any import shown_option
from pipeline.cli.options import console, echo, print_json
from pipeline.compress.choosing import FINETUNE, find_front

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.compress.to_latency import Timed
    from pipeline.compress.trials import Trial, Trials
    from pipeline.data.task import Task


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a choice.

    Attributes:
        source: as the user calls the model.
        found: chains that were tried.
        device: on which.
        task: of whose score points are hundredths; None for agreement with the source.
        samples: on so many all was judged.
        generated: whether nobody gave the samples.
        file: what was written; None where nothing was.
    """

    source: str
    found: Trials
    device: str
    task: Task | None
    samples: int
    generated: bool
    file: Path | None

    @property
    def unit(self) -> str:
        """What points are hundredths of."""
        return "agreement" if self.task is None else self.task.metric

    @property
    def wanted(self) -> str:
        """Say what was asked for."""
        goal = self.found.goal
        target = "" if goal.target_ms is None else f"takes at most {goal.target_ms:.4g} ms"
        most = goal.max_drop if target else goal.allowed
        drop = "" if most is None else f"loses at most {most:g} points of {self.unit}"
        return " and ".join(filter(None, (target, drop)))

    @property
    def unmet(self) -> str:
        """Say that no chain did it, and which came closest."""
        count = number_of(len(self.found.trials), "chain")
        return (
            f"none of {count} {self.wanted} on {self.device}; {self.found.choice.why}; nothing is "
            "written"
        )


def say(told: Told, *, as_json: bool) -> None:
    """Print what was tried, and what is taken of it."""
    if as_json:
        print_json(_json(told))
        return
    _say_table(told)
    for trial in told.found.trials:
        if refusal := told.found.goal.refusal(trial.tried):
            echo(f"not taken, {trial.tried.chain.name}: {refusal}", err=True)
    for trial in told.found.trials:
        if words := _left_words(trial):
            echo(f"{trial.tried.chain.name}: {words}", err=True)
    for one in told.found.skipped:
        echo(f"not tried, {one.name}: {one.why}", err=True)
    kind = "generated samples, which say little of it" if told.generated else "samples"
    echo(f"beside {told.source} on {told.samples} {kind}", err=True)
    taken = told.found.taken
    if taken is None:
        return
    chain = taken.tried.chain
    echo(f"taken, {chain.name}: {told.found.choice.why}", err=True)
    if chain.prunes and FINETUNE not in chain.words:
        echo("nothing was trained after pruning: --data with labels would let it be", err=True)
    if told.file is not None:
        echo(told.file)


def _left_words(trial: Trial) -> str:
    """Say which ops a chain leaves in float32, and what they cost in milliseconds."""
    made, figures = trial.changed, trial.tried.figures
    if made is None or not made.left or figures is None:
        return ""
    graph = made.real.graph
    words = (
        f"{len(made.left)} of {len(graph.ops)} ops are left in float32 so that it loses no more: "
        f"{shown_option(graph, made.left)}"
    )
    if made.throughout is None:
        return words
    codes_ms = made.throughout.latency_ms
    return (
        f"{words}; that costs {figures.latency_ms - codes_ms:.4g} ms: {figures.latency_ms:.4g} "
        f"against {codes_ms:.4g} ms with codes throughout"
    )


def _say_table(told: Told) -> None:
    from rich.table import Table

    table = Table(
        "chain",
        f"ms on {told.device}",
        "95 % interval",
        "faster",
        "points lost",
        "bytes",
        "",
    )
    if told.task is not None:
        table.add_column(told.task.metric)
    front = find_front([one.tried for one in told.found.trials])
    first = told.found.trials[0].tried.figures
    for trial in told.found.trials:
        name, figures = trial.tried.chain.name, trial.tried.figures
        if figures is None or first is None:
            table.add_row(name, *("-",) * 5, "refused")
            continue
        low, high = figures.ci95_ms
        row = [name, f"{figures.latency_ms:.4g}", f"{low:.4g} to {high:.4g}"]
        row += [f"{first.latency_ms / figures.latency_ms:.2f}x", f"{figures.lost_points:.2f}"]
        row += [f"{figures.bytes:,}", _mark(told, trial, front=trial.tried in front)]
        if told.task is not None and figures.score is not None:
            row.append(told.task.words(figures.score))
        table.add_row(*row)
    console().print(table)


def _mark(told: Told, trial: Trial, *, front: bool) -> str:
    figures = trial.tried.figures
    words = ["taken"] if trial is told.found.taken else []
    words += ["on the front"] if front else []
    words += ["refused"] if trial.tried.refused else []
    words += [figures.verdict] if figures is not None and figures.verdict != "valid" else []
    return ", ".join(words)


def _json(told: Told) -> dict[str, Any]:
    found = told.found
    front = find_front([one.tried for one in found.trials])
    taken = found.taken
    made = None if taken is None else taken.changed
    return {
        "model": told.source,
        "device": told.device,
        "target_ms": found.goal.target_ms,
        "max_drop": found.goal.max_drop,
        "samples": told.samples,
        "generated": told.generated,
        "drop_of": told.unit,
        "chains": [_chain_json(told, trial, front=trial.tried in front) for trial in found.trials],
        "not_tried": [asdict(one) for one in found.skipped],
        "taken": None if taken is None else taken.tried.chain.name,
        "why": found.choice.why,
        "file": None if told.file is None else str(told.file),
        "history": [] if made is None else list(made.model.history),
    }


def _throughout(trial: Trial) -> Timed | None:
    return None if trial.changed is None else trial.changed.throughout


def _chain_json(told: Told, trial: Trial, *, front: bool) -> dict[str, Any]:
    tried, figures = trial.tried, trial.tried.figures
    return {
        "name": tried.chain.name,
        "passes": list(tried.chain.words),
        "why": tried.chain.why,
        **({} if figures is None else asdict(figures)),
        "sha256": None if trial.changed is None else trial.changed.sha256,
        "left_in_float32": [] if trial.changed is None else list(trial.changed.left),
        "throughout": None if (codes := _throughout(trial)) is None else asdict(codes),
        "on_front": front,
        "taken": trial is told.found.taken,
        "refused": told.found.goal.refusal(tried) or None,
    }
