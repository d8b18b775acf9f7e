"""edgewright specialise: a trained Once-for-all network, fitted to a device without training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from device_agents import bounded
from device_agents.errors import ConfigError
from pipeline.cli.commands._recipe_run import open_recipe, read_recipe
from pipeline.cli.options import DEVICE, PRIORITY, STORE, VERBOSE, echo, require_format

if TYPE_CHECKING:
    from pipeline.recipe.recipe import Recipe
    from pipeline.run.specialise import Specialised


@click.command()
@DEVICE
@click.option("--target-ms", type=float, metavar="T", help="Latency there in milliseconds.")
@click.option(
    "--target-ratio", type=float, metavar="R", help="Instead: share of the baseline's latency."
)
@click.option(
    "--from",
    "origin",
    metavar="RUN|FILE",
    help="A run with a supernet, or a supernet's file; default: the last run that has one.",
)
@click.option(
    "--recipe",
    type=click.Path(path_type=Path),
    help="With a file: the recipe that the supernet was trained by.",
)
@click.option(
    "--latency",
    type=click.Choice(["few-shot", "table"]),
    default="few-shot",
    show_default=True,
    help="What predicts latencies.",
)
@click.option(
    "--measurements",
    type=click.IntRange(2, 10_000),
    default=16,
    show_default=True,
    metavar="N",
    help="Networks measured for a few-shot model.",
)
@click.option(
    "--candidates",
    type=click.IntRange(1, 1_000_000),
    default=1000,
    show_default=True,
    metavar="N",
    help="Networks that the evolution looks at.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Where the model is written; default: here.",
)
@STORE
@PRIORITY
@VERBOSE
def command(
    *,
    device: str,
    target_ms: float | None,
    target_ratio: float | None,
    origin: str | None,
    recipe: Path | None,
    latency: Literal["few-shot", "table"],
    measurements: int,
    candidates: int,
    out: Path,
    store: str | None,
    priority: int,
    verbose: bool,
) -> None:
    """Take a trained Once-for-all network to a device, without training.

    A few networks are measured there; the rest is searched for, and the best one is measured,
    exported, verified and written to DIR.
    """
    from profiles.registry import load_device

    if (target_ms is None) == (target_ratio is None):
        raise ConfigError("give one of --target-ms and --target-ratio")
    for name, value in (("--target-ms", target_ms), ("--target-ratio", target_ratio)):
        if value is not None and not 0 < value < float("inf"):
            raise ConfigError(f"{name} {value:g} is not a number above 0")
    file = Path(origin) if origin and bounded.is_file(Path(origin)) else None
    _check_folder(out)
    # What is mistyped is told before torch is imported.
    profile = load_device(device)
    require_format(profile, "specialise", runtime=profile.runtime)
    loaded = _recipe(store, origin, file, recipe)
    from pipeline.cli.display import Display
    from pipeline.run.specialise import Wanted, recipe_for, specialise

    wanted = Wanted(target_ms, target_ratio or 1.0, latency, measurements, candidates)
    with open_recipe(
        recipe_for(loaded, device, wanted),
        Display(),
        command="specialise",
        store=store,
        priority=priority,
        verbose=verbose,
    ) as has:
        found = specialise(
            has.recipe,
            has.profile,
            store=has.store,
            leases=has.leases,
            events=has.display,
            out=out,
            supernet=file,
        )
    echo(_line(device, found))


def _check_folder(out: Path) -> None:
    """Make the folder, which is written to after minutes of work. Raises ConfigError."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out} cannot be a folder: {error.strerror}") from error
    if not os.access(out, os.W_OK):
        raise ConfigError(f"--out {out} cannot be written to; name another folder")


def _recipe(store: str | None, origin: str | None, file: Path | None, path: Path | None) -> Recipe:
    """Return the recipe that the supernet is of. Raises ConfigError."""
    from pipeline.run.origin import runs_with_supernet
    from pipeline.store import Store

    if file is not None:
        if path is None:
            raise ConfigError(
                f"{file} holds weights alone; name the recipe they were trained by with --recipe"
            )
        return read_recipe(path, None, ())
    if path is not None:
        raise ConfigError("--recipe is for a supernet's file; name it with --from FILE")
    if origin and Path(origin).name != origin:
        raise ConfigError(
            f"--from {origin}: there is no such file; name a run or a supernet's file"
        )
    with Store.open(store, create=False) as opened_store:
        runs_with_supernet(opened_store, origin)
        from pipeline.run.specialise import find_source

        return find_source(opened_store, origin)


def _line(device: str, found: Specialised) -> str:
    confirmed = found.winner.found
    low = 2 * confirmed.measured.value - confirmed.upper_ms
    return (
        f"{found.model}: {confirmed.measured.value:.4f} ms on {device} ({low:.4f} to "
        f"{confirmed.upper_ms:.4f}; {confirmed.predicted.value:.4f} {confirmed.predicted.source}) "
        f"for at most {found.target_ms:.4g}, validation accuracy {found.winner.accuracy:.2%}, "
        f"{found.winner.file.bytes:,} bytes; {found.measured} measurements, no training, "
        f"{found.wall_s:.0f} s"
    )
