"""edgewright run: the whole pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from device_agents.errors import TargetError, VerificationError
from pipeline.cli.commands._recipe_run import STAGES, open_recipe, read_recipe
from pipeline.cli.options import ARTIFACTS, PRIORITY, STORE, VERBOSE, echo, recipe_options

if TYPE_CHECKING:
    from pipeline.run.own_model import OwnOutcome
    from pipeline.run.stages import Outcome


@click.command()
@recipe_options
@STORE
@ARTIFACTS
@click.option("--until", type=click.Choice(STAGES), default="report", help="Last stage to do.")
@PRIORITY
@VERBOSE
@click.option("--report", type=click.Path(path_type=Path), help="Where to write the report.")
def command(
    *,
    recipe: Path,
    device: str | None,
    store: str | None,
    artifacts: str | None,
    until: str,
    fresh: bool,
    overrides: tuple[str, ...],
    priority: int,
    verbose: bool,
    report: Path | None,
) -> None:
    """Search, train, export, deploy and report as RECIPE says.

    A recipe with a [model] begins with that in place of a search: it is read, quantised, verified,
    measured, deployed and reported.

    What is finished is stored: the same command after an interruption, a crash or a power cut
    goes on where it was.
    """
    from pipeline.cli.display import Display

    loaded = read_recipe(recipe, device, overrides)
    if loaded.model is None:
        loaded.need_search("run")
        loaded.need_target("run")
    page = report or (Path(loaded.report.path) if loaded.report.path else None)
    with open_recipe(
        loaded, Display(), command="run", store=store, artifacts=artifacts, priority=priority,
        verbose=verbose,
    ) as has:  # fmt: skip
        # Imports torch: a wrong recipe or device has been told by now.
        if has.recipe.model is not None:
            from pipeline.run.own_model import run_own_model

            own = run_own_model(
                has.recipe, has.profile, store=has.store, leases=has.leases,
                events=has.display, until=until, fresh=fresh, report=page,
            )  # fmt: skip
            _print_own(own, until)
            return
        from pipeline.run.stages import run

        outcome = run(
            has.recipe, has.profile, store=has.store, leases=has.leases, events=has.display,
            until=until, fresh=fresh, report=page,
        )  # fmt: skip
    _print(outcome, until)


_WHAT_TO_DO = {
    "missed": "misses its target; search longer (search.candidates), train longer (train.epochs) "
    "or raise target.{limit}",
    "no comparison": "has nothing to hold its winner against, which is kept and deployed; its "
    "report says what to change",
    "learnt nothing": "learnt nothing: look at images and labels, train longer (train.epochs) or "
    "at another rate (train.learning_rate), or give it more images",
}


def _print_own(outcome: OwnOutcome, until: str) -> None:
    """Print what came of a user's own model. Raises VerificationError: some of it failed."""
    if outcome.result is None:
        echo(f"run {outcome.run_id} is done up to {until}")
        return
    result = outcome.result
    echo(result.sentence)
    for caution in result.cautions:
        echo(caution)
    echo(f"report: {outcome.report}")
    if failed := {name: why for name, why in result.failed.items() if why != result.unsupported}:
        told = "; ".join(f"{name}: {why}" for name, why in failed.items())
        raise VerificationError(
            f"of run {result.run_id} this failed, everything else is kept: {told}"
        )


def _print(outcome: Outcome, until: str) -> None:
    """Print what came out.

    Raises:
        VerificationError: files beside the deployed one failed.
        TargetError: the target is missed, or nothing was learnt or could be compared.
    """
    if outcome.result is None:
        echo(f"run {outcome.run_id} is done up to {until}")
        return
    from pipeline.store.result import what_failed

    comparison = outcome.result.comparison
    echo(comparison.sentence)
    for caution in comparison.cautions:
        echo(caution)
    echo(f"report: {outcome.report}")
    if failed := outcome.result.failed_files:
        raise VerificationError(what_failed(outcome.run_id, failed))
    if advice := _WHAT_TO_DO.get(comparison.outcome):
        limit = "latency_ratio" if comparison.target_ms is None else "latency_ms"
        raise TargetError(f"run {outcome.run_id} {advice.format(limit=limit)}")
