"""Maps of another size, by the rules that files know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.ops.api import Array, Named, OpKind, map_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from models.graph import Op
    from models.ops.api import Shape, Shapes
    from models.window import Pair

MODES = ("nearest", "bilinear")


@dataclass(frozen=True, slots=True)
class Resize(Named):
    """Of a map of `size` (height, width).

    Attributes:
        size: of the result.
        mode: nearest or bilinear.
        coordinates: where a pixel of the result lies in the input, by ONNX's names.
        rounding: of such a place, where mode is nearest.
    """

    size: Pair
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    rounding: str = "floor"


COORDINATES: Mapping[str, Callable[[Array, int, int], Array]] = {
    "half_pixel": lambda at, size, out: (at + 0.5) * size / out - 0.5,
    "align_corners": lambda at, size, out: at * (size - 1) / (out - 1) if out > 1 else at * 0.0,
    "asymmetric": lambda at, size, out: at * size / out,
}

ROUNDING: Mapping[str, Callable[[Array], Array]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "prefer_floor": lambda at: np.ceil(at - 0.5),
    "prefer_ceil": lambda at: np.floor(at + 0.5),
}


def _shape(shapes: Shapes, resize: Resize) -> Shape:
    *_, channels = map_shape(shapes)
    for what, value, known in (
        ("mode", resize.mode, MODES),
        ("coordinates", resize.coordinates, COORDINATES),
        ("rounding", resize.rounding, ROUNDING),
    ):
        if value not in known:
            raise ValueError(f"resizes with {what} {value!r}; known: {', '.join(known)}")
    return (shapes[0][0], *resize.size, channels)


def _places(resize: Resize, size: int, out: int) -> Array:
    """Return where the `out` pixels of the result lie among `size`, not rounded."""
    return COORDINATES[resize.coordinates](np.arange(out), size, out)


def nearest_places(resize: Resize, size: int, out: int) -> Array:
    """Return which of `size` pixels of an axis the `out` of the result are, in mode nearest."""
    at = ROUNDING[resize.rounding](_places(resize, size, out))
    places: Array = at.clip(0, size - 1).astype(int)
    return places


def _resize(op: Op, arrays: Sequence[Array]) -> Array:
    resize: Resize = op.attributes
    x = arrays[0]
    for axis, out in zip((1, 2), resize.size, strict=True):
        size = x.shape[axis]
        if resize.mode == "nearest":
            x = np.take(x, nearest_places(resize, size, out), axis)
            continue
        at = _places(resize, size, out).clip(0, size - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, size - 1)
        share = (at - low).astype(x.dtype).reshape((-1, 1) if axis == 2 else (-1, 1, 1))
        x = np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
    return x


ROWS: Mapping[str, OpKind] = {
    "resize": OpKind(
        shape=_shape,
        reference=_resize,
        attributes=Resize,
        keeps_scale=True,
        keeps_range=True,
    ),
}
