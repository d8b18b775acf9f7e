"""The gradient search of a recipe: its latency table, its training, its finalists on the device.

It stands where `pipeline.search.loop.search` stands for a strategy that is asked, and returns
trials as that does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError
from pipeline.search import gradient
from pipeline.search.estimate.table import TableLatency
from pipeline.search.estimators import open_table
from pipeline.search.gradient.api import GradientOutcome
from pipeline.search.loop import estimate_one, trial_of
from pipeline.search.serving import create_objective
from pipeline.store.memo import StepKind
from pipeline.train.remembered import StoredCheckpoints

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.spec import ArchSpec
    from pipeline.data.api import Data
    from pipeline.recipe.sections import SearchSection
    from pipeline.search.api import Estimator, SearchSpace, Trial
    from pipeline.search.serving import ServedDevice


GRADIENT = StepKind("gradient")


def search_by_gradient(
    device: ServedDevice,
    space: SearchSpace[ArchSpec],
    *,
    section: SearchSection,
    data: Data,
    seed: int,
    accuracy: Estimator[ArchSpec],
    latency: Estimator[ArchSpec],
    on_trial: Callable[[int, Trial[ArchSpec]], None],
) -> list[Trial[ArchSpec]]:
    """Search by gradient as the recipe says and return the finalists as trials, best first.

    Args:
        device: the one to land on, from below its target; the table's ops are timed there,
            unless the recipe names a table.
        space: a space of cells (see `pipeline.search.gradient`).
        section: `strategy` names the gradient search, `candidates` how many networks come back at
            most.
        data: what its weights and probabilities are trained on.
        seed: of everything random.
        accuracy: of the finalists.
        latency: measures on the device; the same network again comes from its memory.
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
    if section.latency not in ("measured", "table"):
        raise ConfigError(
            f"{section.strategy} steers by a latency table and measures what it takes, so "
            f'search.latency = {section.latency!r} is not for it; leave it out, or say "table" to '
            "name the file of a table"
        )
    options = section.strategy_options
    search = gradient.create(section.strategy, space, seed, **options)
    table = open_table(device, space, path=section.table, seed=seed)
    bench, target_ms = device.bench, device.target_ms
    goal = create_objective(section, target_ms)
    inputs = {
        "run": bench.run_id,
        "strategy": section.strategy,
        "options": dict(options),
        "candidates": section.candidates,
        "space": [str(spec) for spec in search.cover_space()],
        "data": data.digest,
        "seed": seed,
        "target_ms": target_ms,
        "table": table.to_json(),
    }
    predicted = TableLatency(table)

    def work() -> tuple[dict[str, Any], dict[str, str]]:
        outcome = search.run(
            data,
            lambda spec: predicted.estimate([spec])[0].value,
            target_ms,
            measure=lambda spec: latency.estimate([spec])[0],
            count=section.candidates,
            checkpoints=StoredCheckpoints(bench.memo, GRADIENT, inputs),
            on_epoch=task.update,
        )
        return outcome.to_json(), {}

    with bench.events.task(
        f"train the probabilities with {section.strategy}", search.epochs
    ) as task:
        result = bench.memo.once(GRADIENT, inputs, work).result
        task.update(search.epochs)
    bench.memo.drop_checkpoints(GRADIENT, inputs)
    outcome = GradientOutcome.from_json(result)
    bench.events.say(_landing(outcome, target_ms))
    trials = []
    estimators: dict[str, Estimator[ArchSpec]] = {
        "accuracy": accuracy,
        "latency_ms": latency,
        "table_ms": predicted,
    }
    for index, found in enumerate(outcome.found):
        estimates = {name: estimate_one(each, found.spec) for name, each in estimators.items()}
        trials.append(trial_of(found.spec, estimates, goal))
        on_trial(index, trials[-1])
    return trials


def _landing(outcome: GradientOutcome, target_ms: float) -> str:
    """Return where the search landed, in words."""
    best, last = outcome.found[0], outcome.history[-1]
    measured_ms = best.measured.value if best.measured else best.predicted_ms
    return (
        f"landed at {measured_ms / target_ms:.1%} of the target of {target_ms:.4g} ms "
        f"(by the table {best.predicted_ms:.4g} ms, the device takes {last.correction:.3f} times "
        f"what the table says; weight of latency {last.pressure:.3g})"
    )
