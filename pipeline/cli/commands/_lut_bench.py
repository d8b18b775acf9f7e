"""What `edgewright lut` measures with: a run as `edgewright run` has it, with or without a recipe.

Without a recipe there is no data either: a space, an input size and a number of classes are all
that a table needs.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from device_agents.errors import ConfigError
from pipeline.cli.display import Display
from pipeline.cli.options import require_format
from pipeline.data.api import Dataset, Split
from pipeline.recipe.recipe import (
    DataSection,
    DeviceSection,
    QuantizeSection,
    Recipe,
    SearchSection,
    TargetSection,
)
from pipeline.run.opening import at_work
from pipeline.store import Store
from pipeline.store.leases import open_leases
from profiles.registry import load_device

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pipeline.measure.context import Context

_NONE = "none"
REFERENCE, REFERENCE_WIDTH = "mobilenet-v2", 0.35
"""What is timed beside everything where no recipe names a baseline."""


def bare_recipe(
    device: str,
    space: str,
    options: Mapping[str, Any],
    shape: tuple[int, int, int],
    classes: int,
    scheme: str,
) -> Recipe:
    """Return the recipe of a table: a space and what its networks read and tell, nothing else."""
    return Recipe(
        name=f"lut-{space}",
        data=DataSection(_NONE, options={"input": list(shape), "classes": classes}),
        target=TargetSection(REFERENCE, (REFERENCE_WIDTH,)),
        search=SearchSection(space, "random_search", latency="table", space_options=options),
        device=DeviceSection(device),
        quantize=QuantizeSection("float32" if scheme == "float32" else "static8"),
    )


@contextmanager
def bench(recipe: Recipe, store: str | None, *, fresh: bool, priority: int) -> Iterator[Context]:
    """Open the recipe's device and give a run on it, the last one of this recipe unless `fresh`.

    Raises:
        ConfigError: the device has no agent.
        DeviceError: it cannot be reached.
    """
    profile = load_device(recipe.device.name)
    require_format(profile, "lut", runtime=recipe.device.runtime or profile.runtime)
    with (
        Store.open(store) as opened,
        open_leases(store, purpose=f"lut {recipe.search.space}", priority=priority) as leases,
        Display() as display,
        at_work(
            recipe, profile, opened, leases, display, fresh=fresh, dataset=_no_images(recipe)
        ) as ctx,
    ):
        yield ctx


def _no_images(recipe: Recipe) -> Dataset | None:
    """Return no images, of the size that a bare recipe names; None: the recipe has data."""
    if recipe.data.name != _NONE:
        return None
    height, width, channels = recipe.data.options["input"]
    images = np.zeros((0, channels, height, width), np.float32)
    split = Split(images, np.zeros(0, np.int64))
    return Dataset(_NONE, recipe.data.options["classes"], split, split, split)


def parsed_input(text: str) -> tuple[int, int, int]:
    """Read 32x32x1 as (height, width, channels). Raises ConfigError."""
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--input {text!r} is no size; write height, width, channels as 32x32x1")
    height, width, channels = map(int, parts)
    return height, width, channels
