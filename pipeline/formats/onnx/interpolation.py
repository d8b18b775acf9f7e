"""Where ONNX's Resize reads, along one axis: places, and the shares of what lies around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.ops.resizing import COORDINATES, ROUNDING
from pipeline.formats.onnx.node import UnknownError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.ops import Resize

Array = npt.NDArray[Any]

_COORDINATES: Mapping[str, Callable[[Array, int, int, Any], Array]] = {
    "half_pixel": lambda at, _, __, by: (at + 0.5) / by - 0.5,
    "half_pixel_symmetric": lambda at, size, out, by: (
        np.float32(size / 2) * (1 - np.float32(out) / (by * size)) + (at + 0.5) / by - 0.5
    ),
    "pytorch_half_pixel": lambda at, _, out, by: (at + 0.5) / by - 0.5 if out > 1 else at * 0.0,
    "align_corners": lambda at, size, out, _: at * (size - 1) / (out - 1) if out > 1 else at * 0.0,
    "asymmetric": lambda at, _, __, by: at / by,
}

_HALF = 1e-5
"""What is so near to half way is half way: it misses that by single precision alone."""

_ROUNDING: Mapping[str, Callable[[Array], Array]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda at: np.ceil(at - 0.5 - _HALF),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5 + _HALF),
}


def nearest_places(size: int, out: int, factor: float, how: Mapping[str, Any]) -> Array:
    """Return the entry that each of `out` results is."""
    if how["rounding"] not in _ROUNDING:
        raise UnknownError(f"rounds by {how['rounding']!r}")
    at = _ROUNDING[how["rounding"]](_places(size, out, factor, how))
    return at.clip(0, size - 1).astype(np.int64)


def is_nearest(
    size: int, out: int, factor: float, how: Mapping[str, Any], attributes: Resize
) -> bool:
    """Tell whether an op of the graph takes the same entries along one axis as the file."""
    at = COORDINATES[attributes.coordinates](np.arange(out), size, out)
    ours = ROUNDING[attributes.rounding](at).clip(0, size - 1)
    return bool(np.array_equal(ours, nearest_places(size, out, factor, how)))


def interpolation(size: int, out: int, factor: float, how: Mapping[str, Any]) -> Array:
    """Return the matrix (out, size) of shares that each result has of each entry.

    Args:
        size: entries along the axis.
        out: results.
        factor: by which the axis becomes longer, as the file says it.
        how: `mode`, `coordinates`, and of cubic ones `cubic` and `exclude`.
    """
    if how["mode"] not in ("linear", "cubic"):
        raise UnknownError(f"resizes by {how['mode']!r}")
    at = _places(size, out, factor, how)
    # Anti-aliasing widens the filter where the axis becomes shorter.
    stretch = max(1.0, 1 / factor) if how.get("antialias") else 1.0
    radius = (1 if how["mode"] == "linear" else 2) * stretch
    first = np.floor(at - radius).astype(np.int64) + 1
    shares = np.zeros((out, size))
    for step in range(int(np.ceil(2 * radius)) + 1):
        place = first + step
        weight = _filter((at - place) / stretch, how)
        inside = (place >= 0) & (place < size)
        if how.get("exclude"):
            weight = np.where(inside, weight, 0.0)
        np.add.at(shares, (np.arange(out), place.clip(0, size - 1)), weight)
    normal: Array = shares / shares.sum(axis=1, keepdims=True)
    return normal


def _places(size: int, out: int, factor: float, how: Mapping[str, Any]) -> Array:
    name = how["coordinates"]
    at: Array
    if name not in _COORDINATES:
        raise UnknownError(f"resizes with the coordinates {name!r}")
    # In single precision, as onnxruntime: a place that is half a step off is another entry.
    at = _COORDINATES[name](np.arange(out, dtype=np.float32), size, out, np.float32(factor))
    # Linear interpolation holds the ends; what a cubic reads beyond them is the end itself.
    return at.clip(0, size - 1) if how["mode"] == "linear" and not how.get("antialias") else at


def _filter(distance: Array, how: Mapping[str, Any]) -> Array:
    x = np.abs(distance)
    if how["mode"] == "linear":
        line: Array = np.maximum(1 - x, 0.0)
        return line
    a = how["cubic"]
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    share: Array = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    return share
