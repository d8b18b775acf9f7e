"""1,797 handwritten digits, 8x8, bundled in scikit-learn (UCI, test part of Alpaydin & Kaynak)."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.data.api import Images, Labels


@dataclass(frozen=True, slots=True)
class Digits:
    """No options."""

    def load(self) -> tuple[Images, Labels]:
        """Return images (1797, 1, 8, 8) in -1..1 and labels 0..9."""
        # Read without importing scikit-learn, which would take every run two seconds.
        found = importlib.util.find_spec("sklearn")
        if found is None or found.origin is None:
            raise ConfigError("the digits are scikit-learn's; install scikit-learn")
        path = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
        rows = np.loadtxt(path, delimiter=",", dtype=np.int64)
        images = (rows[:, :-1].reshape(-1, 1, 8, 8) / 8 - 1).astype(np.float32)  # ink is 0..16
        return images, rows[:, -1]
