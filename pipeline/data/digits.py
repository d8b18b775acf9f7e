"""1,797 handwritten digits, 8x8, bundled in scikit-learn (UCI, test part of Alpaydin & Kaynak)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pipeline.data.api import Images, Labels


@dataclass(frozen=True, slots=True)
class Digits:
    """No options."""

    def load(self) -> tuple[Images, Labels]:
        """Return images (1797, 1, 8, 8) in -1..1 and labels 0..9."""
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = (digits.images[:, None] / 8 - 1).astype(np.float32)  # ink is 0..16
        return images, digits.target.astype(np.int64)
