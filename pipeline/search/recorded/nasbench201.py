"""NAS-Bench-201: all 15 625 cells of four nodes and six edges, trained and measured.

Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search"
(2020). A network is three stages of five equal cells, with 16, 32 and 64 channels at 32, 16 and 8
pixels, and a residual block before the second and third.

An edge is *live* if it is not ``none``, can be reached from the input and reaches the output. Many
cells differ only in edges that are not, or only in where a skip connection stands. What a model
sees (`NasBench201Space.features`) says so: beside the ops, it counts the paths from input to output
by the ops along them, skips left out. White et al., "BANANAS" (2021), encode a cell by its paths;
leaving skips out and counting equal paths is ours, as are the weights.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping  # noqa: TC003 - options are read from the annotations
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from device_agents.errors import ConfigError
from pipeline.search.recorded import Recorded, arrays, numbers
from pipeline.search.space.decisions import Decision, DecisionSpace

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.search.api import Choices

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""From node, to node; node 0 is the cell's input, node 3 its output."""

PATHS = ((3,), (0, 4), (1, 5), (0, 2, 5))
"""The ways from input to output, as positions in `EDGES`."""

SEQUENCES = tuple(
    sequence for length in range(4) for sequence in itertools.product((2, 3, 4), repeat=length)
)
"""What can be along a path: a ``none`` ends it, and a ``skip_connect`` is left out."""

_STAGES = ((16, 32), (32, 16), (64, 8))  # channels, pixels a side
_CELLS = 5
_CLASSES = 10
_SKIP = OPS.index("skip_connect")
# What a difference counts against one in an edge's op; chosen by how well a Gaussian process on 90
# cells predicts 1000 others, in accuracy and on three devices (docs/figures.md).
_PATH_WEIGHT = 1.5
_COUNT_WEIGHT = 0.5
_MACS_WEIGHT = 1.2
_BESIDE_KNOWN = 0.25
_LEAST_MS = 0.05  # dead cells take next to nothing; their logarithm would stretch the scale


@dataclass(frozen=True, slots=True)
class Cell:
    """One op per edge, as indices into `OPS`, in the order of `EDGES`.

    `str` gives the benchmark's own notation, such as
    ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|``.
    """

    ops: tuple[int, ...]

    def __str__(self) -> str:
        nodes = []
        for node in (1, 2, 3):
            parts = [
                f"{OPS[op]}~{source}"
                for op, (source, target) in zip(self.ops, EDGES, strict=True)
                if target == node
            ]
            nodes.append(f"|{'|'.join(parts)}|")
        return "+".join(nodes)

    def digest(self) -> str:
        """Return a stable 16-digit hash."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class NasBench201Space(DecisionSpace[Cell]):
    """One decision per edge, five ops each.

    Attributes:
        known_ms: latencies of every cell on devices that were measured before, by device, in the
            order of choice vectors, (15625,) each. A new device is often slow where they are.
    """

    known_ms: Mapping[str, npt.NDArray[np.float64]] = field(
        default_factory=dict, compare=False, repr=False
    )

    name: ClassVar[str] = "nasbench201"

    @cached_property
    def all_decisions(self) -> tuple[Decision, ...]:
        """The op of each edge."""
        return tuple(Decision(f"{source}->{target}", OPS) for source, target in EDGES)

    def decode(self, choices: Choices) -> Cell:
        """Return the cell of a choice vector."""
        self.chosen(choices)
        return Cell(tuple(choices))

    def choices(self, spec: Cell) -> Choices:
        """Return the cell's ops."""
        self.chosen(spec.ops)
        return spec.ops

    def features(self, spec: Cell) -> npt.NDArray[np.float64]:
        """Return what tells cells apart, (84,).

        The ops one-hot (30), the paths (40), how often each op occurs (5) and how often live (4);
        standardised over the space, log MACs of all and of live edges (2), the most convolutions
        and the most 3x3 ones on a path, and how many paths have none (3).
        """
        row: npt.NDArray[np.float64] = self._table[self._index(spec)]
        return row

    def latency_features(self, spec: Cell) -> npt.NDArray[np.float64]:
        """Return the features, and beside them the known devices' standardised log latencies.

        Cells known to be equally slow elsewhere are then near each other, the nearer the more
        devices say so; what the device itself does differently is left to the cell's features.
        """
        row: npt.NDArray[np.float64] = self._beside_known[self._index(spec)]
        return row

    def _index(self, spec: Cell) -> int:
        return int(np.ravel_multi_index(self.choices(spec), self.cardinalities))

    @cached_property
    def _beside_known(self) -> npt.NDArray[np.float64]:
        """The latency features of every cell, (15625, 84 + devices) or as `_table`."""
        if not self.known_ms:
            return self._table
        columns = np.stack(list(self.known_ms.values()), axis=1)
        logs = _standardised(np.log(np.maximum(columns, _LEAST_MS)))
        return np.concatenate([_BESIDE_KNOWN * self._table, logs], axis=1)

    @cached_property
    def _table(self) -> npt.NDArray[np.float64]:
        """The features of every cell, in the order of its choice vector: (15625, 84)."""
        ops = np.array(list(itertools.product(range(len(OPS)), repeat=len(EDGES))))
        live, one_hot = live_ops(ops), np.eye(len(OPS))
        paths = path_counts(ops)
        logs = np.log(np.stack([macs(ops), macs(live)], axis=1))
        convolutions, large = (
            np.array([sum(op in kinds for op in q) for q in SEQUENCES]) for kinds in ((2, 3), (3,))
        )
        depths = np.stack(
            [
                np.where(paths > 0, convolutions, 0).max(axis=1),
                np.where(paths > 0, large, 0).max(axis=1),
                paths @ (convolutions == 0),
            ],
            axis=1,
        )
        return np.concatenate(
            [
                one_hot[ops].reshape(len(ops), -1),
                _PATH_WEIGHT * paths,
                _COUNT_WEIGHT * one_hot[ops].sum(axis=1),
                _COUNT_WEIGHT * one_hot[live].sum(axis=1)[:, 1:],
                _MACS_WEIGHT * _standardised(logs),
                _standardised(depths),
            ],
            axis=1,
        )


def known_ms(recorded: Recorded[Cell], new: str) -> dict[str, npt.NDArray[np.float64]]:
    """Return the latencies of all recorded devices but `new`, as `NasBench201Space` takes them."""
    order = [recorded.rows[cell] for cell in sorted(recorded.rows, key=lambda cell: cell.ops)]
    return {
        name: column[order]
        for name, column in recorded.columns.items()
        if name.startswith("ms_") and name != f"ms_{new}"
    }


def _standardised(columns: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    return values


def live_ops(ops: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the ops with every edge that is not live set to ``none``, (cells, 6) each."""
    reached = np.zeros((len(ops), 4), dtype=bool)  # from the input
    reaching = np.zeros((len(ops), 4), dtype=bool)  # the output
    reached[:, 0] = reaching[:, 3] = True
    # Edges are in the order of their ends, so one pass each way settles every node.
    for edge, (source, target) in enumerate(EDGES):
        reached[:, target] |= (ops[:, edge] != 0) & reached[:, source]
    for edge, (source, target) in sorted(enumerate(EDGES), key=lambda e: e[1], reverse=True):
        reaching[:, source] |= (ops[:, edge] != 0) & reaching[:, target]
    sources, targets = (list(ends) for ends in zip(*EDGES, strict=True))
    return np.where(reached[:, sources] & reaching[:, targets], ops, 0)


def path_counts(ops: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return how many paths from input to output have each of the `SEQUENCES`, (cells, 40)."""
    column = {sequence: index for index, sequence in enumerate(SEQUENCES)}
    counts = np.zeros((len(ops), len(SEQUENCES)))
    for path in PATHS:
        for along in itertools.product(range(1, len(OPS)), repeat=len(path)):
            has = (ops[:, list(path)] == along).all(axis=1)
            counts[has, column[tuple(op for op in along if op != _SKIP)]] += 1.0
    return counts


def macs(ops: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the multiply-accumulates of whole networks, (cells,), on 32 x 32 RGB images."""
    areas = [size**2 for _, size in _STAGES]
    widths = [channels for channels, _ in _STAGES]
    fixed = 27 * widths[0] * areas[0] + widths[-1] * _CLASSES
    for width, area in zip(widths[1:], areas[1:], strict=True):
        fixed += (9 * width // 2 * width + 9 * width * width + width // 2 * width) * area
    pointwise = _CELLS * sum(w * w * area for w, area in zip(widths, areas, strict=True))
    total: npt.NDArray[np.int64] = (
        fixed + pointwise * (ops == 2).sum(axis=1) + 9 * pointwise * (ops == 3).sum(axis=1)
    )
    return total


def load(path: Path) -> Recorded[Cell]:
    """Return the published table: accuracies in percent, ``ms_<device>`` in milliseconds.

    Raises:
        ConfigError: the file cannot be read or holds no NAS-Bench-201 table.
    """
    columns = arrays(path, "NAS-Bench-201 columns")
    ops = columns.pop("ops", None)
    if ops is None or ops.ndim != 2 or ops.shape[1] != len(EDGES):
        raise ConfigError(f"{path} has no array 'ops' of shape (cells, 6): no NAS-Bench-201 table")
    if not np.isin(ops, range(len(OPS))).all():
        raise ConfigError(f"{path} has ops outside 0 to {len(OPS) - 1}: no NAS-Bench-201 table")
    rows = {Cell(tuple(row)): index for index, row in enumerate(ops.tolist())}
    return Recorded(rows, numbers(columns, path))
