"""What `edgewright search` shows while it searches, and at the end: candidates and their front."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from device_agents.plural import number_of
from pipeline.cli.display import Display
from pipeline.search.pareto import pareto_front

if TYPE_CHECKING:
    from pipeline.search.confirm import Confirmed
    from pipeline.search.stage import SearchOutcome
    from pipeline.store.result import CandidateRow

_NEWEST = 5
_FRONT = 12
_NAN = float("nan")


@dataclass(slots=True)
class SearchDisplay(Display):
    """A display that also shows the front and the newest candidates.

    In a pipe every measured candidate is one line; where a latency is only estimated there are
    thousands, and only those that reach the front are printed.
    """

    rows: list[CandidateRow] = field(default_factory=list)
    front: list[CandidateRow] = field(default_factory=list)

    def candidate(self, row: CandidateRow) -> None:
        """Take a candidate into the table, or print its line."""
        if row.reused:
            return
        self.rows.append(row)
        # Of the front and one more only these can be on the new front.
        self.front = front_of([*self.front, row])
        if self._live is not None:
            self.panel = self._table()
        elif row in self.front or row.latency_source == "measured":
            self.say(line(row, on_front=row in self.front))

    def _table(self) -> Table:
        table = _empty(f"{number_of(len(self.rows), 'candidate')}, {len(self.front)} on the front")
        for row in self.front[-_FRONT:]:
            table.add_row(*_cells(row), style="bold")
        table.add_section()
        for row in self.rows[-_NEWEST:]:
            table.add_row(*_cells(row))
        return table


def front_of(rows: list[CandidateRow]) -> list[CandidateRow]:
    """Return the candidates on the front of accuracy and latency, fastest first."""
    accuracies = [_NAN if row.accuracy is None else row.accuracy for row in rows]
    latencies = [_NAN if row.latency_ms is None else row.latency_ms for row in rows]
    known = [i for i in pareto_front(accuracies, latencies).tolist() if rows[i].failure is None]
    return [rows[i] for i in known]


def line(row: CandidateRow, *, on_front: bool) -> str:
    """Return a candidate as one line."""
    if row.failure is not None:
        return f"candidate {row.index}: failed: {row.failure}"
    _, latency, source, accuracy, score, params = _cells(row)
    mark = ", on the front" if on_front else ""
    return (
        f"candidate {row.index}: {latency} ms {source}, accuracy {accuracy}, score {score}, "
        f"{params} parameters{mark}"
    )


def _empty(title: str) -> Table:
    table = Table(title=title, title_justify="left", box=None)
    for name in ("candidate", "latency, ms", "from", "accuracy", "score", "parameters"):
        table.add_column(name, justify="left" if name == "from" else "right", no_wrap=True)
    return table


def _cells(row: CandidateRow) -> tuple[str, ...]:
    if row.failure is not None:
        return (str(row.index), "failed", "", "", "", f"{row.params:,}")
    interval = row.latency_ci95_ms
    half = "" if interval is None else f" ± {(interval[1] - interval[0]) / 2:.4f}"
    return (
        str(row.index),
        f"{row.latency_ms:.4f}{half}",
        row.latency_source,
        f"{row.accuracy:.2%}",
        "-" if row.score is None else f"{row.score:.4f}",
        f"{row.params:,}",
    )


def finalists_table(found: SearchOutcome) -> Table:
    """Return the finalists, what the search went by beside what the device said at last."""
    table = Table(title="finalists, measured again", title_justify="left", box=None)
    for name in ("candidate", "accuracy", "predicted, ms", "measured, ms", "off by", "from"):
        table.add_column(name, justify="left" if name == "from" else "right", no_wrap=True)
    for one in found.finalists:
        values = finalist_json(one)
        low, high = values["measured_ci95_ms"]
        table.add_row(
            str(one.index),
            f"{values['accuracy']:.2%}",
            f"{values['predicted_ms']:.4f}",
            f"{values['measured_ms']:.4f} ({low:.4f} to {high:.4f})",
            f"{values['predicted_ms'] / values['measured_ms'] - 1:+.1%}",
            Text(values["predicted_source"]),
        )
    return table


def finalist_json(one: Confirmed) -> dict[str, Any]:
    """Return a finalist as plain JSON values."""
    half = one.upper_ms - one.measured.value
    accuracy = one.trial.estimates["accuracy"]
    return {
        "index": one.index,
        "spec": str(one.trial.spec),
        "accuracy": accuracy.value,
        "accuracy_source": accuracy.source,
        "predicted_ms": one.predicted.value,
        "predicted_source": one.predicted.source,
        "measured_ms": one.measured.value,
        "measured_ci95_ms": (one.measured.value - half, one.measured.value + half),
        "by_device_ms": {name: found.value for name, found in one.by_device.items()},
    }
