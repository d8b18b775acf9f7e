"""Checkpoints of a training, in memory, and a way to interrupt it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pipeline.train.checkpoints import State


class Stop(Exception):
    """A training is interrupted."""


class Kept:
    """Checkpoints in memory; stops the training after `stop` of them."""

    def __init__(self, stop: int | None = None) -> None:
        self.state: State | None = None
        self.stop = stop
        self.saved = 0

    def load(self) -> State | None:
        """Return the last state."""
        return self.state

    def save(self, state: State) -> None:
        """Keep a state, as bytes would be kept."""
        self.state = {key: np.array(value) for key, value in state.items()}
        self.saved += 1
        if self.saved == self.stop:
            raise Stop
