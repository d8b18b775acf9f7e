"""edgewright run: the whole pipeline."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from device_agents.errors import TargetError
from pipeline.cli.options import PRIORITY, STORE, Interrupted, require_agent

if TYPE_CHECKING:
    from pipeline.progress import Display
    from pipeline.run import Outcome

STAGES = ("search", "train", "deploy", "report")


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--device", metavar="D", help="Device to run on instead of the recipe's.")
@STORE
@click.option("--until", type=click.Choice(STAGES), default="report", help="Last stage to do.")
@click.option("--fresh", is_flag=True, help="Start a new run instead of going on with the last.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a recipe's value."
)
@PRIORITY
@click.option("--verbose", is_flag=True, help="Name every step as it is done.")
@click.option("--report", type=click.Path(path_type=Path), help="Where to write the report.")
def command(
    *,
    recipe: Path,
    device: str | None,
    store: str | None,
    until: str,
    fresh: bool,
    overrides: tuple[str, ...],
    priority: int,
    verbose: bool,
    report: Path | None,
) -> None:
    """Search, train, export, deploy and report as RECIPE says.

    What is finished is stored: the same command after an interruption, a crash or a power cut
    goes on where it was.
    """
    try:
        from pipeline.progress import Display
        from pipeline.recipe import Recipe
        from pipeline.run import run
        from pipeline.store import Store
        from pipeline.store.leases import open_leases
        from profiles.registry import load_device

        sets = [*overrides, *([f"device.name={json.dumps(device)}"] if device else [])]
        loaded = Recipe.load(recipe, sets)
        profile = load_device(loaded.device.name)
        require_agent(profile, "run", runtime=loaded.device.runtime or profile.runtime)
        page = report or (Path(loaded.report.path) if loaded.report.path else None)
        purpose = f"run {loaded.name}"
        with (
            Store.open(store) as opened,
            open_leases(store, purpose=purpose, priority=priority) as leases,
            Display() as display,
            _log_to(display, verbose=verbose),
        ):
            outcome = run(
                loaded, profile, opened, leases, display, until=until, fresh=fresh, report=page
            )
    except KeyboardInterrupt as error:
        raise Interrupted(
            "interrupted; what was finished is stored, the same command goes on from there"
        ) from error
    _print(outcome, until)


def _print(outcome: Outcome, until: str) -> None:
    """Print what came out. Raises TargetError if the winner misses its target."""
    if outcome.result is None:
        click.echo(f"run {outcome.run_id} is done up to {until}")
        return
    click.echo(outcome.result.comparison.sentence)
    click.echo(f"report: {outcome.report}")
    if not outcome.result.comparison.met:
        raise TargetError(
            f"run {outcome.run_id} misses its target; search longer (search.candidates), train "
            "longer (train.epochs) or raise target.latency_ratio"
        )


class _log_to(logging.Handler):  # noqa: N801 - used like a function, in a with statement
    """Shows the product's warnings, or all it says, above the progress bars."""

    def __init__(self, display: Display, *, verbose: bool) -> None:
        super().__init__(logging.INFO if verbose else logging.WARNING)
        self.display = display

    def emit(self, record: logging.LogRecord) -> None:
        self.display.say(record.getMessage())

    def __enter__(self) -> None:
        logger = logging.getLogger("edgewright")
        logger.setLevel(self.level)
        logger.addHandler(self)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("edgewright").removeHandler(self)
