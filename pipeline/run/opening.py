"""Opening a run: its data, its devices, its record in the store, and the lock on it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError
from device_agents.runner import Device
from pipeline.data import load_dataset
from pipeline.measure.context import Context
from pipeline.store.memo import Memo
from pipeline.store.run_lock import alone
from pipeline.train.loop import use_threads
from profiles.registry import load_device

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from device_agents.api import Leases
    from pipeline.data.api import Dataset
    from pipeline.recipe.recipe import Recipe
    from pipeline.store import Run, Store
    from pipeline.store.events import Events
    from profiles.schema import DeviceProfile


@contextmanager
def at_work(
    recipe: Recipe,
    profile: DeviceProfile,
    store: Store,
    leases: Leases,
    events: Events,
    *,
    fresh: bool = False,
    supernet: Path | None = None,
    dataset: Dataset | None = None,
) -> Iterator[Context]:
    """Open the devices and take up the recipe's run, alone; arguments as of `run` and `Context`.

    Raises:
        EdgewrightError: no such data, a device that cannot be opened, a run that is being worked
            on.
    """
    use_threads(1)  # the other cores are for a device on this host and for training processes
    dataset = load(recipe) if dataset is None else dataset
    profile = replace(
        profile,
        runtime=recipe.device.runtime or profile.runtime,
        threads=recipe.device.threads or profile.threads,
    )
    others = [load_device(section.device) for section in recipe.search.also]
    check_different([profile, *others])
    with ExitStack() as stack:
        device, *more = [
            stack.enter_context(Device.open(p, leases=leases)) for p in (profile, *others)
        ]
        chosen = chosen_run(recipe, profile, store, fresh=fresh)
        check = stack.enter_context(alone(store, chosen))
        ctx = Context(
            recipe=recipe,
            dataset=dataset,
            dataset_digest=dataset.digest(),
            memo=Memo(store, check=check),
            run=chosen,
            device=device,
            device_digest=device.digest,
            profile=profile,
            progress=events,
            supernet=supernet,
        )
        pairs = zip(others, more, strict=True)
        elsewhere = tuple(
            replace(ctx, device=opened, device_digest=opened.digest, profile=other)
            for other, opened in pairs
        )
        names = " and ".join(opened.name for opened in (device, *more))
        events.say(f"run {chosen.id} on {names}, stored in {store.place}")
        yield replace(ctx, others=elsewhere)


def check_different(profiles: Sequence[DeviceProfile]) -> None:
    """Refuse a device that a recipe names twice. Raises ConfigError."""
    names = [profile.name for profile in profiles]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(
            f"device {twice[0]!r} is named twice, by device.name and search.also; give each once"
        )


def load(recipe: Recipe) -> Dataset:
    """Load the recipe's data. Raises ConfigError."""
    return load_dataset(
        recipe.data.name,
        recipe.data.options,
        resolution=recipe.data.resolution,
        fractions=recipe.data.split.fractions,
        seed=recipe.seed,
    )


def chosen_run(recipe: Recipe, profile: DeviceProfile, store: Store, *, fresh: bool) -> Run:
    """Return the last run of this recipe on this device, or a new one."""
    digest = recipe.digest()
    if not fresh and (latest := store.latest_run(digest, profile.name)):
        return latest
    return store.new_run(
        recipe.name,
        recipe=recipe.to_json(),
        digest=digest,
        device=profile.name,
        version=version("edgewright"),
    )
