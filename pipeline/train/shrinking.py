"""The phases of progressive shrinking: what is drawn when, for how long and at which rate.

The proportions are those of Cai et al. 2020 (see `pipeline.train.supernet` for what differs).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from models.spec import ArchSpec
    from pipeline.recipe.sections import SupernetSection

FIRST_SHARE = 1 / 6
"""Most of the epochs of depth and width that an option but the smallest gets: 25 of 150."""
FIRST_RATE = 1 / 3
"""Learning rate of those epochs over that of the last step: 0.0025 over 0.0075."""


class ElasticSpace(Protocol):
    """What is asked of a Once-for-all space; a dataclass, so that its options can be replaced."""

    @property
    def full(self) -> ArchSpec:
        """The network that all others are parts of."""

    @property
    def inputs(self) -> tuple[tuple[int, int, int], ...]:
        """The input (height, width, channels) of each resolution."""

    @property
    def kernels(self) -> tuple[int, ...]:
        """Kernel sizes of every layer."""

    @property
    def expansions(self) -> tuple[float, ...]:
        """Middle over input channels of every layer."""

    @property
    def depths(self) -> tuple[int, ...]:
        """Layers of every stage that has none of its own."""

    @property
    def stages(self) -> Sequence[Any]:
        """Rows of the stage table, with their own `depths`, or nothing for the usual table."""

    def sample(self, rng: np.random.Generator) -> ArchSpec:
        """Draw a network."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the training: so many of the largest kernels, depths and expansions are drawn."""

    name: str
    epochs: int
    learning_rate: float
    networks: int
    kernels: int = 1
    depths: int = 1
    expansions: int = 1


def phases(space: ElasticSpace, config: SupernetSection) -> tuple[Phase, ...]:
    """Return the phases of a training, without those that have no epochs or nothing to shrink."""
    kernels, widths = len(space.kernels), len(space.expansions)
    rows = [stage.depths or space.depths for stage in space.stages] or [space.depths]
    depths = max(map(len, rows))
    last = config.elastic_learning_rate
    found = [Phase("full", config.full_epochs, config.learning_rate, 1)]
    if kernels > 1:
        found.append(Phase("kernel", config.kernel_epochs, last, 1, kernels))
    for count, epochs in _steps(depths, config.depth_epochs):
        rate = last if count == depths else last * FIRST_RATE
        found.append(Phase("depth", epochs, rate, 2, kernels, count))
    for count, epochs in _steps(widths, config.width_epochs):
        rate = last if count == widths else last * FIRST_RATE
        found.append(Phase("width", epochs, rate, 4, kernels, depths, count))
    return tuple(phase for phase in found if phase.epochs)


def _steps(options: int, epochs: int) -> list[tuple[int, int]]:
    """Return (number of the largest options, epochs) of each step from 2 options to all."""
    # Of more options than the paper's three the last one still gets the most epochs.
    first = int(epochs * min(FIRST_SHARE, 1 / options))
    steps = [(count, first) for count in range(2, options)]
    return [*steps, (options, epochs - first * len(steps))] if options > 1 else []
