"""Ops that make one value of many: pools and reductions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.ops.api import (
    BOOL,
    FUSED,
    INTEGERS,
    Array,
    Attributes,
    Named,
    OpKind,
    check_axes,
    check_function,
    float_only,
    map_shape,
)
from models.window import Window, window_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from models.graph import Op
    from models.ops.api import Dtypes, Shape, Shapes


@dataclass(frozen=True, slots=True)
class Mean(Attributes):
    """Of a mean over all positions of a map: (1, 1, 1, C) if `keepdims`, else (1, C)."""

    keepdims: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AvgPool(Window):
    """Of an average pool; `count_padding`: whether zeros of the padding count as values."""

    count_padding: bool = False

    @property
    def key(self) -> str:
        """Return the window, and whether padding counts."""
        return window_key(self) + ("c" if self.count_padding else "")


@dataclass(frozen=True, slots=True)
class Reduce(Named):
    """Of a reduction by one of `REDUCTIONS` over `axes`, which stay with size 1 if `keepdims`."""

    function: str
    axes: tuple[int, ...]
    keepdims: bool = True


@dataclass(frozen=True, slots=True)
class Arg(Named):
    """Of the place of the largest (argmax) or smallest (argmin) value; the first of equals."""

    function: str
    axis: int
    keepdims: bool = False
    dtype: str = "int64"


REDUCTIONS: Mapping[str, Callable[..., Array]] = {
    "mean": np.mean,
    "sum": np.sum,
    "max": np.max,
    "min": np.min,
    "prod": np.prod,
    "any": np.any,
    "all": np.all,
}
_OF_TRUTH = ("any", "all")
PLACES: Mapping[str, Callable[..., Array]] = {"argmax": np.argmax, "argmin": np.argmin}


def _pool_shape(shapes: Shapes, window: Window) -> Shape:
    height, width, channels = map_shape(shapes)
    top, bottom, left, right = window.padding
    if max(top, bottom) >= window.reach[0] or max(left, right) >= window.reach[1]:
        raise ValueError(f"has the window {window.key}, which can lie wholly in its padding")
    return (shapes[0][0], *window.positions(height, width), channels)


def _mean_shape(shapes: Shapes, mean: Mean) -> Shape:
    *_, channels = map_shape(shapes)
    return (shapes[0][0], 1, 1, channels) if mean.keepdims else (shapes[0][0], channels)


def _reduced(shape: Shape, axes: tuple[int, ...], *, keepdims: bool) -> Shape:
    if keepdims:
        return tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


def _reduce_shape(shapes: Shapes, reduce: Reduce) -> Shape:
    check_axes(shapes, *reduce.axes)
    return _reduced(shapes[0], reduce.axes, keepdims=reduce.keepdims)


def _arg_shape(shapes: Shapes, arg: Arg) -> Shape:
    check_axes(shapes, arg.axis)
    return _reduced(shapes[0], (arg.axis,), keepdims=arg.keepdims)


def _reduce_dtype(dtypes: Dtypes, reduce: Reduce) -> str:
    check_function(reduce.function, REDUCTIONS)
    if (dtypes[0] == BOOL) != (reduce.function in _OF_TRUTH):
        raise ValueError(f"takes the {reduce.function} of {dtypes[0]}")
    return dtypes[0] if reduce.function != "mean" else float_only(dtypes, None)


def _arg_dtype(_: Dtypes, arg: Arg) -> str:
    check_function(arg.function, PLACES)
    if arg.dtype not in INTEGERS:
        raise ValueError(f"gives places as {arg.dtype!r}; known: {', '.join(INTEGERS)}")
    return arg.dtype


def _maximum(op: Op, arrays: Sequence[Array]) -> Array:
    window: Window = op.attributes
    parts = [values for _, _, values in window.over(arrays[0], -np.inf)]
    largest: Array = np.maximum.reduce(parts)
    return largest


def _average(op: Op, arrays: Sequence[Array]) -> Array:
    pool: AvgPool = op.attributes
    (x,) = arrays
    total = sum(values for _, _, values in pool.over(x, 0))
    if pool.count_padding:
        area = pool.kernel[0] * pool.kernel[1]
        whole: Array = total / x.dtype.type(area)
        return whole
    ones = np.ones((1, *x.shape[1:3], 1), x.dtype)
    count = sum(values for _, _, values in pool.over(ones, 0))
    return np.asarray(total / count, x.dtype)


def _mean(op: Op, arrays: Sequence[Array]) -> Array:
    mean: Mean = op.attributes
    average: Array = arrays[0].mean((1, 2), keepdims=mean.keepdims)
    return average


def _reduce(op: Op, arrays: Sequence[Array]) -> Array:
    reduce: Reduce = op.attributes
    result: Any = REDUCTIONS[reduce.function](arrays[0], axis=reduce.axes, keepdims=reduce.keepdims)
    return np.asarray(result, arrays[0].dtype)


def _place(op: Op, arrays: Sequence[Array]) -> Array:
    arg: Arg = op.attributes
    places = PLACES[arg.function](arrays[0], axis=arg.axis, keepdims=arg.keepdims)
    return np.asarray(places, arg.dtype)


ROWS: Mapping[str, OpKind] = {
    "mean": OpKind(
        shape=_mean_shape,
        reference=_mean,
        attributes=Mean,
        keeps_range=True,
    ),
    "maxpool": OpKind(
        shape=_pool_shape,
        reference=_maximum,
        attributes=Window,
        keeps_scale=True,
        keeps_range=True,
    ),
    "avgpool": OpKind(
        shape=_pool_shape,
        reference=_average,
        attributes=AvgPool,
        activations=FUSED,
        keeps_scale=True,
        keeps_range=True,
    ),
    "reduce": OpKind(
        shape=_reduce_shape,
        reference=_reduce,
        dtype=_reduce_dtype,
        attributes=Reduce,
        integer=lambda op: op.attributes.function != "prod",
        keeps_scale_of=lambda op: op.attributes.function in ("max", "min"),
        keeps_batch=lambda op: 0 not in op.attributes.axes,
        keeps_range=True,
    ),
    "argmax": OpKind(
        shape=_arg_shape,
        reference=_place,
        dtype=_arg_dtype,
        attributes=Arg,
        keeps_batch=lambda op: op.attributes.axis != 0,
    ),
}
