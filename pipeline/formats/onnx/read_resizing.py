"""Reads maps and sequences of another size."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from models.ops import Dense, Gather, Resize
from pipeline.formats.onnx.interpolation import interpolation, is_nearest, nearest_places
from pipeline.formats.onnx.node import Node, UnknownError, Value, axis_of, known, known_ints
from pipeline.formats.onnx.reading import MOST_VALUES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.formats.onnx.reading import Reading

_WITH_ROI = 11
_SEQUENCE, _MAP = 3, 4
_CLOSE = 1e-3
_COORDINATES = {
    "half_pixel": "half_pixel",
    "pytorch_half_pixel": "half_pixel",
    "half_pixel_symmetric": "half_pixel",
    "align_corners": "align_corners",
    "asymmetric": "asymmetric",
}
_ROUNDING = {
    "round_prefer_floor": "prefer_floor",
    "round_prefer_ceil": "prefer_ceil",
    "floor": "floor",
    "ceil": "ceil",
}


def _upsample(reading: Reading, node: Node) -> Value:
    scales = node.attribute("scales") or known(node.input(1), "scales").reshape(-1)
    sizes = [int(np.floor(size * by)) for size, by in zip(node.input(0).shape, scales, strict=True)]
    mode = node.attribute("mode", "nearest")
    how = {"mode": mode, "coordinates": "asymmetric", "rounding": "floor"}
    return _resized(reading, node, sizes, list(map(float, scales)), how)


def _resize(reading: Reading, node: Node) -> Value:
    x = node.input(0)
    old = node.opset < _WITH_ROI
    mode = node.attribute("mode", "nearest")
    how = {
        "mode": mode,
        "coordinates": node.attribute(
            "coordinate_transformation_mode", "asymmetric" if old else "half_pixel"
        ),
        "rounding": node.attribute("nearest_mode", "floor" if old else "round_prefer_floor"),
        "cubic": node.attribute("cubic_coeff_a", -0.75),
        "exclude": bool(node.attribute("exclude_outside", 0)),
    }
    if node.attribute("antialias", 0):
        how["antialias"] = True
    scales, given = node.optional(1 if old else 2), node.optional(3)
    axes = [axis_of(axis, x.rank) for axis in node.attribute("axes") or range(x.rank)]
    sizes, factors = list(x.shape), [1.0] * x.rank
    if given is not None and given.shape != (0,):
        if node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise UnknownError("keeps the ratio of sides")
        for axis, size in zip(axes, known_ints(given, "size"), strict=True):
            sizes[axis], factors[axis] = size, size / x.shape[axis]
    else:
        if scales is None:
            raise UnknownError("says no size")
        for axis, by in zip(axes, known(scales, "scales").reshape(-1), strict=True):
            sizes[axis], factors[axis] = int(np.floor(x.shape[axis] * by)), float(by)
    return _resized(reading, node, sizes, factors, how)


def _resized(
    reading: Reading, node: Node, sizes: list[int], factors: list[float], how: dict[str, Any]
) -> Value:
    """Read a resize as one of a map where that is the same, else axis by axis."""
    x = node.input(0)
    if prod(sizes) > MOST_VALUES:
        raise UnknownError(f"makes {x.shape} into {tuple(sizes)}")
    changed = [axis for axis in range(x.rank) if sizes[axis] != x.shape[axis] or factors[axis] != 1]
    if not changed:
        return x
    if (attributes := _as_op(x, sizes, factors, changed, how)) is not None:
        return _of_map(reading, node, sizes, changed, attributes)
    for axis in changed:
        x = _along(
            reading, x, axis, sizes[axis], factors[axis], how, name=f"{node.name}.axis{axis}"
        )
    return x


def _as_op(
    x: Value, sizes: list[int], factors: list[float], changed: list[int], how: dict[str, Any]
) -> Resize | None:
    """Return how the graph says a resize, all but its size; None where it cannot."""
    usual = (
        how["mode"] in ("nearest", "linear")
        and how["coordinates"] in _COORDINATES
        and how["rounding"] in _ROUNDING
        and not how.get("antialias")
        and len(changed) <= 2
        and x.rank in (_SEQUENCE, _MAP)
        and 0 not in changed
    )
    if not usual:
        return None
    nearest = how["mode"] == "nearest"
    attributes = Resize(
        (1, 1),
        "nearest" if nearest else "bilinear",
        _COORDINATES[how["coordinates"]],
        _ROUNDING[how["rounding"]] if nearest else "floor",
    )
    for axis in changed:
        size, out, factor = x.shape[axis], sizes[axis], factors[axis]
        if nearest:
            same = is_nearest(size, out, factor, how, attributes)
        else:
            # What a file says of the factor may be another than the ratio of both sizes.
            exact = abs(out - factor * size) < _CLOSE or how["coordinates"] == "align_corners"
            same = exact and not (how["coordinates"] == "pytorch_half_pixel" and out == 1)
        if not same:
            return None
    return attributes


def _of_map(
    reading: Reading, node: Node, sizes: list[int], changed: list[int], attributes: Resize
) -> Value:
    """Add a resize of one or two axes, which are moved to where a map has its positions."""
    x = node.input(0)
    order = _positions_first(x.rank, changed)
    last = reading.transpose(x, order, name=f"{node.name}.last")
    size, shape = [sizes[axis] for axis in order[1:3]], last.shape
    if x.rank == _SEQUENCE:
        size = [1, size[0]] if len(changed) == 1 else size
        shape = (shape[0], 1, *shape[1:]) if len(changed) == 1 else (*shape, 1)
        last = reading.reshape(last, shape, name=f"{node.name}.map")
    attributes = replace(attributes, size=(size[0], size[1]))
    made = reading.op("resize", [last], attributes, name=node.name)
    made = reading.reshape(made, [sizes[axis] for axis in order], name=f"{node.name}.flat")
    back = [order.index(axis) for axis in range(x.rank)]
    return reading.transpose(made, back, name=f"{node.name}.first")


def _positions_first(rank: int, changed: list[int]) -> tuple[int, ...]:
    """Return the axes in the order of a map, two of its positions behind the batch."""
    moved = list(changed)
    for axis in range(rank - 1, 0, -1):
        if len(moved) < 2 and axis not in moved and rank > _SEQUENCE:
            moved.append(axis)
    moved.sort()
    return (0, *moved, *(axis for axis in range(1, rank) if axis not in moved))


def _along(
    reading: Reading,
    x: Value,
    axis: int,
    size: int,
    factor: float,
    how: dict[str, Any],
    *,
    name: str,
) -> Value:
    """Resize one axis: look entries up, or multiply by a matrix of shares."""
    if how["mode"] == "nearest":
        places = nearest_places(x.shape[axis], size, factor, how)
        return reading.op(
            "gather", [x, reading.constant(f"{name}.places", places)], Gather(axis), name=name
        )
    shares = interpolation(x.shape[axis], size, factor, how)
    order = (*(a for a in range(x.rank) if a != axis), axis)
    last = reading.transpose(x, order, name=f"{name}.last")
    made = reading.layer("dense", last, Dense(size), shares, np.zeros(size), name=name)
    return reading.transpose(made, [order.index(a) for a in range(x.rank)], name=f"{name}.back")


RESIZING: Mapping[str, Callable[[Reading, Node], Any]] = {
    "Upsample": _upsample,
    "Resize": _resize,
}
