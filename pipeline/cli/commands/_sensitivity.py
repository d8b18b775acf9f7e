"""What `edgewright sensitivity` does: reads a model and samples, and says what its layers lose."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.cli.commands._made_file import read_graph
from pipeline.cli.options import console, echo, show_steps

if TYPE_CHECKING:
    from pathlib import Path

    from models.model import Model
    from pipeline.compress.layer_changes import Of
    from pipeline.compress.sweep import Curve, Scoring, Sweep
    from pipeline.data.pictures.values import Values
    from pipeline.formats.api import ReadOptions
    from pipeline.formats.ends import Array
    from pipeline.formats.subjects import Subject

_ROWS = 40
_NAME_CHARS = 44
_MEANS = {
    "sparsity": "share of the weights that are 0",
    "bits": "bits of the weights",
    "width": "share of the channels that stay",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says."""

    source: str
    options: ReadOptions
    data: Path | None
    values: Values | None
    of: tuple[Of, ...]
    task: str
    count: int | None
    max_drop: float


def find_sensitivity(asked: Asked) -> Sweep:
    """Read a model and samples, and find what its layers lose."""
    from pipeline.compress.sweep import affordable, sweep
    from pipeline.formats.convert import graph_inputs

    with show_steps(f"changing layers of {asked.source}") as tell:
        tell("reading it")
        model, subject = read_graph(
            asked.source, asked.options, else_what="its layers cannot be changed"
        )
        most = asked.count or affordable(model, asked.of)
        inputs, labels = _samples(asked, model, subject, most)
        given = graph_inputs(model, subject, inputs)
        scoring = _scoring(asked, labels)
        return sweep(model, given, scoring, asked.of, max_drop=asked.max_drop, tell=tell)


def _samples(
    asked: Asked, model: Model, subject: Subject, most: int
) -> tuple[dict[str, Array], Any]:
    from pipeline.cli.samples import read_samples
    from pipeline.formats.generated_inputs import generate_inputs, index_ranges

    if asked.data is None:
        ranges = index_ranges(model)
        return generate_inputs(subject.ends, count=min(most, 48), ranges=ranges), None
    return read_samples(asked.data, subject.ends, asked.values, most=most)


def _scoring(asked: Asked, labels: Any) -> Scoring:
    from pipeline.compress.sweep import Scoring
    from pipeline.data import TASKS

    task, agreement = (TASKS.load(name)() for name in (asked.task, "agreement"))
    return Scoring(labels, task, agreement)


def to_json(source: str, found: Sweep) -> dict[str, Any]:
    """Return what was found as JSON values; decibels that are infinite are null."""
    told = asdict(found)
    for curve in told["curves"]:
        for point in curve["points"]:
            if not math.isfinite(point["sqnr_db"]):
                point["sqnr_db"] = None
    return {"model": source, **told}


def say(source: str, found: Sweep, *, generated: bool) -> None:
    """Print a table for each thing that was changed, and how sure it is."""
    for of in dict.fromkeys(curve.of for curve in found.curves):
        _show(source, found, [curve for curve in found.curves if curve.of == of])
    for why in found.left_out:
        echo(f"edgewright: not changed: {why}", err=True)
    kind = "generated samples, which say little of it" if generated else "samples"
    echo(
        f"{found.metric} {found.value:.4f} of the whole network on {found.samples} {kind}, one of "
        f"which is {100 / found.samples:.2g} points; {found.seconds:.0f} s"
    )
    echo(
        f"redundant: parameters that are not needed for a loss of {found.max_drop:g} points, each "
        "layer alone; several together lose more"
    )


def _show(source: str, found: Sweep, curves: list[Curve]) -> None:
    from rich.table import Table

    of = curves[0].of
    levels = list(dict.fromkeys(point.level for curve in curves for point in curve.points))
    table = Table(title=f"{source}: points of {found.metric} lost by {_MEANS[of]}")
    table.add_column("layer")
    table.add_column("op")
    table.add_column("parameters", justify="right")
    for level in levels:
        table.add_column(f"{level:g}", justify="right")
    table.add_column("dB there", justify="right")
    table.add_column("tolerates", justify="right")
    table.add_column("redundant", justify="right")
    for curve in curves[:_ROWS]:
        lost = {point.level: f"{point.lost_points:.1f}" for point in curve.points}
        table.add_row(
            brief(curve.layer),
            curve.kind,
            f"{curve.parameters:,}",
            *(lost.get(level, "") for level in levels),
            _decibels(curve),
            "-" if curve.tolerated is None else f"{curve.tolerated:g}",
            f"{curve.redundant:,.0f}",
        )
    console().print(table)
    if (more := len(curves) - _ROWS) > 0:
        echo(f"and {more} more, which hold less that is redundant; --json has them all")


def _decibels(curve: Curve) -> str:
    """Return the SQNR at the level that is tolerated."""
    at = [point.sqnr_db for point in curve.points if point.level == curve.tolerated]
    if not at:
        return ""
    return f"{at[0]:.1f}" if math.isfinite(at[0]) else "exact"


def brief(name: str) -> str:
    """Return the end of a long name, which is what tells it from others."""
    return name if len(name) <= _NAME_CHARS else f"…{name[1 - _NAME_CHARS :]}"
