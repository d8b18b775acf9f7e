"""From a trained Once-for-all network to one device: a search without training, in minutes.

The supernet gives every candidate's accuracy (through a predictor), a handful of measurements on
the device gives a latency model, Once-for-all's evolution searches under the limit, and the device
itself judges the finalists. What comes out is a re-calibrated part of the supernet as a verified
model file.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from device_agents.errors import ConfigError
from pipeline.data import load_data
from pipeline.evaluate.files import Exports
from pipeline.evaluate.finalists import train_finalists
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.sections import DeviceSection
from pipeline.run.opening import open_run
from pipeline.run.origin import no_supernet, runs_with_supernet
from pipeline.run.stages import name_profiles, search_recipe
from pipeline.search.estimators import as_elastic
from pipeline.search.stage import prepare_space
from pipeline.store.memo import Memo
from pipeline.train.remembered import Training
from pipeline.train.trained_supernet import SupernetTraining, is_trained

if TYPE_CHECKING:
    from pathlib import Path

    from device_agents.api import Leases
    from pipeline.evaluate.finalists import Finalist
    from pipeline.store import Store
    from pipeline.store.events import Events
    from profiles.schema import DeviceProfile

BATCH = 100


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of the device.

    Attributes:
        target_ms: the latency there, at most; None: `target_ratio` of the baseline's there.
        latency: what predicts latencies: few-shot (from `measurements` networks) or a table.
        candidates: networks that the evolution looks at.
    """

    target_ms: float | None
    target_ratio: float = 1.0
    latency: Literal["few-shot", "table"] = "few-shot"
    measurements: int = 16
    candidates: int = 1000


@dataclass(frozen=True, slots=True)
class Specialised:
    """What came out: the finalist, its files and how it was found."""

    run_id: str
    winner: Finalist
    model: Path
    network: Path
    target_ms: float
    measured: int
    """Networks measured on the device in all, the reference included."""
    wall_s: float


def find_source(store: Store, run_id: str | None) -> Recipe:
    """Return the recipe of a run with a trained supernet: the last such run unless one is named.

    Raises:
        StoreError: no such run.
        ConfigError: it has no supernet, or none in the store has one.
    """
    for run in runs_with_supernet(store, run_id):
        recipe = Recipe.from_json(run.recipe)
        data, section = (
            load_data(recipe.need_data("specialise"), seed=recipe.seed),
            recipe.need_search("specialise"),
        )
        training = SupernetTraining(section.supernet, recipe.train, recipe.seed)
        space = as_elastic(prepare_space(section, data))
        if is_trained(space, training, data=data, memo=Memo(store)):
            return recipe
    raise no_supernet(store, run_id)


def recipe_for(recipe: Recipe, device: str, wanted: Wanted) -> Recipe:
    """Return the recipe of the search on the new device; data, space and supernet stay.

    Finalists stay as the supernet has them: nothing is trained, whatever the recipe says.

    Raises:
        ConfigError: the recipe's finalists are more than the candidates, or it has no [search] or
            no [target].
    """
    section, asked = recipe.need_search("specialise"), recipe.need_target("specialise")
    search = replace(
        section,
        strategy="ofa_evolution",
        strategy_options={},
        objective="hard",
        exponent=None,
        accuracy="predictor",
        latency=wanted.latency,
        table=None,
        measurements=wanted.measurements,
        candidates=wanted.candidates,
        batch=min(BATCH, wanted.candidates),
        also=(),
        supernet=replace(section.supernet, finetune_epochs=0),
    )
    if problem := search.problem():
        raise ConfigError(f"specialise: {problem}; raise --candidates")
    target = replace(asked, latency_ms=wanted.target_ms, latency_ratio=wanted.target_ratio)
    return replace(recipe, device=DeviceSection(device), target=target, search=search)


def specialise(
    recipe: Recipe,
    profile: DeviceProfile,
    *,
    store: Store,
    leases: Leases,
    events: Events,
    out: Path,
    supernet: Path | None = None,
) -> Specialised:
    """Find, export and verify the best part of a supernet for a device.

    Args:
        recipe: of `recipe_for`.
        profile: the device.
        store: where everything is remembered.
        leases: each measurement holds the device alone.
        events: is told how far it is.
        out: folder for the model file and the network.
        supernet: a file that `Supernet.save` wrote, instead of the recipe's own supernet.

    Raises:
        TargetError: no network meets the target; says the fastest known.
        DeviceError: the device went away; the same command goes on where it was.
    """
    data = load_data(recipe.need_data("specialise"), seed=recipe.seed)
    profiles = name_profiles(recipe, profile)
    with open_run(recipe, profiles, store=store, leases=leases, events=events) as held:
        memo = held.bench.memo
        started_s = memo.clock()
        searched = search_recipe(recipe, held, data, supernet=supernet)
        winner = train_finalists(
            searched.outcome,
            Training(recipe.train, recipe.seed),
            accuracy=searched.accuracy,
            form=searched.timer.form,
            to=Exports(held.folder, held.bench, data, recipe.quantize.calibration_images),
        )[0]
        stem = f"{recipe.name}-{profile.name}"
        model = out / f"{stem}{winner.file.path.suffix}"
        network = out / f"{stem}.npz"
        winner.network.save(network)  # makes the folder, too
        shutil.copyfile(winner.file.path, model)
        return Specialised(
            run_id=held.run.id,
            winner=winner,
            model=model,
            network=network,
            target_ms=searched.outcome.target_ms,
            measured=len(store.measurements(run_id=held.run.id)),
            wall_s=memo.clock() - started_s,
        )
