"""edgewright device: devices from the first contact to a figure that can be trusted."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from device_agents.plural import number_of
from pipeline.cli.commands._add import add
from pipeline.cli.commands._clean import clean
from pipeline.cli.commands._doctor import doctor
from pipeline.cli.commands._setup import remove, setup
from pipeline.cli.commands._status import status
from pipeline.cli.completion import complete_device
from pipeline.cli.group import Group
from pipeline.cli.options import JSON, console, echo, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from profiles.schema import DeviceProfile


@click.group(cls=Group)
def command() -> None:
    """Add, check, set up, clean and remove devices; show who uses them."""


for part in (add, doctor, setup, status, clean, remove):
    command.add_command(part)


@command.command("list")
@click.option("--templates", is_flag=True, help="Show the profiles to extend too.")
@JSON
def list_(*, templates: bool, as_json: bool) -> None:
    """Show the devices that can be used: your own first, then the built-in ones.

    Your own are TOML files in ~/.config/edgewright/devices ($EDGEWRIGHT_CONFIG/devices if set).
    """
    from profiles.registry import devices_folder, list_devices

    catalogue = list_devices()
    own = {path.stem for path in devices_folder().glob("*.toml")}
    shown = [p for p in catalogue.profiles if templates or p.name in own or not p.is_template]
    shown.sort(key=lambda profile: (profile.name not in own, profile.is_template))
    if as_json:
        print_json([asdict(profile) for profile in shown])
    else:
        _print_devices(shown, own)
        if hidden := len(catalogue.profiles) - len(shown):
            echo(f"{hidden} profiles to extend are not shown; --templates shows them")
    for problem in catalogue.problems:
        echo(f"edgewright: {problem}", err=True)


def _print_devices(profiles: Sequence[DeviceProfile], own: set[str]) -> None:
    from rich.table import Table

    table = Table("device", "transport", "address", "runtime", "", box=None, pad_edge=False)
    for profile in profiles:
        address = "template: extend it" if profile.is_template else profile.address
        threads = f"{profile.runtime}, {number_of(profile.threads, 'thread')}"
        about = profile.description if profile.name in own else f"built in: {profile.description}"
        table.add_row(profile.name, profile.transport, address or "-", threads, about)
    console().print(table)


@command.command()
@click.argument("name", shell_complete=complete_device)
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
        echo(f"{key}: {'-' if value is None else value}")


def _flat(facts: dict[str, Any]) -> dict[str, Any]:
    """Return nested facts as one level with dotted names."""
    flat = {}
    for key, value in facts.items():
        inner = _flat(value) if isinstance(value, dict) else {"": value}
        flat.update({f"{key}.{name}".rstrip("."): item for name, item in inner.items()})
    return flat
