"""edgewright deploy: put a model in use on a device."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.options import DEVICE, require_agent, waiting


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@DEVICE
@click.option("--name", required=True, metavar="N", help="What the model is for, such as digits.")
@click.option("--version", required=True, metavar="V", help="Of the model, such as 1.2.")
def command(*, model: Path, device: str, name: str, version: str) -> None:
    """Put the file MODEL in use on a device as NAME, VERSION; print its path there.

    The switch is one rename on the device; the releases before it stay for a rollback.
    """
    from device_agents.runner import Device
    from pipeline.store.leases import open_leases
    from profiles.registry import load_device

    profile = load_device(device)
    require_agent(profile, "deploy", runtime=profile.runtime)
    with (
        waiting(f"deploying to {device}"),
        open_leases(purpose=f"deploy {name}") as leases,
        Device.open(profile, leases=leases) as opened,
    ):
        path = opened.deploy(model, name, version)
    click.echo(path)
