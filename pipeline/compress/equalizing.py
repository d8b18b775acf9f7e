"""Cross-layer equalization: channels scaled so that the weights of each layer have like ranges.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction": a
channel whose weights have range r1 where it is made and r2 where it is read is scaled by
s = sqrt(r1 * r2) / r2 (equation 11), pair after pair, until little moves. Where several layers make
or read a channel, as around a residual addition, r1 and r2 are geometric means.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from models.channels import scale_channels
from models.channels.scale import along_columns, as_rows, read_ids

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from models.channels import Channels, Group
    from models.graph import Op
    from models.model import Model

    Numbers = npt.NDArray[np.float64]

_SETTLED = 0.01
"""A sweep that scales no channel by more than 1 % is the last."""

_SWEEPS = 40
"""At most."""

_DEAD = 1e-3
"""A range below this share of its layer's largest counts as this: a channel that is all bias must
not be blown up for the sake of weights that are nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Equalized:
    """A model whose channels are scaled.

    Attributes:
        model: that computes the same.
        channels: how many can be scaled.
        groups: in how many groups.
        sweeps: until little moved.
        spread: the largest range of a layer's channels over the median one, of the layer where
            that is most: before and after.
    """

    model: Model
    channels: int
    groups: int
    sweeps: int
    spread: tuple[float, float]


def equalize(model: Model, channels: Channels) -> Equalized:
    """Scale the channels of a model in real numbers, which `find_scalable` found."""
    count = 1 + max(int(one.ids.max(initial=0)) for one in channels.tensors.values())
    layers = {op.name: op for op in model.graph.ops if op.has_weights}
    scaled = {name for group in channels.groups for name in (*group.layers, *group.readers)}
    before = _spread(model, scaled)
    logs = np.zeros(count)  # natural logarithms of the factors so far
    ranges = {name: _Ranges(op, model, channels, count) for name, op in layers.items()}
    sweeps, moved = 0, np.inf
    while moved > _SETTLED and sweeps < _SWEEPS:
        moved = max((_even(group, ranges, logs) for group in channels.groups), default=0.0)
        sweeps += 1
    made = scale_channels(model, channels, np.exp(logs))
    widths = sum(group.width for group in channels.groups)
    after = _spread(made, scaled)
    return Equalized(made, widths, len(channels.groups), sweeps, (before, after))


class _Ranges:
    """A layer's ranges by channel, for any factors."""

    def __init__(self, op: Op, model: Model, channels: Channels, count: int) -> None:
        self.rows = np.abs(as_rows(op, model.weights[op.name][0])).max(1).astype(np.float64)
        self.made = channels.tensors[op.name].ids
        self.read = np.broadcast_to(
            along_columns(op, read_ids(op, channels))[:, 0], self.rows.shape
        )
        self.count = count

    def by_channel(self, logs: Numbers, *, made: bool) -> Numbers:
        """Return the range of each channel that the layer makes, or reads; 0 of any other."""
        scaled = self.rows * np.exp(logs[self.read] - logs[self.made][:, None])
        found = np.zeros(self.count)
        if made:
            np.maximum.at(found, self.made, scaled.max(1))
        else:
            np.maximum.at(found, self.read, scaled)
        there = found > 0
        found[there] = np.maximum(found[there], _DEAD * found.max())
        return found


def _even(group: Group, ranges: Mapping[str, _Ranges], logs: Numbers) -> float:
    """Scale the channels of a group; return how far the farthest was moved, as a logarithm."""
    ids = np.array(group.ids)
    made = _mean_log([ranges[name].by_channel(logs, made=True)[ids] for name in group.layers])
    read = _mean_log([ranges[name].by_channel(logs, made=False)[ids] for name in group.readers])
    steps = np.nan_to_num((made - read) / 2)  # a channel without weights on one side stays
    logs[ids] += steps
    return float(np.abs(steps).max(initial=0.0))


def _mean_log(ranges: list[Numbers]) -> Numbers:
    """Return the mean logarithm of what is not 0; NaN where all is."""
    if not ranges:
        return np.array(np.nan)
    stacked = np.stack(ranges)
    there = stacked > 0
    logs = np.log(np.where(there, stacked, 1.0)).sum(0)
    counts = there.sum(0)
    return np.where(counts > 0, logs / np.maximum(counts, 1), np.nan)


def _spread(model: Model, layers: set[str]) -> float:
    worst = 1.0
    for op in model.graph.ops:
        if op.name in layers:
            ranges = np.abs(as_rows(op, model.weights[op.name][0])).max((1, 2))
            if (there := ranges[ranges > 0]).size:
                worst = max(worst, float(there.max() / np.median(there)))
    return worst


def find_absorbing(model: Model) -> dict[str, Op]:
    """Return layers with a ReLU -> the layer that alone reads them and can take up a constant.

    One that pads reads zeros at its border, which no constant can make up for.
    """
    readers = model.graph.readers()
    layers = {op.name: op for op in model.graph.ops if op.has_weights and op.act == "relu"}
    found = {}
    for op in model.graph.ops:
        name = op.inputs[0]
        alone = op.has_weights and name in layers and readers[name] == 1
        if alone and (
            op.kind == "dense" or not (op.kind == "deconv" or any(op.attributes.padding))
        ):
            found[name] = op
    return found


def absorb(model: Model, shifts: Mapping[str, Numbers]) -> Model:
    """Return a model whose layers give so much less, and whose readers make up for it.

    Args:
        model: in real numbers.
        shifts: layer of `find_absorbing` -> what is taken off each output channel; the function is
            kept where its ReLU gives no less than that.
    """
    weights = dict(model.weights)
    into = find_absorbing(model)
    for name, shift in shifts.items():
        weight, bias = weights[name]
        weights[name] = (weight, (bias - shift).astype(np.float32))
        reader = into[name]
        weight, bias = weights[reader.name]
        more = (as_rows(reader, weight) * along_columns(reader, shift)).sum((1, 2))
        weights[reader.name] = (weight, (bias + more).astype(np.float32))
    return replace(model, weights=weights)
