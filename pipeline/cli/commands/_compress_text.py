"""What `edgewright compress` prints."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from pipeline.cli.commands._compress_report import to_compression
from pipeline.cli.commands._compress_target import latency_json, say_latency
from pipeline.cli.commands._quantize_any import shown_option
from pipeline.cli.options import console, echo, print_json

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.cli.commands._compress_target import Aim
    from pipeline.cli.commands._islands import Islands
    from pipeline.compress.stepwise import Step
    from pipeline.compress.to_latency import Fitted
    from pipeline.data.task import Task
    from pipeline.evaluate.two_files import TwoFiles
    from pipeline.measure.codes import CodesBeside


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a model.

    Attributes:
        source: as the user calls it.
        file: what was written.
        format: of it.
        steps: the model as it came, and after each pass.
        task: what scores are of; None where there are none.
        samples: on so many all was judged.
        max_drop: points that might be lost; None where nothing was asked.
        generated: whether nobody gave the samples.
        device: where files were timed; empty where nobody asked for it.
        times: the file after each pass beside the model's own; empty where they are not known.
        latency: how a latency was met, and what had asked for it; None where none was asked.
        islands: what layers that the last pass left in float32 cost; None where none was timed.
        codes: of an int8 file, on the device beside exact integers; None where it was not run.
    """

    source: str
    file: Path
    format: str
    steps: tuple[Step, ...]
    task: Task | None
    samples: int
    max_drop: float | None
    generated: bool
    device: str = ""
    times: tuple[TwoFiles, ...] = ()
    latency: tuple[Fitted, Aim] | None = None
    islands: Islands | None = None
    codes: CodesBeside | None = None

    @property
    def time_of(self) -> tuple[TwoFiles | None, ...]:
        """The time of each step, the first of which has none of its own."""
        return (None, *(self.times or (None,) * (len(self.steps) - 1)))


def say(outcome: Outcome, *, as_json: bool) -> None:
    """Print what came of a model."""
    if as_json:
        print_json(_json(outcome))
        return
    _say_table(outcome)
    if outcome.latency is not None:
        say_latency(*outcome.latency, outcome.steps[0].model.graph)
    for step in outcome.steps[1:]:
        echo(f"{step.name}: {step.done}", err=True)
        if step.left:
            shown = shown_option(step.model.graph, step.left)
            ops = len(step.model.graph.ops)
            echo(f"left in float32 for it {len(step.left)} of {ops} ops: {shown}", err=True)
    if known := [step.name for step in outcome.steps if step.remembered]:
        echo(f"remembered, and not done again: {', '.join(known)}", err=True)
    for remark in to_compression(outcome).remarks():
        echo(remark, err=True)
    for sentence in () if outcome.islands is None else outcome.islands.sentences:
        echo(sentence, err=True)
    if outcome.codes is not None:
        echo(f"on {outcome.device} beside exact integers: {outcome.codes.words}", err=True)
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
        "device": outcome.device or None,
        "steps": [_step_json(outcome, place) for place in range(len(outcome.steps))],
        "history": list(outcome.steps[-1].model.history),
        **({} if outcome.islands is None else {"islands": outcome.islands.to_json()}),
        **({} if outcome.codes is None else {"codes": asdict(outcome.codes)}),
        **({} if outcome.latency is None else {"latency": latency_json(*outcome.latency)}),
    }


def _step_json(outcome: Outcome, place: int) -> dict[str, Any]:
    step, time, first = outcome.steps[place], outcome.time_of[place], outcome.steps[0]
    worth = {name: value for name, value in asdict(step.worth).items() if name != "lost"}
    rate, packed = first.worth.bytes / step.worth.bytes, step.worth.packed_bytes
    return {
        "name": step.name,
        "done": step.done,
        "changed": place > 0 and not step.is_as(outcome.steps[place - 1]),
        "macs": step.macs,
        "params": step.params,
        **worth,
        "compression_rate": rate,
        "space_saving_rate": 1 - 1 / rate,
        "packed_rate": packed and first.worth.bytes / packed,
        "speed_up_rate": None if time is None else 1 / time.ratio,
        "lost_points": step.worth.lost.points,
        "left_in_float32": list(step.left),
        "remembered": step.remembered,
        "latency": None if time is None else {**asdict(time), "speed_up": 1 / time.ratio},
    }


def _say_table(outcome: Outcome) -> None:
    from rich.table import Table

    packed = [step.worth.packed_bytes for step in outcome.steps if step.worth.packed_bytes]
    table = Table("step", "bytes", "smaller")
    if packed:
        table.add_column("packed")
        table.add_column("smaller")
    for head in ("MACs", "parameters", "SQNR", "agreement"):
        table.add_column(head)
    if outcome.task is not None:
        table.add_column(outcome.task.metric)
    if outcome.times:
        table.add_column(f"ms on {outcome.device}")
        table.add_column("faster")
    for step, time in zip(outcome.steps, outcome.time_of, strict=True):
        worth = step.worth
        rate = f"{outcome.steps[0].worth.bytes / worth.bytes:.2f}x"
        row = [step.name, f"{worth.bytes:,}", rate]
        if worth.packed_bytes is not None:
            smaller = outcome.steps[0].worth.bytes / worth.packed_bytes
            row += [f"{worth.packed_bytes:,}", f"{smaller:.2f}x"]
        row += [f"{step.macs:,}", f"{step.params:,}"]
        row += [_decibels(worth.sqnr_db), f"{worth.agreement:.2%}"]
        if outcome.task is not None and worth.score is not None:
            row.append(outcome.task.words(worth.score))
        if outcome.times:
            row += _time(time, outcome.times)
        table.add_row(*row)
    console().print(table)


def _decibels(sqnr_db: float | None) -> str:
    if sqnr_db is None:
        return "-"
    return f"{sqnr_db:.1f} dB" if math.isfinite(sqnr_db) else "exact"


def _time(time: TwoFiles | None, times: tuple[TwoFiles, ...]) -> list[str]:
    """Return latency and speed-up; of the model as it came its median over all comparisons."""
    if time is None:
        return [f"{median(one.first_ms for one in times):.4f}", "1.00x"]
    low, high = time.ratio_ci95
    return [f"{time.second_ms:.4f}", f"{1 / time.ratio:.2f}x ({1 / high:.2f} to {1 / low:.2f})"]
