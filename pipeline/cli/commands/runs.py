"""edgewright runs: what a store holds."""

from __future__ import annotations

import click

from pipeline.cli.options import JSON, STORE, echo, print_json


@click.command()
@STORE
@JSON
def command(*, store: str | None, as_json: bool) -> None:
    """List the runs of a store, the newest first, with what came out of each."""
    from pipeline.cli.commands import _run_list
    from pipeline.store import Store

    with Store.open(store, create=False) as opened:
        found = _run_list.rows(opened)
    if as_json:
        print_json(found)
    elif found:
        _run_list.show(found)
    else:
        echo("no run yet; `edgewright run RECIPE` makes one")
