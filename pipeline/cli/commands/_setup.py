"""edgewright device setup and remove: a runtime on the device, and everything off it again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import click

from pipeline.cli.completion import complete_own_device
from pipeline.cli.options import echo, show_steps, show_waiting


@click.command()
@click.argument("name", shell_complete=complete_own_device)
@click.option(
    "--runtime",
    "runtimes",
    multiple=True,
    metavar="R",
    help="tflite or onnx; may be given twice; default: the profile's.",
)
@click.option(
    "--wheels",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of wheels, in place of the package index.",
)
def setup(*, name: str, runtimes: tuple[str, ...], wheels: Path | None) -> None:
    """Install an inference runtime on the device NAME.

    The device needs no internet: the wheels that fit its Python and CPU are chosen and fetched
    here, and unpacked there into a folder of their own; `python` in the profile then names the
    launcher that uses them.
    """
    from device_agents.care.setup import install
    from pipeline.store.leases import open_leases
    from profiles import registry

    profile = registry.load_device(name)
    registry.own_file(name)
    with show_steps(f"setting up {name}") as tell, open_leases(purpose="setup") as leases:
        installed = install(
            profile,
            runtimes or (profile.runtime,),
            with_python=lambda python: replace(profile, python=python),
            wheels=wheels,
            leases=leases,
            say=lambda words: echo(f"{name}: {words}", err=True),
            on_step=tell,
        )
    if installed.wheels:
        registry.set_value(name, "python", installed.python)
    for runtime, version in installed.runtimes.items():
        had = "" if installed.wheels else ", there already"
        echo(f"{name}: {runtime} is {version}{had}")
    echo(f"next: edgewright device doctor {name}")


@click.command()
@click.argument("name", shell_complete=complete_own_device)
@click.option("--keep-files", is_flag=True, help="Remove the profile only; do not connect.")
@click.option(
    "--releases",
    type=click.Choice(["keep", "remove"]),
    help="What becomes of deployed models; must be said where there are any.",
)
@click.option("--force", is_flag=True, help="Remove the profile although it cannot be reached.")
def remove(
    *, name: str, keep_files: bool, releases: Literal["keep", "remove"] | None, force: bool
) -> None:
    """Remove what was put on the device NAME, and its profile: nothing is left behind.

    Where models are deployed, --releases must say what becomes of them. Nothing else on the device
    is touched.
    """
    from device_agents.care.removal import clean
    from device_agents.errors import DeviceError
    from pipeline.store.leases import open_leases
    from profiles import registry

    registry.refuse_extended(name)
    if not keep_files:
        try:
            with (
                show_waiting(f"removing what is on {name}"),
                open_leases(purpose="remove") as leases,
            ):
                profile = registry.load_device(name)
                removed = clean(profile, releases=releases or "ask", leases=leases)
        except DeviceError as error:
            if not force:
                raise type(error)(f"{error}; with --force only the profile is removed") from error
            echo(f"edgewright: nothing was removed on the device: {error}", err=True)
        else:
            gone = ", ".join(removed.removed) or "nothing was there"
            echo(f"{name}: removed from {removed.directory}: {gone}")
            for path in removed.kept:
                echo(f"{name}: kept {removed.directory}/{path}")
    echo(f"removed {registry.remove_device(name)}")
