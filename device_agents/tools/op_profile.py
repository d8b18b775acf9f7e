"""Reads the tables of `--enable_op_profiling`, old and new.

Columns are found by their titles, since old tables lack some. Shares are computed from `avg ms`:
the tool's own are wrong in old versions. A delegated part of the model is one row; what happened
inside it is in tables of its own, which are not added to it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.tools.log_lines import streams

if TYPE_CHECKING:
    from collections.abc import Sequence

INITIALISATION = "initialisation"
REGULAR = "regular"

_ORDER = re.compile(r"=+ (Run Order|Top by Computation Time|Summary by node type) =+")
_GRAPH = re.compile(r"(?:Primary graph|Subgraph) \(.*\):?")
_NAME = re.compile(r"\[(.*)\](?::(\d+))?")
_CELLS = re.compile(r" *\t[\t ]*| {2,}")


@dataclass(frozen=True, slots=True)
class OpRow:
    """One op: times in ms over all runs; `share` of the table's sum; `index` in the graph."""

    node_type: str
    name: str
    index: int | None
    avg_ms: float
    share: float
    first_ms: float | None
    times_called: int | None


@dataclass(frozen=True, slots=True)
class OpTable:
    """The `Run Order` table of one graph; `inside` is a delegate's own account."""

    section: str
    graph: str
    inside: bool
    rows: tuple[OpRow, ...]


def parse_tables(text: str) -> tuple[OpTable, ...]:
    """Return every `Run Order` table; a row that cannot be read drops its whole table."""
    tables: list[OpTable] = []
    for lines in streams(text):
        tables += _tables(lines)
    return tuple(tables)


def parse_profile(text: str) -> tuple[OpRow, ...]:
    """Return the ops of the timed runs in the order in which they ran; empty: no such table."""
    return tuple(
        row
        for table in parse_tables(text)
        if table.section == REGULAR and not table.inside
        for row in table.rows
    )


def _tables(lines: Sequence[str]) -> list[OpTable]:  # noqa: C901  # one branch per heading
    found: list[OpTable] = []
    # Without a heading, as in the oldest versions, the runs are meant.
    section, graph, inside = REGULAR, "", False
    titles: list[str] = []
    rows: list[dict[str, str]] | None = None

    def closed() -> None:
        if rows and (made := _made(rows)):
            found.append(OpTable(section, graph, inside, made))

    for line in lines:
        order = _ORDER.fullmatch(line.strip())
        ends = order is not None or not line.strip() or "Profiling Info for" in line
        if rows is not None and (ends or _GRAPH.fullmatch(line)):
            closed()
            rows, titles = None, []
        if line.startswith("Profiling Info for Benchmark Initialization"):
            section, graph, inside = INITIALISATION, "", False
        elif line.startswith("Operator-wise Profiling Info for Regular Benchmark Runs"):
            section, graph, inside = REGULAR, "", False
        elif line.startswith("Delegate internal"):
            inside = True
        elif _GRAPH.fullmatch(line):
            graph, inside = line.rstrip(":"), False
        elif order is not None:
            rows = [] if order[1] == "Run Order" else None
        elif rows is not None:
            cells = [cell.strip() for cell in _CELLS.split(line.strip())]
            if not titles:
                titles = [cell.strip("[]").lower() for cell in cells]
            else:
                rows.append(dict(zip(titles, cells, strict=False)))
    closed()
    return found


def _made(rows: Sequence[dict[str, str]]) -> tuple[OpRow, ...]:
    try:
        times = [_ms(row["avg ms"]) for row in rows]
        total = math.fsum(times)
        return tuple(
            _row(row, avg_ms, avg_ms / total if total else 0.0)
            for row, avg_ms in zip(rows, times, strict=True)
        )
    except (KeyError, ValueError):
        return ()


def _row(row: dict[str, str], avg_ms: float, share: float) -> OpRow:
    name = _NAME.fullmatch(row["name"])
    if name is None:
        raise ValueError(f"{row['name']!r} is no op's name")
    return OpRow(
        node_type=row["node type"],
        name=name[1],
        index=int(name[2]) if name[2] else None,
        avg_ms=avg_ms,
        share=share,
        first_ms=_ms(row["first"]) if "first" in row else None,
        times_called=int(row["times called"]) if "times called" in row else None,
    )


def _ms(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{text!r} is no time")
    return value
