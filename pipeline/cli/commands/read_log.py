"""edgewright read-log: read a benchmark log that somebody else made."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from device_agents import bounded
from device_agents.errors import ConfigError, VerificationError
from pipeline.cli.options import JSON, console, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from device_agents.tools.figures import Figure

_LIMIT_BYTES = 64 << 20


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@JSON
def command(*, file: Path, as_json: bool) -> None:
    """Read a log of benchmark_model, benchncnn or onnxruntime_perf_test.

    Says for each run what was measured, by which delegate, and whether it counts: accepted,
    truncated, incomplete or failed. Ends with exit code 5 if no figure in it counts.
    """
    from device_agents.tools.figures import read_log

    figures = read_log(_text(file))
    if as_json:
        print_json([asdict(figure) for figure in figures])
    elif figures:
        _table(figures)
    if not figures:
        raise VerificationError(
            f"{file} holds no run of benchmark_model, benchncnn or onnxruntime_perf_test that can "
            "be recognised; pass the tool's whole output"
        )
    if not any(figure.status == "accepted" for figure in figures):
        raise VerificationError(
            f"no figure in {file} counts: {figures[0].status}: {'; '.join(figures[0].reasons)}"
        )


def _text(file: Path) -> str:
    from device_agents.tools.log_lines import decode

    try:
        return decode(bounded.read_bytes(file, limit_bytes=_LIMIT_BYTES))
    except bounded.Unreadable as error:
        raise ConfigError(f"{error}; name a log file that holds the benchmark") from error


def _table(figures: Sequence[Figure]) -> None:
    from rich.table import Table

    table = Table("run", "model", box=None, pad_edge=False)
    for title in ("threads", "ms", "runs"):
        table.add_column(title, justify="right")
    for title in ("delegate", "verdict"):
        table.add_column(title)
    for number, figure in enumerate(figures, 1):
        latency = "-" if figure.latency_ms is None else f"{figure.latency_ms:.3f}"
        mark = " (avg)" if figure.statistic == "average" else ""
        reasons = f": {'; '.join(figure.reasons)}" if figure.reasons else ""
        table.add_row(
            str(number),
            figure.label or "-",
            str(figure.threads or "-"),
            f"{latency}{mark}",
            str(figure.runs or "-"),
            figure.delegation or "-",
            figure.status + reasons,
        )
    console().print(table)
