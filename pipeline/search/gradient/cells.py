"""A space as cells of exchangeable candidates, and the latency of each candidate."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from device_agents.errors import ConfigError
from models.spec import ArchSpec, Block, Dense
from pipeline.search.space.categorical import CategoricalSpace

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from pipeline.search.api import SearchSpace
    from pipeline.search.gradient.api import Predict

MAX_CANDIDATES = 1000
"""Of one cell: its weights are all held at once."""


@dataclass(frozen=True, slots=True)
class Cells:
    """The candidates of every cell, each a list of blocks, and what stands around them."""

    input: tuple[int, int, int]
    dense: tuple[Dense, ...]
    padding: str
    candidates: tuple[tuple[tuple[Block, ...], ...], ...]

    def spec(self, choices: Sequence[int]) -> ArchSpec:
        """Return the network that takes one candidate in each cell."""
        chosen = zip(self.candidates, choices, strict=True)
        blocks = tuple(block for cell, choice in chosen for block in cell[choice])
        return ArchSpec(self.input, blocks, self.dense, self.padding)

    def cover_space(self) -> list[ArchSpec]:
        """Return networks that together hold every candidate."""
        longest = max(map(len, self.candidates))
        return [
            self.spec([min(j, len(cell) - 1) for cell in self.candidates]) for j in range(longest)
        ]


def cells_of(space: SearchSpace[ArchSpec]) -> Cells:
    """Return the cells of a space: each group of decisions is one, each of its options a path.

    Raises:
        ConfigError: the space is no chain of cells, or what a cell gives depends on its choice.
    """
    if not isinstance(space, CategoricalSpace):
        raise ConfigError(
            f"space {space.name!r} is not a chain of cells; a gradient search takes proxyless, or "
            "mnasnet with one width factor"
        )
    inside = {decision.name for group in space.groups for decision in group}
    for decision in space.all_decisions:
        if decision.name not in inside and len(decision.options) > 1:
            raise ConfigError(
                f"space {space.name!r}: {decision.name} is a choice of the whole network, which a "
                "gradient search cannot make; give it one option"
            )
    channels = space.input[2]
    found = []
    for index, group in enumerate(space.groups):
        options = itertools.product(*(decision.options for decision in group))
        made = dict.fromkeys(space.blocks(index, chosen, channels) for chosen in options)
        widths = {blocks[-1].out if blocks else channels for blocks in made}
        if len(widths) > 1 or len(made) > MAX_CANDIDATES:
            names = ", ".join(decision.name for decision in group)
            what = f"widths of {', '.join(map(str, sorted(widths)))} channels"
            if len(widths) == 1:
                what = f"{len(made)} candidates, more than {MAX_CANDIDATES}"
            raise ConfigError(
                f"space {space.name!r}: the cell of {names} gives {what}; a gradient search needs "
                "one width for all options of a cell: give mnasnet a single width factor, or "
                "take proxyless"
            )
        found.append(tuple(made))
        channels = widths.pop()
    return Cells(space.input, (Dense(space.classes),), space.padding, tuple(found))


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """Latency as a sum: a fixed part and one summand for the candidate that each cell takes.

    Attributes:
        fixed_ms: of the network that takes each cell's fastest candidate.
        extra_ms: of each candidate, above the fastest of its cell: (candidates,) for each cell.
    """

    fixed_ms: float
    extra_ms: tuple[npt.NDArray[np.float64], ...]

    @classmethod
    def tabulate(cls, cells: Cells, predict: Predict) -> LatencyModel:
        """Ask a model that adds up over blocks for every candidate, one cell at a time."""
        base = [0] * len(cells.candidates)
        rest_ms = predict(cells.spec(base))
        fixed_ms, extra_ms = rest_ms, []
        for at, candidates in enumerate(cells.candidates):
            specs = (cells.spec([*base[:at], j, *base[at + 1 :]]) for j in range(len(candidates)))
            own = np.array([predict(spec) - rest_ms for spec in specs])
            fixed_ms += float(own.min())
            extra_ms.append(own - own.min())
        return cls(fixed_ms, tuple(extra_ms))

    def of(self, choices: Sequence[int]) -> float:
        """Return the latency of one network in milliseconds."""
        return self.fixed_ms + sum(
            float(ms[c]) for ms, c in zip(self.extra_ms, choices, strict=True)
        )

    def expected(self, probabilities: Sequence[npt.NDArray[np.float64]]) -> float:
        """Return the mean latency of the networks that `probabilities` draw, in milliseconds."""
        return self.fixed_ms + sum(
            float(p @ ms) for p, ms in zip(probabilities, self.extra_ms, strict=True)
        )

    @property
    def slowest_ms(self) -> float:
        """Latency of the slowest network."""
        return self.fixed_ms + sum(float(ms.max()) for ms in self.extra_ms)

    def fastest(self) -> tuple[int, ...]:
        """Return the fastest network's choices."""
        return tuple(int(ms.argmin()) for ms in self.extra_ms)
