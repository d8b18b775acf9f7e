"""How a graph is walked: where channels are so far, which are joined, which stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from models.graph import Graph, Op
    from models.ops import Shape

Ids = npt.NDArray[np.int64]
"""A number for each channel; 0 for what is never cut. Those of one number are cut together."""


@dataclass(frozen=True, slots=True, eq=False)
class Along:
    """Where the channels of a tensor are.

    Attributes:
        axis: along which they lie.
        ids: (size of that axis,), the channel of each position.
    """

    axis: int
    ids: Ids

    @property
    def fixed(self) -> bool:
        """Whether nothing of the tensor can be cut."""
        return not self.ids.any()


class Follower:
    """What rules walk a graph with: it knows where channels are, joins and pins them."""

    def __init__(self, graph: Graph) -> None:
        self.tensors = {tensor.name: fixed(tensor.shape) for tensor in graph.inputs}
        self.pins: list[tuple[Ids, str, str]] = []
        self._parents = [0]

    def read(self, op: Op, place: int = 0) -> Along:
        """Return where the channels of an op's input are; a constant has none that can be cut."""
        name = op.inputs[place]
        return fixed(op.in_shapes[place]) if name in op.constants else self.tensors[name]

    def read_along(self, op: Op, axis: int, place: int = 0) -> Ids:
        """Return the channels of an input along an axis; pin those that lie along another."""
        along = self.read(op, place)
        if along.axis == axis:
            return along.ids
        if not along.fixed:
            self.pin(op, along, f"reads them along axis {along.axis}, and channels along {axis}")
        return np.zeros(op.in_shapes[place][axis], np.int64)

    def make(self, count: int) -> Ids:
        """Return so many new channels."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def join(self, op: Op, first: Ids, second: Ids) -> None:
        """Let channels at the same place be cut together; what is never cut pins its other."""
        stays = (first == 0) != (second == 0)
        if stays.any():
            why = "needs as many of them as it has of what cannot be cut"
            self.pins.append((np.where(first == 0, second, first)[stays], op.name, why))
        pairs = np.unique(np.stack([first[~stays].ravel(), second[~stays].ravel()], 1), axis=0)
        for a, b in pairs.tolist():
            one, other = self.root(a), self.root(b)
            self._parents[max(one, other)] = min(one, other)

    def pin(self, op: Op, along: Along, why: str) -> None:
        """Say that these channels stay; `why` is the end of a sentence that begins with the op."""
        self.pins.append((along.ids[along.ids != 0], op.name, why))

    def root(self, channel: int) -> int:
        """Return the channel that stands for all that are cut with this one."""
        parents = self._parents
        while parents[channel] != channel:
            parents[channel] = parents[parents[channel]]
            channel = parents[channel]
        return channel

    def roots(self) -> Ids:
        """Return the same for all channels."""
        return np.array([self.root(channel) for channel in range(len(self._parents))])


def fixed(shape: Shape) -> Along:
    """Return where the channels of a tensor are of which nothing can be cut."""
    axis = max(len(shape) - 1, 0)
    return Along(axis, np.zeros(shape[axis] if shape else 0, np.int64))
