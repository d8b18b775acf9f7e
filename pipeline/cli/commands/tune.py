"""edgewright tune: search of training hyper-parameters."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import JSON, STORE, Interrupted, console, echo, print_json

if TYPE_CHECKING:
    from device_agents.api import Failure
    from models.spec import ArchSpec
    from pipeline.cli.display import Display
    from pipeline.recipe.recipe import Recipe
    from pipeline.search.api import Estimate, Trial
    from pipeline.search.tuning import BriefTraining, Setting, TuningSpace

_SHOWN = 10
_EPOCHS, _NETWORK = "tune without --epochs", "tune without --network"
"""What needs sections of the recipe."""


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "--network", metavar="NET", help="Zoo net or spec line; default: the recipe's baseline."
)
@click.option(
    "--trials",
    type=click.IntRange(1, 1_000_000),
    default=20,
    show_default=True,
    metavar="N",
    help="Different settings to try.",
)
@click.option(
    "--epochs",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="Of each trial; default: search.proxy's.",
)
@click.option(
    "--strategy",
    default="optuna-sampler",
    show_default=True,
    metavar="S",
    help="Search strategy that chooses them.",
)
@click.option(
    "--values",
    multiple=True,
    metavar="KEY=V,V,…",
    help="Values of a hyper-parameter to try, more with each use; a single one fixes it.",
)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a recipe's value."
)
@STORE
@JSON
def command(
    *,
    recipe: Path,
    network: str | None,
    trials: int,
    epochs: int | None,
    strategy: str,
    values: tuple[str, ...],
    overrides: tuple[str, ...],
    store: str | None,
    as_json: bool,
) -> None:
    """Find training hyper-parameters for RECIPE by training one network briefly under each.

    Ends with the best setting as flags for `edgewright run`. What was trained is stored: the same
    command goes on where it was, and more trials begin with those done.
    """
    try:
        from pipeline.recipe.recipe import Recipe

        # What is mistyped or missing is told before torch is imported.
        loaded = Recipe.load(recipe, overrides)
        brief = replace(loaded.train, epochs=epochs or loaded.need_search(_EPOCHS).proxy.epochs)
        chosen = _network(loaded, network)
        from pipeline.cli.display import Display
        from pipeline.data import load_data
        from pipeline.search.strategy import STRATEGIES
        from pipeline.search.tuning import BriefTraining, TuningSpace
        from pipeline.store import Store
        from pipeline.store.memo import Memo
        from pipeline.train.loop import use_threads
        from pipeline.train.remembered import Training

        use_threads(1)
        space = TuningSpace.around(loaded.train, _given(values))
        STRATEGIES.load(strategy)  # a wrong name is told before anything is trained
        data = load_data(loaded.need_data("tune"), seed=loaded.seed)
        net = chosen.with_input(*data.dataset.input).with_classes(data.dataset.classes)
        with Store.open(store) as records, Display() as display:
            training = BriefTraining(net, Training(brief, loaded.seed), data, Memo(records))
            own, found = _tune(training, space, strategy, trials, display)
    except KeyboardInterrupt as error:
        raise Interrupted(
            "interrupted; what was trained is stored, the same command goes on from there"
        ) from error
    if as_json:
        _print_json(found, own)
    else:
        _print(found, own)


def _tune(
    training: BriefTraining, space: TuningSpace, strategy: str, trials: int, display: Display
) -> tuple[Estimate | Failure, list[Trial[Setting]]]:
    """Return what the recipe's own setting came to, and the settings tried, the best first."""
    from pipeline.search.tuning import Setting, tune

    with display.task("train with the recipe's own setting", 1) as task:
        own = training.estimate([Setting.of(training.training.config)])[0]
        task.advance(_words(own))
    with display.task(f"tune with {strategy}", min(trials, space.size)) as task:
        seen: set[Setting] = set()

        def on_trial(trial: Trial[Setting]) -> None:
            if trial.spec not in seen:
                seen.add(trial.spec)
                _say(display, trial)
                task.advance()

        found = tune(
            training, space, strategy, trials=trials, on_trial=on_trial, on_end=display.say
        )
    return own, found


def _given(texts: tuple[str, ...]) -> dict[str, list[float]]:
    from device_agents.errors import ConfigError

    found: dict[str, list[float]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        name = key.strip().removeprefix("train.")
        try:
            found[name] = [*found.get(name, []), *(float(v) for v in values.split(","))]
        except ValueError:
            equals = ""
        if not equals:
            raise ConfigError(
                f"--values {text!r} is not understood; write --values learning_rate=0.05,0.1"
            )
    return found


def _network(recipe: Recipe, source: str | None) -> ArchSpec:
    from models import zoo
    from models.spec import ArchSpec

    if source is None:
        target = recipe.need_target(_NETWORK)
        return zoo.get(target.baseline, width=min(target.widths))
    return ArchSpec.parse(source) if ":" in source else zoo.get(source)


def _words(found: Estimate | Failure) -> str:
    from device_agents.api import Failure

    if isinstance(found, Failure):
        return f"failed: {found.reason}"
    return f"{found.value:.2%} ± {1.96 * found.stderr:.2%}"


def _say(display: Display, trial: Trial[Setting]) -> None:
    outcome = trial.failure or trial.estimates["accuracy"]
    display.say(f"{trial.spec}: {_words(outcome)}")


def _print(found: list[Trial[Setting]], own: Estimate | Failure) -> None:
    from rich.table import Table

    from device_agents.api import Failure

    table = Table(title=f"{len(found)} settings, the best first", title_justify="left", box=None)
    for name in (*asdict(found[0].spec), "accuracy"):
        table.add_column(name, justify="right", no_wrap=True)
    for trial in found[:_SHOWN]:
        outcome = trial.failure or trial.estimates["accuracy"]
        values = (f"{value:g}" for value in asdict(trial.spec).values())
        table.add_row(*values, _words(outcome))
    console().print(table)
    echo(f"the recipe's own setting: {_words(own)}")
    if found[0].failure is not None:
        echo("every setting failed; try lower ones with --values learning_rate=0.01,0.03")
        return
    best = found[0].estimates["accuracy"]
    if not isinstance(own, Failure) and (
        best.value - own.value < 1.96 * math.hypot(best.stderr, own.stderr)
    ):
        echo("the best is within the noise of the recipe's own: try more --epochs or --trials")
    flags = " ".join(f"--set train.{key}={value!r}" for key, value in asdict(found[0].spec).items())
    echo(f"best: {_words(best)}, which is\n{flags}")


def _print_json(found: list[Trial[Setting]], own: Estimate | Failure) -> None:
    from device_agents.api import Failure

    print_json(
        {
            "own_accuracy": None if isinstance(own, Failure) else own.value,
            "settings": [
                {
                    **asdict(trial.spec),
                    "accuracy": None if trial.failure else trial.estimates["accuracy"].value,
                    "failure": trial.failure.reason if trial.failure else None,
                }
                for trial in found
            ],
        }
    )
