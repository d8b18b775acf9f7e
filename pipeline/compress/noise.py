"""How much of a tensor is wrong, added up over batches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


class Noise:
    """Adds up the power of values and of what is wrong with them."""

    def __init__(self) -> None:
        self.signal = 0.0
        self.noise = 0.0

    def add(self, real: npt.NDArray[Any], other: npt.NDArray[Any]) -> None:
        """Add values of a batch, and what they have become."""
        truth = real.astype(np.float64)
        self.signal += float(np.square(truth).sum())
        self.noise += float(np.square(other - truth).sum())

    @property
    def ratio(self) -> float:
        """Noise for each signal; infinite where there is noise alone."""
        if self.noise == 0:
            return 0.0
        return self.noise / self.signal if self.signal else math.inf


def decibels(ratio: float) -> float:
    """Return the signal-to-noise ratio of a noise for each signal; infinite where nothing is."""
    if ratio == 0:
        return math.inf
    return -10 * math.log10(ratio) if math.isfinite(ratio) else -math.inf
