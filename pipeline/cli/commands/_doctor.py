"""edgewright device doctor: what is wrong with a device, and the command that mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline.cli.completion import complete_device
from pipeline.cli.options import JSON, console, print_json, show_waiting

if TYPE_CHECKING:
    from device_agents.care.diagnosis import Check

_STYLES = {"ok": "green", "warn": "yellow", "fail": "red", "unknown": "dim"}


@click.command()
@click.argument("name", shell_complete=complete_device)
@JSON
@click.pass_context
def doctor(context: click.Context, *, name: str, as_json: bool) -> None:
    """Say what is wrong with the device NAME, and what mends it.

    Exit code 3 when something must be mended before figures can be trusted; warnings do not count.
    """
    from device_agents.care.doctor import examine
    from device_agents.errors import DeviceError
    from pipeline.store.leases import open_leases
    from profiles.registry import load_device

    profile = load_device(name)
    with show_waiting(f"looking at {name}"), open_leases(purpose="doctor") as leases:
        diagnosis = examine(profile, leases=leases)
    if as_json:
        print_json(diagnosis.to_json())
    else:
        out = console()
        out.print(f"{name}: {diagnosis.board or 'not reached'}")
        width = max(len(check.name) for check in diagnosis.checks)
        for check in diagnosis.checks:
            out.print(f"{check.status:8}", style=_STYLES[check.status], end="")
            out.print(_line(check, width), soft_wrap=True)
    if not diagnosis.healthy:
        context.exit(DeviceError.exit_code)


def _line(check: Check, width: int) -> str:
    text = f"{check.name:{width}}  {check.found}"
    return f"{text}\n{'':8}{'':{width}}  -> {check.advice}" if check.advice else text
