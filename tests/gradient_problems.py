"""What tests of gradient searches share: a data set that is learnt quickly, and a latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.cost import cost
from pipeline.data.api import Data, Dataset, Split

if TYPE_CHECKING:
    from models.spec import ArchSpec
    from pipeline.train.checkpoints import State


def stripes(count: int, scale: float = 1.0) -> Split:
    """Return images (count, 1, 8, 8) whose class, of three, is where they are bright."""
    rng = np.random.default_rng(count)
    labels = np.arange(count) % 3
    pixels = rng.normal(0.0, 0.3, (count, 1, 8, 8))
    for row, label in enumerate(labels):
        pixels[row, 0, 2 * label : 2 * label + 3] += 1.0
    return Split((scale * pixels).astype(np.float32), labels.astype(np.int64))


STRIPES = Data(Dataset("stripes", 3, stripes(96), stripes(48), stripes(24)))


def predict(spec: ArchSpec) -> float:
    """Return a latency in milliseconds that grows with what there is to multiply."""
    return cost(spec).macs / 1e6


class Memory:
    """Checkpoints that keep the last state, as bytes would be kept; none after epoch `last`."""

    def __init__(self, last: int | None = None) -> None:
        self.last = last
        self.state: State | None = None

    def load(self) -> State | None:
        """Return the last state."""
        return self.state

    def save(self, state: State) -> None:
        """Keep a state."""
        if self.last is None or int(state["epoch"]) <= self.last:
            self.state = {key: value.copy() for key, value in state.items()}
