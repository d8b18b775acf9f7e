"""edgewright report: a stored run as one HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.completion import complete_run
from pipeline.cli.options import STORE, echo


@click.command()
@click.argument("run", required=False, shell_complete=complete_run)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File; default RUN.html.")
@STORE
def command(*, run: str | None, output: Path | None, store: str | None) -> None:
    """Write the report of RUN from the store; without RUN, list the runs there are."""
    from pipeline.cli.commands import _run_list
    from pipeline.store import Store

    with Store.open(store, create=False) as opened:
        if run is None:
            if output is not None:
                raise click.UsageError(
                    "--output needs the RUN to write; `edgewright runs` lists them"
                )
            _run_list.show(_run_list.rows(opened))
            echo("edgewright report RUN writes the page of a finished one")
            return
        result = opened.result(run)
    from pipeline.report import write_any_report

    echo(write_any_report(result, output or Path(f"{result.run_id}.html")))
