"""edgewright device clean: space on a device, of what can be sent again."""

from __future__ import annotations

import click

from pipeline.cli.completion import complete_device
from pipeline.cli.options import echo, show_waiting


@click.command()
@click.argument("name", shell_complete=complete_device)
def clean(*, name: str) -> None:
    """Free the disk of the device NAME of what was pushed for measurements.

    Models and benchmark programs go, and are sent again when they are needed. What is deployed, the
    runtimes and the agent stay.
    """
    from device_agents.care import cleaning
    from pipeline.store.leases import open_leases
    from profiles.registry import load_device

    profile = load_device(name)
    with show_waiting(f"cleaning {name}"), open_leases(purpose="clean") as leases:
        gone = cleaning.clean(profile, leases=leases)
    echo(f"{name}: freed {gone.words}, in {gone.directory}")
