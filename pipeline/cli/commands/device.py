"""edgewright device: devices from the first contact to a figure that can be trusted."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from pipeline.cli.commands._add import add
from pipeline.cli.commands._doctor import doctor
from pipeline.cli.commands._setup import remove, setup
from pipeline.cli.commands._status import status
from pipeline.cli.options import JSON, console, print_json


@click.group()
def command() -> None:
    """Add, check, set up and remove devices; show who uses them."""


for part in (add, doctor, setup, status, remove):
    command.add_command(part)


@command.command("list")
@JSON
def list_(*, as_json: bool) -> None:
    """Show every device: built-in profiles and your own.

    Your own are TOML files in ~/.config/edgewright/devices ($EDGEWRIGHT_CONFIG/devices if set).
    """
    from profiles.registry import list_devices

    catalogue = list_devices()
    if as_json:
        print_json([asdict(profile) for profile in catalogue.profiles])
    else:
        from rich.table import Table

        table = Table("device", "transport", "address", "runtime", "", box=None, pad_edge=False)
        for profile in sorted(catalogue.profiles, key=lambda profile: profile.is_template):
            address = "template: extend it" if profile.is_template else profile.address
            threads = f"{profile.runtime}, {profile.threads} thread" + "s" * (profile.threads > 1)
            table.add_row(
                profile.name, profile.transport, address or "-", threads, profile.description
            )
        console().print(table)
    for problem in catalogue.problems:
        click.echo(f"edgewright: {problem}", err=True)


@command.command()
@click.argument("name")
@JSON
def check(*, name: str, as_json: bool) -> None:
    """Connect to the device NAME and print its facts and sensors."""
    from device_agents.opening import open_device
    from profiles.registry import load_device

    with open_device(load_device(name)) as device:
        facts = {**device.hello, "sensors": asdict(device.sensors())}
    if as_json:
        print_json(facts)
        return
    for key, value in sorted(_flat(facts).items()):
        click.echo(f"{key}: {'-' if value is None else value}")


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    """Return nested facts as one level with dotted names."""
    flat = {}
    for key, value in facts.items():
        inner = _flat(value) if isinstance(value, dict) else {"": value}
        flat.update({f"{key}.{name}".rstrip("."): item for name, item in inner.items()})
    return flat
