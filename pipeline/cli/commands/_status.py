"""edgewright device status: who holds which device, who waits."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import click

from pipeline.cli.options import JSON, STORE, console, echo, print_json


@click.command()
@STORE
@JSON
def status(*, store: str | None, as_json: bool) -> None:
    """Show who holds which device, and who waits for it in which order.

    Devices that nobody uses are not shown. The leases are those of the store if that is a
    PostgreSQL database, else of $EDGEWRIGHT_LEASES, else of this user on this computer.
    """
    from pipeline.store.leases import open_leases

    with open_leases(store) as leases:
        rows = leases.status()
        place = leases.place
    states = ["waits" if row.fence is None else "held" for row in rows]
    now = datetime.now(UTC)
    since = [now - timedelta(seconds=row.for_s) for row in rows]
    if as_json:
        print_json(
            [
                {**asdict(row), "state": state, "since": then.isoformat(timespec="seconds")}
                for row, state, then in zip(rows, states, since, strict=True)
            ]
        )
        return
    if not rows:
        echo(f"no device is held (leases in {place})")
        return
    from rich.table import Table

    table = Table("device", "state", "holder", "since", "for", "", box=None, pad_edge=False)
    for row, state, then in zip(rows, states, since, strict=True):
        priority = f"priority {row.priority}" if row.priority else ""
        clock = f"{then.astimezone():%H:%M:%S} ({row.for_s:.0f} s)"
        table.add_row(row.device, state, row.holder, clock, row.purpose or "-", priority)
    console().print(table)
