"""What a kind of op does with channels: where they are in what it gives, and with fewer of them.

Ops that only move values are followed by their own reference: it moves the numbers of channels as
it moves values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.channels.walk import Along, fixed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.channels.walk import Follower, Ids
    from models.graph import Op

    Mask = npt.NDArray[np.bool_]
    Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """Which positions of a tensor's axis are left.

    Attributes:
        axis: along which its channels lie.
        mask: (size of that axis,).
    """

    axis: int
    mask: Mask

    @property
    def count(self) -> int:
        """How many are left."""
        return int(self.mask.sum())

    def along(self, axis: int, size: int) -> Mask:
        """Return which positions of any axis, of this size, are left."""
        return self.mask if axis == self.axis else np.ones(size, bool)


def _same_attributes(op: Op, _read: Kept, _made: Kept) -> Any:
    return op.attributes


def _same_weight(_op: Op, weight: Array, _read: Mask, _made: Mask) -> Array:
    return weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Of a kind of op.

    Attributes:
        follow: returns where the channels of its output are; joins and pins those that it reads.
        attributes: its attributes where only some positions of its first input and its output
            are left.
        weight: a layer's weight where only some input channels and some output channels are left.
        parameters: whether constants that it reads have a value for each channel of its output.
    """

    follow: Callable[[Follower, Op], Along]
    attributes: Callable[[Op, Kept, Kept], Any] = _same_attributes
    weight: Callable[[Op, Array, Mask, Mask], Array] = _same_weight
    parameters: bool = False


def rule_of(op: Op) -> Rule:
    """Return the rule of an op; one that pins all that it reads if its kind has none."""
    return RULES.get(op.kind, _UNKNOWN)


def _pin_all(walk: Follower, op: Op) -> Along:
    return _pinned(walk, op, "mixes them in a way that is not followed")


def _pinned(walk: Follower, op: Op, why: str) -> Along:
    for place in range(len(op.inputs)):
        walk.pin(op, walk.read(op, place), why)
    return fixed(op.out_shape)


def _couple(walk: Follower, op: Op, ids: Ids, groups: int) -> Ids:
    """Join the channels that are at the same place of each group, so that groups stay alike."""
    parts = ids.reshape(groups, -1)
    for part in parts[1:]:
        walk.join(op, parts[0], part)
    return ids


def _each_alone(groups: int, channels: int) -> bool:
    """Tell whether a grouped convolution reads every channel by itself, as a depthwise one."""
    return groups > 1 and groups == channels


def _conv(walk: Follower, op: Op) -> Along:
    conv, read = op.attributes, walk.read_along(op, 3)
    if _each_alone(conv.groups, len(read)):
        return Along(3, np.repeat(read, conv.out // conv.groups))
    _couple(walk, op, read, conv.groups)
    return Along(3, _couple(walk, op, walk.make(conv.out), conv.groups))


def _conv_attributes(op: Op, _read: Kept, made: Kept) -> Any:
    conv = op.attributes
    if _each_alone(conv.groups, op.in_shapes[0][3]):
        return replace(conv, out=made.count, groups=made.count * conv.groups // conv.out)
    return replace(conv, out=made.count)


def _conv_weight(op: Op, weight: Array, read: Mask, made: Mask) -> Array:
    groups = op.attributes.groups
    if _each_alone(groups, len(read)):
        return weight[made]
    return weight[made][..., read.reshape(groups, -1)[0]]


def _depthwise(walk: Follower, op: Op) -> Along:
    return Along(3, np.repeat(walk.read_along(op, 3), op.attributes.multiplier))


def _dense(walk: Follower, op: Op) -> Along:
    last = len(op.out_shape) - 1
    walk.read_along(op, last)
    return Along(last, walk.make(op.attributes.units))


def _each_value(walk: Follower, op: Op) -> Along:
    """Follow what computes each value of the values at its place, which may be broadcast."""
    given = [place for place, name in enumerate(op.inputs) if name not in op.constants]
    tracked = [place for place in given if not walk.read(op, place).fixed]
    axes = {walk.read(op, place).axis for place in tracked}
    if not axes:
        return fixed(op.out_shape)
    axis = min(axes)
    size = op.out_shape[axis]
    single = [place for place in tracked if op.in_shapes[place][axis] != size]
    if len(axes) > 1 or single:
        return _pinned(walk, op, "spreads them over another axis")
    whole = [place for place in given if op.in_shapes[place][axis] == size]
    first = walk.read(op, tracked[0])
    for place in whole:
        if place != tracked[0]:
            walk.join(op, first.ids, walk.read_along(op, axis, place))
    return first


def _normalised(walk: Follower, op: Op) -> Along:
    """Follow batch normalisation, whose parameters have a value for each channel."""
    if not set(op.inputs[1:]) <= set(op.constants):
        return _pinned(walk, op, "has parameters that are computed")
    last = len(op.out_shape) - 1
    return Along(last, walk.read_along(op, last))


def _on_map(walk: Follower, op: Op) -> Along:
    """Follow what moves a window over a map, or makes it another size."""
    return Along(len(op.out_shape) - 1, walk.read_along(op, 3))


def _over(axes: Callable[[Op], tuple[int, ...]]) -> Callable[[Follower, Op], Along]:
    """Follow what computes over `axes`, which are gone or not, and each other value by itself."""

    def followed(walk: Follower, op: Op) -> Along:
        along, over = walk.read(op), axes(op)
        for place in range(1, len(op.inputs)):
            walk.pin(op, walk.read(op, place), "takes them as parameters")
        if along.fixed:
            return fixed(op.out_shape)
        if along.axis in over:
            return _pinned(walk, op, f"computes over axis {along.axis}, along which they lie")
        gone = len(op.out_shape) < len(op.in_shapes[0])
        return Along(along.axis - sum(axis < along.axis for axis in over) * gone, along.ids)

    return followed


def _numbers(walk: Follower, op: Op) -> Ids:
    """Return the channel of every value of a mover's output: its reference moves them."""
    numbers = []
    for place, shape in enumerate(op.in_shapes):
        along = walk.read(op, place)
        sides = [1] * len(shape)
        if not along.fixed:
            sides[along.axis] = -1
        ids = np.zeros(1, np.int64) if along.fixed else along.ids
        numbers.append(np.broadcast_to(ids.reshape(sides), shape))
    moved: Ids = op.rules.reference(op, numbers)
    return moved


def _settled(walk: Follower, op: Op, ids: Ids, axis: int) -> Along:
    """Let channels lie along this axis of an output; couple those that lie along others too."""
    others = np.unique(np.moveaxis(ids, axis, -1).reshape(-1, ids.shape[axis]), axis=0)
    for other in others[1:]:
        walk.join(op, others[0], other)
    return Along(axis, np.where((others == 0).any(axis=0), 0, others[0]))


def _reshaped(walk: Follower, op: Op) -> Along:
    """Follow values into another shape, in which they may lie along several axes."""
    if walk.read(op).fixed:
        return fixed(op.out_shape)
    ids = _numbers(walk, op)
    varies = [axis for axis in range(ids.ndim) if (ids != ids.take([0], axis)).any()]
    axis = max(varies, key=lambda axis: (ids.shape[axis], axis), default=ids.ndim - 1)
    return _settled(walk, op, ids, axis) if ids.ndim else _pin_all(walk, op)


def _transposed(walk: Follower, op: Op) -> Along:
    along = walk.read(op)
    return Along(op.attributes.permutation.index(along.axis), along.ids)


def _joined(walk: Follower, op: Op) -> Along:
    """Follow values that stay on their axis."""
    along = [walk.read(op, place) for place in range(len(op.inputs))]
    axes = {one.axis for one in along if not one.fixed}
    if not axes:
        return fixed(op.out_shape)
    if len(axes) > 1:
        return _pinned(walk, op, "reads them along several axes")
    return _settled(walk, op, _numbers(walk, op), axes.pop())


def _blocks(walk: Follower, op: Op) -> Along:
    """Follow channels that become positions, or positions that become channels."""
    if not walk.read_along(op, 3).any():
        return fixed(op.out_shape)
    return _settled(walk, op, _numbers(walk, op), 3)


def _reshape_attributes(op: Op, _read: Kept, made: Kept) -> Any:
    shape = list(op.attributes.shape)
    shape[made.axis] = made.count
    return replace(op.attributes, shape=tuple(shape))


def _slice(walk: Follower, op: Op) -> Along:
    along = walk.read(op)
    if not along.fixed and op.attributes.step[along.axis] != 1:
        return _pinned(walk, op, f"takes every {op.attributes.step[along.axis]}th of them")
    return _joined(walk, op)


def _slice_attributes(op: Op, read: Kept, _made: Kept) -> Any:
    begin, end = list(op.attributes.begin), list(op.attributes.end)
    if not read.mask.all():
        for ends in (begin, end):
            ends[read.axis] = int(read.mask[: ends[read.axis]].sum())
    return replace(op.attributes, begin=tuple(begin), end=tuple(end))


def _pad(walk: Follower, op: Op) -> Along:
    along = walk.read(op)
    if not along.fixed and any(op.attributes.margins[along.axis]):
        return _pinned(walk, op, "adds margins to them")
    return fixed(op.out_shape) if along.fixed else along


def _gather(walk: Follower, op: Op) -> Along:
    along, axis = walk.read(op), op.attributes.axis
    if along.fixed or along.axis == axis or op.inputs[1] not in op.constants:
        return _pinned(walk, op, "looks them up by numbers")
    more = len(op.in_shapes[1]) - 1
    return Along(along.axis + (more if along.axis > axis else 0), along.ids)


def _norm_axes(op: Op) -> tuple[int, ...]:
    rank = len(op.out_shape)
    return tuple(range(rank - op.attributes.axes_count, rank))


_UNKNOWN = Rule(follow=_pin_all)
_EACH = Rule(follow=_each_value, parameters=True)
_MAP = Rule(follow=_on_map)
_JOINED = Rule(follow=_joined)
_BLOCKS = Rule(follow=_blocks)
_OVER_ONE = Rule(follow=_over(lambda op: (op.attributes.axis,)))
_LAYER = Rule(follow=_conv, attributes=_conv_attributes, weight=_conv_weight)

RULES: Mapping[str, Rule] = {
    "conv": _LAYER,
    "deconv": _LAYER,
    "depthwise": Rule(follow=_depthwise, weight=lambda _, weight, __, made: weight[..., made]),
    "dense": Rule(
        follow=_dense,
        attributes=lambda op, _, made: replace(op.attributes, units=made.count),
        weight=lambda _, weight, read, made: weight[made][:, read],
    ),
    **dict.fromkeys(("add", "sub", "mul", "div", "maximum", "minimum", "pow", "mod"), _EACH),
    **dict.fromkeys(("floordiv", "compare", "logical", "where", "prelu"), _EACH),
    **dict.fromkeys(("unary", "cast", "clip", "act", "leakyrelu", "elu"), _EACH),
    "batchnorm": Rule(follow=_normalised, parameters=True),
    **dict.fromkeys(("maxpool", "avgpool", "mean", "resize"), _MAP),
    "reduce": Rule(follow=_over(lambda op: op.attributes.axes)),
    **dict.fromkeys(("argmax", "softmax", "logsoftmax", "l2norm"), _OVER_ONE),
    "layernorm": Rule(follow=_over(_norm_axes)),
    "reshape": Rule(follow=_reshaped, attributes=_reshape_attributes),
    "slice": Rule(follow=_slice, attributes=_slice_attributes),
    "transpose": Rule(follow=_transposed),
    **dict.fromkeys(("concat", "tile"), _JOINED),
    **dict.fromkeys(("depthtospace", "spacetodepth"), _BLOCKS),
    "pad": Rule(follow=_pad),
    "gather": Rule(follow=_gather),
}
"""A kind that is not here (a product of two matrices) pins what it reads."""
