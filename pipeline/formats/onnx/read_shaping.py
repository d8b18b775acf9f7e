"""Reads what changes shapes and the order of axes, and puts tensors together."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from models.ops import Concat, DepthToSpace, Gather, SpaceToDepth, Tile
from pipeline.formats.onnx.node import Array, Node, UnknownError, Value, axis_of, known_ints
from pipeline.formats.onnx.read_slicing import part

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pipeline.formats.onnx.reading import Reading


def _reshape(reading: Reading, node: Node) -> Value:
    x = node.input(0)
    wanted = list(known_ints(node.input(1), "shape"))
    if not node.attribute("allowzero", 0):
        wanted = [x.shape[place] if size == 0 else size for place, size in enumerate(wanted)]
    if -1 in wanted:
        others = prod(size for size in wanted if size != -1)
        wanted[wanted.index(-1)] = prod(x.shape) // others if others else 0
    if prod(wanted) != prod(x.shape):
        raise UnknownError(
            f"makes {x.shape} into {tuple(wanted)}, which holds another number: the file is for "
            "inputs of another shape"
        )
    return reading.reshape(x, wanted, name=node.name)


def _flatten(reading: Reading, node: Node) -> Value:
    x = node.input(0)
    axis = node.attribute("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    return reading.reshape(x, (prod(x.shape[:axis]), prod(x.shape[axis:])), name=node.name)


def _transpose(reading: Reading, node: Node) -> Value:
    x = node.input(0)
    order = node.attribute("perm") or tuple(range(x.rank))[::-1]
    return reading.transpose(x, order, name=node.name)


def _listed(node: Node) -> tuple[int, ...]:
    """Return the axes of a node, an attribute or an input."""
    given = node.optional(1)
    return known_ints(given, "axes") if given is not None else node.attribute("axes") or ()


def _squeeze(reading: Reading, node: Node) -> Value:
    x = node.input(0)
    axes = {axis_of(axis, x.rank) for axis in _listed(node)}
    axes = axes or {axis for axis, size in enumerate(x.shape) if size == 1}
    if wrong := [axis for axis in sorted(axes) if x.shape[axis] != 1]:
        raise UnknownError(f"takes away axis {wrong[0]} of {x.shape}, which is not 1")
    shape = [size for axis, size in enumerate(x.shape) if axis not in axes]
    return reading.reshape(x, shape, name=node.name)


def _unsqueeze(reading: Reading, node: Node) -> Value:
    x = node.input(0)
    listed = _listed(node)
    rank = x.rank + len(listed)
    axes = {axis_of(axis, rank) for axis in listed}
    if len(axes) != len(listed):
        raise UnknownError(f"adds the axes {listed}, one of them twice")
    sizes = iter(x.shape)
    shape = [1 if axis in axes else next(sizes) for axis in range(rank)]
    return reading.reshape(x, shape, name=node.name)


def _concat(reading: Reading, node: Node) -> Value:
    values = [value for value in node.inputs if value is not None and min(value.shape, default=1)]
    if not values:
        return node.input(0)
    axis = axis_of(node.attribute("axis", 1), max(value.rank for value in values))
    if len(values) == 1:
        return values[0]
    return reading.op("concat", values, Concat(axis), name=node.name)


def _expand(reading: Reading, node: Node) -> Value:
    return expand(reading, node.input(0), known_ints(node.input(1), "shape"), name=node.name)


def expand(reading: Reading, x: Value, shape: Sequence[int], *, name: str) -> Value:
    """Repeat a tensor along its axes of size 1, as broadcasting to a shape does."""
    x = reading.ranked(x, max(x.rank, len(shape)), name=name)
    wanted = (1,) * (x.rank - len(shape)) + tuple(shape)
    pairs = list(zip(x.shape, wanted, strict=True))
    if any(size != to and 1 not in (size, to) for size, to in pairs):
        raise UnknownError(f"repeats {x.shape} to {tuple(shape)}")
    repeats: tuple[int, ...] = tuple(to if size == 1 else 1 for size, to in pairs)
    if prod(repeats) == 1:
        return x
    if not prod(repeats):
        return reading.constant(name, np.zeros(wanted, x.dtype))
    return reading.op("tile", [x], Tile(repeats), name=name)


def _tile(reading: Reading, node: Node) -> Value:
    repeats = known_ints(node.input(1), "repeats")
    if prod(repeats) == 1:
        return node.input(0)
    return reading.op("tile", [node.input(0)], Tile(repeats), name=node.name)


def _gather(reading: Reading, node: Node) -> Value:
    x, places = node.input(0), node.input(1)
    axis = axis_of(node.attribute("axis", 0), x.rank)
    if places.array is None:
        return reading.op("gather", [x, places], Gather(axis), name=node.name)
    whole = np.where(places.array < 0, places.array + x.shape[axis], places.array)
    if whole.size and (whole.min() < 0 or whole.max() >= x.shape[axis]):
        raise UnknownError(f"takes entry {int(places.array.max())} of {x.shape[axis]}")
    if x.array is not None:
        return reading.constant(node.name, np.take(x.array, whole, axis))
    made = _looked_up(reading, x, whole.reshape(-1), axis, node)
    shape = (*x.shape[:axis], *whole.shape, *x.shape[axis + 1 :])
    return reading.reshape(made, shape, name=f"{node.name}.shape")


def _looked_up(reading: Reading, x: Value, places: Array, axis: int, node: Node) -> Value:
    """Return entries of a tensor along an axis: a part, where they lie at equal steps."""
    step = int(places[1] - places[0]) if len(places) > 1 else 1
    if step > 0 and np.array_equal(places, places[0] + np.arange(len(places)) * step):
        bounds = [slice(None)] * x.rank
        bounds[axis] = slice(int(places[0]), int(places[-1]) + 1, step)
        return part(reading, x, bounds, name=node.name)
    kept = reading.constant(f"{node.name}.places", places)
    return reading.op("gather", [x, kept], Gather(axis), name=node.name)


def _depth_to_space(reading: Reading, node: Node) -> Value:
    order = node.attribute("mode", "DCR")
    attributes = DepthToSpace(node.attribute("blocksize"), order)
    return _on_map(reading, node, "depthtospace", attributes)


def _space_to_depth(reading: Reading, node: Node) -> Value:
    made = _on_map(reading, node, "spacetodepth", SpaceToDepth(node.attribute("blocksize")))
    if node.attribute("mode", "DCR") == "DCR":
        return made
    # The values of a block lie together, those of a channel are wanted together.
    batch, channels, height, width = made.shape
    before = node.input(0).shape[1]
    shape = (batch, channels // before, before, height, width)
    cut = reading.reshape(made, shape, name=f"{node.name}.blocks")
    turned = reading.transpose(cut, (0, 2, 1, 3, 4), name=f"{node.name}.turned")
    return reading.reshape(turned, made.shape, name=f"{node.name}.channels")


def _on_map(reading: Reading, node: Node, kind: str, attributes: Any) -> Value:
    last = reading.channels_last(node.input(0), name=node.name)
    made = reading.op(kind, [last], attributes, name=node.name)
    return reading.channels_first(made, name=node.name)


SHAPING: Mapping[str, Callable[[Reading, Node], Any]] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": _concat,
    "Expand": _expand,
    "Tile": _tile,
    "Gather": _gather,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}
