"""edgewright search: the search of a recipe, watched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from device_agents.plural import number_of
from pipeline.cli.commands._recipe_run import open_recipe, read_recipe
from pipeline.cli.options import (
    ARTIFACTS,
    JSON,
    PRIORITY,
    STORE,
    VERBOSE,
    console,
    echo,
    print_json,
    recipe_options,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.run.stages import Outcome


@click.command()
@recipe_options
@STORE
@ARTIFACTS
@PRIORITY
@VERBOSE
@JSON
def command(
    *,
    recipe: Path,
    device: str | None,
    store: str | None,
    artifacts: str | None,
    fresh: bool,
    overrides: tuple[str, ...],
    priority: int,
    verbose: bool,
    as_json: bool,
) -> None:
    """Search as RECIPE says and show the candidates and their front as it grows.

    Ends with the finalists, measured again on the device. `edgewright run RECIPE` goes on from
    there; the same command after an interruption goes on where it was.
    """
    loaded = read_recipe(recipe, device, overrides)
    loaded.need_search("search")
    loaded.need_target("search")
    from pipeline.cli.commands._search_board import SearchDisplay

    with open_recipe(
        loaded, SearchDisplay(), command="search", store=store, artifacts=artifacts,
        priority=priority, verbose=verbose,
    ) as has:  # fmt: skip
        # Imports torch: a wrong recipe or device has been told by now.
        from pipeline.run.stages import run

        outcome = run(
            has.recipe, has.profile, store=has.store, leases=has.leases, events=has.display,
            until="search", fresh=fresh,
        )  # fmt: skip
    if as_json:
        _print_json(outcome)
    else:
        _print(outcome)


def _print(outcome: Outcome) -> None:
    from pipeline.cli.commands._search_board import finalists_table

    found = outcome.search
    console().print(finalists_table(found))
    echo(
        f"{number_of(len(found.rows), 'candidate')}, {len(found.front)} on the front, hypervolume "
        f"{found.hypervolume:.4f} (share of accuracy 0 to 1, latency 0 to "
        f"{2 * found.target_ms:.4g} ms); target {found.target_ms:.4g} ms"
    )
    for one in found.finalists:
        echo(f"{one.index}: {one.trial.spec}")


def _print_json(outcome: Outcome) -> None:
    from pipeline.cli.commands._search_board import finalist_json

    found = outcome.search
    print_json(
        {
            "run": outcome.run_id,
            "target_ms": found.target_ms,
            "hypervolume": found.hypervolume,
            "lost": found.lost,
            "front": list(found.front),
            "finalists": [finalist_json(one) for one in found.finalists],
            "candidates": [row.to_json() for row in found.rows],
        }
    )
