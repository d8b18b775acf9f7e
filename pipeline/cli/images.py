"""Images for calibration and comparison: a recipe's, or random ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.data import load_data
from pipeline.recipe.recipe import Recipe

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from models.spec import ArchSpec
    from pipeline.data import Data

RANDOM_IMAGES = 32


def random_images(spec: ArchSpec, *, seed: int = 0) -> npt.NDArray[np.float32]:
    """Return images (N, C, H, W) of normal noise in the network's input size."""
    height, width, channels = spec.input
    rng = np.random.default_rng(seed)
    return rng.standard_normal((RANDOM_IMAGES, channels, height, width), dtype=np.float32)


def load_recipe_data(path: Path) -> tuple[Recipe, Data]:
    """Return a recipe and its data. Raises ConfigError."""
    recipe = Recipe.load(path)
    return recipe, load_data(recipe.need_data("--data"), seed=recipe.seed)
