"""What a long training keeps, to go on where it was ended."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

State = dict[str, npt.NDArray[np.generic]]


class Checkpoints(Protocol):
    """Where a long training keeps its state."""

    def load(self) -> State | None:
        """Return the last saved state, if there is one."""

    def save(self, state: State) -> None:
        """Keep this state instead of the one before."""
