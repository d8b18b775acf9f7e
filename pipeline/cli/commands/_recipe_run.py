"""What commands that run a recipe share: recipe, device, store and leases opened as one."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.cli.options import Interrupted, require_format

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from device_agents.api import Leases
    from pipeline.cli.display import Display
    from pipeline.recipe.recipe import Recipe
    from pipeline.store import Store
    from profiles.schema import DeviceProfile

STAGES = ("search", "train", "deploy", "report")


@dataclass(frozen=True, slots=True)
class Opened:
    """What `pipeline.run.stages.run` takes."""

    recipe: Recipe
    profile: DeviceProfile
    store: Store
    leases: Leases
    display: Display


def read_recipe(path: Path, device: str | None, overrides: Sequence[str]) -> Recipe:
    """Read a recipe with the command's overrides. Raises RecipeError."""
    from pipeline.recipe.recipe import Recipe

    sets = [*overrides, *([f"device.name={json.dumps(device)}"] if device else [])]
    return Recipe.load(path, sets)


@contextmanager
def open_recipe(
    recipe: Recipe,
    display: Display,
    *,
    command: str,
    store: str | None,
    artifacts: str | None = None,
    priority: int = 0,
    verbose: bool = False,
) -> Iterator[Opened]:
    """Open what a recipe needs to run; `command` is the word of `edgewright` that does.

    Raises:
        ConfigError: no such device, or one that only times files.
        StoreError: the store cannot be used.
        Interrupted: Ctrl-C, with how to go on.
    """
    from pipeline.store import Store
    from pipeline.store.leases import open_leases
    from profiles.registry import load_device

    try:
        profile = load_device(recipe.device.name)
        require_format(profile, command, runtime=recipe.device.runtime or profile.runtime)
        with (
            Store.open(store, artifacts=artifacts) as records,
            open_leases(store, purpose=f"{command} {recipe.name}", priority=priority) as leases,
            display,
            _log_to(display, verbose=verbose),
        ):
            yield Opened(recipe, profile, records, leases, display)
    except KeyboardInterrupt as error:
        raise Interrupted(
            "interrupted; what was finished is stored, the same command goes on from there"
        ) from error


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
