"""edgewright lut: latency tables of a search space on a device: build, show, check."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from device_agents.errors import ConfigError
from models.number_format import STATIC8, NumberFormat
from pipeline.cli.group import Group
from pipeline.cli.options import (
    DEVICE,
    JSON,
    PRIORITY,
    STORE,
    Interrupted,
    NumberFormatType,
    console,
    echo,
    print_json,
    require_format,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.cli.lut_bench import TableOrder
    from profiles.table import Additivity, LatencyTable

_FILE = click.argument("file", type=click.Path(path_type=Path))
_NETWORKS = click.option(
    "--networks",
    type=click.IntRange(2, 10_000),
    default=20,
    show_default=True,
    metavar="N",
    help="Random networks of the space that are measured whole.",
)


@click.group(cls=Group)
def command() -> None:
    """Build, show and check latency tables: every op of a search space, measured on a device."""


@command.command()
@DEVICE
@click.option("--space", metavar="S", help="Search space; default: the recipe's.")
@click.option(
    "--recipe",
    type=click.Path(path_type=Path),
    metavar="RECIPE",
    help="Take space, its options, input, classes, scheme and reference from a recipe.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the space; with --recipe, a value of the recipe as in `edgewright run`.",
)
@click.option("--input", "size", metavar="HxWxC", help="Input of the networks, such as 32x32x1.")
@click.option("--classes", type=click.IntRange(1, 999_999), metavar="N", help="Number of logits.")
@click.option("--scheme", type=NumberFormatType(), help="Default: static8.")
@_NETWORKS
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Default: ~/.config/edgewright/tables/DEVICE-SPACE-SCHEME.json.",
)
@click.option("--fresh", is_flag=True, help="Measure anew instead of going on with the last run.")
@PRIORITY
@STORE
def build(
    *,
    device: str,
    space: str | None,
    recipe: Path | None,
    overrides: tuple[str, ...],
    size: str | None,
    classes: int | None,
    scheme: NumberFormat | None,
    networks: int,
    out: Path | None,
    fresh: bool,
    priority: int,
    store: str | None,
) -> None:
    """Measure every distinct op of a search space on a device and write its latency table.

    What is measured is stored: the same command after an interruption goes on where it was.
    """
    with _resumable():
        from profiles.registry import load_device
        from profiles.table import default_path

        profile = load_device(device)  # what is mistyped is told before torch is imported
        if recipe is None:
            require_format(profile, "lut", runtime=profile.runtime)
        order = (
            _with_recipe(recipe, device, space, overrides, size, classes, scheme)
            if recipe
            else _without_recipe(device, space, overrides, size, classes, scheme)
        )
        from pipeline.cli.lut_bench import open_bench
        from pipeline.search.lut.table import build_table

        with open_bench(order, store, fresh=fresh, priority=priority) as held:
            # Before anything is measured: its options may be wrong.
            offered = order.create_space(held.bench.profile.channel_multiple)
            timer = order.open_timer(held)
            table = build_table(timer, offered, seed=order.seed, networks=networks)
        path = out or default_path(device, order.space, str(order.number_format))
        table.save(path)
    echo(f"{len(table.entries)} ops of {order.space} on {device}: {path}")
    if table.additivity is not None:
        echo(f"{_words(table.additivity)}, each left out of the table in turn")


@command.command()
@_FILE
@JSON
def show(*, file: Path, as_json: bool) -> None:
    """Print a latency table."""
    from profiles.table import LatencyTable

    table = LatencyTable.load(file)
    if as_json:
        print_json(table.to_json())
    else:
        _print(table)


@command.command()
@_FILE
@DEVICE
@_NETWORKS
@PRIORITY
@STORE
def check(*, file: Path, device: str, networks: int, priority: int, store: str | None) -> None:
    """Measure other networks of the table's space whole and compare them with its sums."""
    with _resumable():
        from profiles.registry import load_device
        from profiles.table import LatencyTable

        load_device(device)  # what is mistyped is told before torch is imported
        table = LatencyTable.load(file)
        from pipeline.cli.lut_bench import TableOrder, open_bench
        from pipeline.recipe.sections import DeviceSection
        from pipeline.search.lut.table import check_additivity, restore_space

        options = {k: v for k, v in table.space.items() if k not in ("name", "input", "classes")}
        order = TableOrder(
            space=restore_space(table).name,
            options=options,
            size=table.space["input"],
            classes=table.space["classes"],
            number_format=NumberFormat.parse(table.scheme),
            device=DeviceSection(device, table.runtime, table.threads),
        )
        with open_bench(order, store, fresh=True, priority=priority) as held:
            timer = order.open_timer(held)
            found = check_additivity(timer, table, seed=order.seed, networks=networks)
    echo(_words(found))


@contextmanager
def _resumable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(
            "interrupted; what was measured is stored, the same command goes on from there"
        ) from error


def _with_recipe(
    recipe: Path,
    device: str,
    space: str | None,
    overrides: tuple[str, ...],
    size: str | None,
    classes: int | None,
    scheme: NumberFormat | None,
) -> TableOrder:
    """Return the order for a recipe's table on the command's device; raises ConfigError."""
    from pipeline.recipe.recipe import Recipe

    if size or classes:
        raise ConfigError("--input and --classes come from the recipe's data; leave them out")
    named = {
        "device.name": device,
        "search.space": space,
        "quantize.scheme": scheme and str(scheme),
    }
    sets = [f"{key}={json.dumps(value)}" for key, value in named.items() if value]
    loaded = Recipe.load(recipe, [*overrides, *sets])
    loaded.need_search("lut build --recipe")
    from pipeline.cli.lut_bench import TableOrder

    return TableOrder.of(loaded)


def _without_recipe(
    device: str,
    space: str | None,
    overrides: tuple[str, ...],
    size: str | None,
    classes: int | None,
    scheme: NumberFormat | None,
) -> TableOrder:
    """Return the order for a table that no recipe asks for; raises ConfigError."""
    if not (space and size and classes):
        raise ConfigError(
            "a table needs --recipe RECIPE, or --space S --input HxWxC --classes N, such as "
            "--space proxyless --input 32x32x1 --classes 10"
        )
    from pipeline.cli.lut_bench import TableOrder, parse_size
    from pipeline.recipe.reader import override
    from pipeline.recipe.sections import DeviceSection
    from pipeline.search.space import SPACES

    options: dict[str, object] = {}
    for text in overrides:
        options = override(options, text)
    if given := [name for name in ("input", "classes") if name in options]:
        raise ConfigError(f"--set {given[0]}=…: without a recipe write --{given[0]} instead")
    return TableOrder(
        space=SPACES.resolve(space),
        options=options,
        size=parse_size(size),
        classes=classes,
        number_format=scheme or STATIC8,
        device=DeviceSection(device),
    )


def _words(found: Additivity) -> str:
    return (
        f"sums against {found.networks} networks measured whole: mean error {found.mape:.1%}, "
        f"{found.within_10:.0%} within 10 %, bias {found.bias:+.1%}, "
        f"rank correlation {found.spearman:.3f}"
    )


def _print(table: LatencyTable) -> None:
    from rich.table import Table

    facts = {
        "space": str(table.space.get("name", "-")),
        "device": f"{table.device} ({table.device_digest})",
        "runtime": f"{table.runtime} {table.runtime_version}, {table.threads} thread(s)",
        "scheme": table.scheme,
        "measured": f"{table.when}, edgewright {table.edgewright}",
        "overhead": f"{1e3 * table.overhead.latency_ms:.2f} µs",
        "a sum's error": f"{table.relative_error:.1%}",
    }
    for name, value in facts.items():
        echo(f"{name}: {value}")
    if table.additivity is not None:
        echo(_words(table.additivity))
    rows = Table("op", "in a network, µs", "error, µs", "alone, µs", box=None, pad_edge=False)
    for key, entry in table.entries.items():
        alone = "-" if entry.alone_ms is None else f"{1e3 * entry.alone_ms:.2f}"
        rows.add_row(key, f"{1e3 * entry.latency_ms:.2f}", f"{1e3 * entry.stderr_ms:.2f}", alone)
    console().print(rows)
