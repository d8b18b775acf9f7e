"""FBNet's space at 32 x 32: 22 layers of nine blocks, latencies of some thousand on seven devices.

Wu et al., "FBNet" (2019), in the geometry of HW-NAS-Bench (Li et al. 2021); latencies as published
with HELP (Lee et al. 2021). No accuracies. Two columns, ``ms_raspi4`` and ``ms_pixel3``, are *sums
of a table of blocks*, not measurements of networks: an additive model fits them exactly, which says
nothing about additivity. The phones count whole milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from device_agents.errors import ConfigError
from pipeline.search.recorded import Recorded, arrays, numbers
from pipeline.search.space.decisions import Decision, DecisionSpace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from pipeline.search.api import Choices

    Floats = npt.NDArray[np.float64]

OPS = ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip")
"""Kernel, expansion and groups of the 1x1 layers; ``skip`` is the identity or a projection."""

COSTS = ("pointwise MACs", "depthwise MACs", "activations", "parameters", "blocks", "groups")
"""What `costs` counts of a network."""

SUMMED = ("ms_raspi4", "ms_pixel3")
"""Columns that are sums of a table."""

_KINDS = ((3, 1, 1), (3, 1, 2), (3, 3, 1), (3, 6, 1), (5, 1, 1), (5, 1, 2), (5, 3, 1), (5, 6, 1))
_STAGES = ((1, 16, 1), (4, 24, 1), (4, 32, 2), (4, 64, 2), (4, 112, 1), (4, 184, 2), (1, 352, 1))
_STEM_CHANNELS, _SIZE = 16, 32
_PROJECTION_BLOCKS = 0.4


@dataclass(frozen=True, slots=True)
class Net:
    """One op per layer, as indices into `OPS`."""

    ops: tuple[int, ...]

    def __str__(self) -> str:
        return ",".join(OPS[op] for op in self.ops)


@dataclass(frozen=True)
class FBNetSpace(DecisionSpace[Net]):
    """One decision per layer."""

    name: ClassVar[str] = "fbnet"

    @cached_property
    def all_decisions(self) -> tuple[Decision, ...]:
        """The op of each layer."""
        return tuple(Decision(f"layer{i}", OPS) for i, _ in enumerate(_layers()))

    def decode(self, choices: Choices) -> Net:
        """Return the network of a choice vector."""
        self.chosen(choices)
        return Net(tuple(choices))

    def choices(self, spec: Net) -> Choices:
        """Return the network's ops."""
        self.chosen(spec.ops)
        return spec.ops


def costs(ops: npt.NDArray[np.int64]) -> Floats:
    """Return the `COSTS` of networks given by their ops, (n, 22) -> (n, 6)."""
    table = np.stack([[_block(op, *layer) for op in range(len(OPS))] for layer in _layers()])
    total: Floats = table[np.arange(ops.shape[1]), ops].sum(1)
    return total


def one_hot(ops: npt.NDArray[np.int64]) -> Floats:
    """Return the decisions of networks, (n, 22) -> (n, 198)."""
    return np.eye(len(OPS))[ops].reshape(len(ops), -1)


def load(path: Path) -> Recorded[Net]:
    """Return the published table: ``ms_<device>`` in milliseconds.

    Raises:
        ConfigError: the file cannot be read or holds no FBNet table.
    """
    columns = arrays(path, "FBNet columns")
    ops = columns.pop("ops", None)
    layers = sum(1 for _ in _layers())
    if ops is None or ops.ndim != 2 or ops.shape[1] != layers:
        raise ConfigError(f"{path} has no array 'ops' of shape (nets, {layers}): no FBNet table")
    if not (np.isin(ops, range(len(OPS)))).all():
        raise ConfigError(f"{path} has ops outside 0 to {len(OPS) - 1}: no FBNet table")
    rows = {Net(tuple(row)): index for index, row in enumerate(ops.tolist())}
    return Recorded(rows, numbers(columns, path))


def _layers() -> Iterator[tuple[int, int, int, int]]:
    """Yield channels in and out, pixels a side in and out, of each layer."""
    channels, size = _STEM_CHANNELS, _SIZE
    for count, width, first_stride in _STAGES:
        for i in range(count):
            out_size = size // (first_stride if i == 0 else 1)
            yield channels, width, size, out_size
            channels, size = width, out_size


def _block(op: int, c_in: int, c_out: int, size: int, out_size: int) -> tuple[float, ...]:
    """Return the `COSTS` of one layer, in units that make them of a size."""
    area, out_area = size**2, out_size**2
    if op == OPS.index("skip"):
        if (c_in, size) == (c_out, out_size):
            return (0.0,) * len(COSTS)
        macs, moved = c_in * c_out * out_area, c_in * area + c_out * out_area
        return macs / 1e6, 0.0, moved / 1e5, c_in * c_out / 1e5, _PROJECTION_BLOCKS, 0.0
    kernel, expansion, groups = _KINDS[op]
    mid = c_in * expansion
    return (
        (c_in * mid * area + mid * c_out * out_area) / groups / 1e6,
        kernel**2 * mid * out_area / 1e6,
        ((c_in + mid) * area + (mid + c_out) * out_area) / 1e5,
        ((c_in * mid + mid * c_out) / groups + kernel**2 * mid) / 1e5,
        1.0,
        groups - 1.0,
    )
