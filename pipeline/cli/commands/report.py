"""edgewright report: a stored run as one HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.options import STORE


@click.command()
@click.argument("run", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File; default RUN.html.")
@STORE
def command(*, run: str | None, output: Path | None, store: str | None) -> None:
    """Write the report of RUN (the newest finished one if not given) from the store."""
    from pipeline.report import write_report
    from pipeline.store import Store

    with Store.open(store, create=False) as opened:
        result = opened.result(run)
    click.echo(write_report(result, output or Path(f"{result.run_id}.html")))
