"""The gradient search of a recipe: its latency table, its training, its finalists on the device.

It stands where `pipeline.search.loop.search` stands for a strategy that is asked, and returns
trials as that does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError
from pipeline.search import gradient
from pipeline.search.estimate.table import TableLatency
from pipeline.search.estimators import latency_table
from pipeline.search.gradient.api import GradientOutcome
from pipeline.search.loop import estimate_one, trial_of
from pipeline.search.serving import Served
from pipeline.store.memo import StepKind
from pipeline.train.recorded import StoredCheckpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.spec import ArchSpec
    from pipeline.measure.context import Context
    from pipeline.measure.reference import Reference
    from pipeline.search.api import Estimator, Objective, SearchSpace, Trial
    from pipeline.search.gradient.api import GradientSearch


GRADIENT = StepKind("gradient")


def search_by_gradient(
    ctx: Context,
    space: SearchSpace[ArchSpec],
    reference: Reference,
    target_ms: float,
    *,
    accuracy: Estimator[ArchSpec],
    latency: Estimator[ArchSpec],
    objective: Objective,
    on_trial: Callable[[int, Trial[ArchSpec]], None],
) -> list[Trial[ArchSpec]]:
    """Search by gradient as the recipe says and return the finalists as trials, best first.

    Args:
        ctx: the run; `ctx.recipe.search.strategy` names the gradient search, `candidates` how
            many networks come back at most.
        space: a space of cells (see `pipeline.search.gradient`).
        reference: what the table's ops are timed beside, unless the recipe names a table.
        target_ms: the latency on the device to land on, from below.
        accuracy: of the finalists.
        latency: measures on the device; the same network again comes from its memory.
        objective: scores the two.
        on_trial: called with index and trial, in order.

    Returns:
        Trials with the estimates ``accuracy``, ``latency_ms`` (measured) and ``table_ms`` (what
        the table said).

    Raises:
        ConfigError: the space cannot be searched by gradient, the recipe asks for another latency
            model than a table, its table is for something else, or the training diverged.
        TargetError: no network of the space meets the target; names the fastest.
        DeviceError: the device went away; the same command goes on where it was.
    """
    section = ctx.recipe.search
    if section.latency not in ("measured", "table"):
        raise ConfigError(
            f"{section.strategy} steers by a latency table and measures what it takes, so "
            f'search.latency = {section.latency!r} is not for it; leave it out, or say "table" to '
            "name the file of a table"
        )
    options = section.strategy_options
    search = gradient.create(section.strategy, space, ctx.recipe.seed, **options)
    table = latency_table(Served(ctx, reference, target_ms), space)
    inputs = {
        "run": ctx.run.id,
        "strategy": section.strategy,
        "options": dict(options),
        "candidates": section.candidates,
        "space": [str(spec) for spec in search.covering()],
        "data": ctx.dataset_digest,
        "seed": ctx.recipe.seed,
        "target_ms": target_ms,
        "table": table.to_json(),
    }
    predicted = TableLatency(table)
    outcome = _searched(ctx, search, inputs, predicted, latency, target_ms)
    _say(ctx, outcome, target_ms)
    trials = []
    estimators: dict[str, Estimator[ArchSpec]] = {
        "accuracy": accuracy,
        "latency_ms": latency,
        "table_ms": predicted,
    }
    for index, found in enumerate(outcome.found):
        estimates = {name: estimate_one(each, found.spec) for name, each in estimators.items()}
        trials.append(trial_of(found.spec, estimates, objective))
        on_trial(index, trials[-1])
    return trials


def _searched(
    ctx: Context,
    search: GradientSearch,
    inputs: Mapping[str, Any],
    predicted: TableLatency,
    latency: Estimator[ArchSpec],
    target_ms: float,
) -> GradientOutcome:
    """Return the outcome, from memory if the search has ended, from its last epoch if it began."""

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        outcome = search.run(
            ctx.dataset,
            lambda spec: predicted.estimate([spec])[0].value,
            target_ms,
            measure=lambda spec: latency.estimate([spec])[0],
            count=inputs["candidates"],
            checkpoints=StoredCheckpoints(ctx.memo, GRADIENT, inputs),
            on_epoch=task.update,
        )
        return outcome.to_json(), {}

    with ctx.progress.task(
        f"train the probabilities with {inputs['strategy']}", search.epochs
    ) as task:
        result = ctx.memo.once(GRADIENT, inputs, work).result
        task.update(search.epochs)
    ctx.memo.drop_checkpoints(GRADIENT, inputs)
    return GradientOutcome.from_json(result)


def _say(ctx: Context, outcome: GradientOutcome, target_ms: float) -> None:
    """Say where the search landed."""
    best, last = outcome.found[0], outcome.history[-1]
    measured_ms = best.measured.value if best.measured else best.predicted_ms
    ctx.progress.say(
        f"landed at {measured_ms / target_ms:.1%} of the target of {target_ms:.4g} ms "
        f"(by the table {best.predicted_ms:.4g} ms, the device takes {last.correction:.3f} times "
        f"what the table says; weight of latency {last.pressure:.3g})"
    )
