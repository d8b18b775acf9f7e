"""Where a trained supernet may come from: the runs of a store whose recipes train one.

Apart from `specialise.py`, so that a store that has none is told before torch is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.store import Run, Store


def runs_with_supernet(store: Store, run_id: str | None) -> list[Run]:
    """Return the runs whose recipes train a supernet, the last one first; only `run_id` if given.

    Whether theirs has been trained is another matter; that some supernet has is certain.

    Raises:
        StoreError: no such run.
        ConfigError: there is none.
    """
    runs = [store.run(run_id)] if run_id else store.runs()[::-1]
    sections = ((run, run.recipe.get("search") or {}) for run in runs)
    found = [run for run, search in sections if search.get("accuracy", "proxy") != "proxy"]
    if not found or not store.has_step("supernet"):
        raise no_supernet(store, run_id)
    return found


def no_supernet(store: Store, run_id: str | None) -> ConfigError:
    """Return the error that says so, and what trains one."""
    what = f"run {run_id!r} has" if run_id else f"the store {store.place} holds"
    return ConfigError(
        f"{what} no trained supernet; `edgewright search RECIPE` with a recipe that says "
        'search.accuracy = "supernet" or "predictor" trains one'
    )
