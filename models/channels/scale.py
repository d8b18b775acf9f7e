"""Channels of a network by other factors, its function kept: which ones, and the weights for it.

A channel can be divided by any positive factor where all that happens to it until the layers that
read it is positively homogeneous, f(s * x) = s * f(x): ReLU and leaky ReLUs are, sums, pools and
what moves values; the layers that read it are multiplied by the factor (Nagel et al. 2019,
"Data-Free Quantization", section 4.1). Channels that are added to each other have one factor. A
depthwise convolution reads its channels by one factor and makes them by another.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.channels.follow import follow
from models.channels.rules import Rule, rule_of
from models.channels.walk import Along, fixed

if TYPE_CHECKING:
    from models.channels.follow import Channels
    from models.channels.walk import Follower, Ids
    from models.fold import FloatArray
    from models.graph import Graph, Op
    from models.model import Model

    Factors = npt.NDArray[np.float64]

_MOVED = frozenset(
    {
        *("maxpool", "avgpool", "mean", "resize", "leakyrelu", "concat", "reshape", "slice"),
        *("transpose", "tile", "depthtospace", "spacetodepth"),
    }
)
_TOGETHER = frozenset({"add", "sub", "maximum", "minimum"})
_HOMOGENEOUS_REDUCTIONS = frozenset({"mean", "sum", "max", "min"})


def find_scalable(graph: Graph) -> Channels:
    """Find the channels of a graph that can be scaled, and which of them by one factor."""
    return follow(graph, _rule)


def scale_channels(model: Model, channels: Channels, factors: Factors) -> Model:
    """Return a model that computes the same of channels that are smaller by a factor each.

    Args:
        model: in real numbers.
        channels: that `find_scalable` found.
        factors: by the channel's number, positive; that of number 0, which stays, is 1.
    """
    weights = dict(model.weights)
    for op in model.graph.ops:
        if not op.has_weights:
            continue
        weight, bias = weights[op.name]
        made = factors[channels.tensors[op.name].ids]
        read = factors[along_columns(op, read_ids(op, channels))]
        scaled = as_rows(op, weight).astype(np.float64) * read
        scaled = from_rows(op, scaled / made[:, None, None])
        weights[op.name] = (scaled.astype(np.float32), (bias / made).astype(np.float32))
    return replace(model, weights=weights)


def as_rows(op: Op, weight: FloatArray) -> FloatArray:
    """Return a layer's weight as (output channels, positions, inputs of each)."""
    last = np.moveaxis(weight, op.layer.channel_axis, 0)
    if op.kind == "depthwise":  # (out, 1, rows, columns): each reads one channel
        return last.reshape(len(last), -1, 1)
    return last.reshape(len(last), -1, last.shape[-1])


def from_rows(op: Op, rows: FloatArray) -> FloatArray:
    """Undo `as_rows`."""
    axis, shape = op.layer.channel_axis, op.weight_shape
    moved = (shape[axis], *shape[:axis], *shape[axis + 1 :])
    return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, axis))


def read_ids(op: Op, channels: Channels) -> Ids:
    """Return the number of each channel that a layer reads."""
    along = channels.tensors.get(op.inputs[0])
    if along is None or along.axis != len(op.in_shapes[0]) - 1:
        return np.zeros(op.in_shapes[0][-1], np.int64)
    return along.ids


def along_columns(op: Op, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a value of each channel that a layer reads where `as_rows` has that channel.

    (output channels, 1, inputs of each).
    """
    out = op.out_shape[-1]
    if op.kind == "depthwise":
        return np.repeat(values, out // len(values)).reshape(out, 1, 1)
    groups = getattr(op.attributes, "groups", 1)
    return np.repeat(values.reshape(groups, 1, -1), out // groups, axis=0)


def _rule(op: Op) -> Rule:
    if op.act not in ("none", "relu"):
        return _PINNED_LAYER if op.has_weights else _PINNED
    if op.has_weights:
        return _DEPTHWISE if op.kind == "depthwise" else rule_of(op)
    return rule_of(op) if _is_homogeneous(op) else _PINNED


def _is_homogeneous(op: Op) -> bool:
    """Tell whether scaled inputs, all by one factor, give an output scaled by it."""
    constants = [name for name in op.inputs if name in op.constants]
    if op.kind in _MOVED | _TOGETHER:
        return not constants
    if op.kind == "mul":
        return len(constants) == 1
    if op.kind in ("div", "prelu"):
        return constants == [op.inputs[1]]
    if op.kind == "reduce":
        return bool(op.attributes.function in _HOMOGENEOUS_REDUCTIONS)
    if op.kind == "pad":
        return bool(op.attributes.value == 0 or op.attributes.mode != "constant")
    return op.kind == "act"  # a ReLU: any other was seen before


def _pin(walk: Follower, op: Op) -> Along:
    scales = op.act in ("none", "relu")
    why = "does not scale with its input" if scales else f"computes {op.act}, which does not scale"
    for place in range(len(op.inputs)):
        walk.pin(op, walk.read(op, place), why)
    return fixed(op.out_shape)


def _pin_made(walk: Follower, op: Op) -> Along:
    """Follow a layer whose activation does not scale: what it reads may, what it makes stays."""
    made = (_DEPTHWISE if op.kind == "depthwise" else rule_of(op)).follow(walk, op)
    walk.pin(op, made, f"computes {op.act}, which does not scale")
    return made


def _follow_depthwise(walk: Follower, op: Op) -> Along:
    walk.read_along(op, 3)
    return Along(3, walk.make(op.out_shape[3]))


_PINNED = Rule(follow=_pin)
_PINNED_LAYER = Rule(follow=_pin_made)
_DEPTHWISE = Rule(follow=_follow_depthwise)
