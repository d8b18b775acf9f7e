"""What the shell completes: names of devices, of stored runs and of the zoo's networks.

A completion never fails and never says anything: where there is nothing to offer, or a store that
cannot be read, it offers nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from click.shell_completion import CompletionItem

from device_agents.errors import EdgewrightError

if TYPE_CHECKING:
    import click


def complete_device(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the devices that can be reached, one's own and the built-in ones."""
    del ctx, param
    from profiles.registry import list_devices

    names = [p.name for p in list_devices().profiles if not p.is_template]
    return [name for name in names if name.startswith(incomplete)]


def complete_own_device(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the devices that have a profile of the user's own."""
    del ctx, param
    from profiles.registry import devices_folder

    names = sorted(path.stem for path in devices_folder().glob("*.toml"))
    return [name for name in names if name.startswith(incomplete)]


def complete_run(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the runs of the store that the line names or that is the default, newest first."""
    del param
    from pipeline.store import Store

    try:
        with Store.open(ctx.params.get("store"), create=False) as store:
            names = [run.id for run in reversed(store.runs())]
    except EdgewrightError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def complete_source(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the networks of the zoo; where none begins like that, have the shell offer files."""
    nets = complete_net(ctx, param, incomplete)
    return [CompletionItem(net) for net in nets] or [CompletionItem(incomplete, type="file")]


def complete_net(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Return the networks of the zoo."""
    del ctx, param
    from models import zoo

    return [name for name in zoo.zoo() if name.startswith(incomplete)]
