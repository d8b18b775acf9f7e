"""Reads pools, reductions and the places of extremes."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from models.ops import Arg, AvgPool, Pad, Reduce, Unary
from models.ops.api import BOOL
from models.window import Window
from pipeline.formats.onnx.node import Node, UnknownError, Value, axis_of, known, known_ints
from pipeline.formats.onnx.read_arithmetic import cast
from pipeline.formats.onnx.read_window import as_before, as_map, margins, pair, rounded_up, steps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.window import Padding
    from pipeline.formats.onnx.reading import Reading


def _window(node: Node, x: Value) -> tuple[dict[str, Any], Padding]:
    """Return the window of a pool, and what is added to its padding by rounding up."""
    size = pair(node.attribute("kernel_shape") or ())
    stride, dilation = steps(node, "strides", x.rank), steps(node, "dilations", x.rank)
    padding = margins(node, x, size, stride, dilation)
    window = {"kernel": size, "stride": stride, "dilation": dilation, "padding": padding}
    more = (0, 0)
    if node.attribute("ceil_mode", 0) and node.attribute("auto_pad", "NOTSET") == "NOTSET":
        reach = Window(kernel=size, dilation=dilation).reach
        lengths = pair(x.shape[2:])
        ends = zip(lengths, reach, stride, padding[::2], padding[1::2], strict=True)
        down, across = (rounded_up(*end) for end in ends)
        more = (down, across)
    return window, (0, more[0], 0, more[1])


def _pool(kind: str, reading: Reading, node: Node) -> Value:
    node.gives_only()
    x = node.input(0)
    window, more = _window(node, x)
    map_ = as_map(reading, x, name=node.name)
    attributes: Any
    if kind == "maxpool":
        attributes = Window(**_padded(window, more))
    elif not node.attribute("count_include_pad", 0):
        attributes = AvgPool(**_padded(window, more))
    elif not any(more):
        attributes = AvgPool(**window, count_padding=True)
    else:
        # Zeros that the file counts are put there; those that rounding up adds do not count.
        top, bottom, left, right = window["padding"]
        sides = Pad(((0, 0), (top, bottom), (left, right), (0, 0)))
        map_ = reading.op("pad", [map_], sides, name=f"{node.name}.padded")
        attributes = AvgPool(**{**window, "padding": more})
    made = reading.op(kind, [map_], attributes, name=node.name)
    return as_before(reading, made, x.rank, name=node.name)


def _padded(window: dict[str, Any], more: Padding) -> dict[str, Any]:
    padding = tuple(a + b for a, b in zip(window["padding"], more, strict=True))
    return {**window, "padding": padding}


def _global(function: str, reading: Reading, node: Node) -> Value:
    x = node.input(0)
    attributes = Reduce(function, tuple(range(2, x.rank)), keepdims=True)
    return reading.op("reduce", [x], attributes, name=node.name)


def _axes(node: Node, x: Value) -> tuple[int, ...] | None:
    """Return the axes of a reduction, an attribute or an input; None where it does nothing."""
    axes = node.attribute("axes")
    given = node.optional(1)
    if given is not None:
        axes = known_ints(given, "axes")
    if not axes:
        return None if node.attribute("noop_with_empty_axes", 0) else tuple(range(x.rank))
    return tuple(sorted(axis_of(axis, x.rank) for axis in axes))


def _reduce(function: str, before: str, after: str, reading: Reading, node: Node) -> Value:
    """Read a reduction of a function of each value, and a function of what it gives."""
    x = node.input(0)
    axes = _axes(node, x)
    keepdims = bool(node.attribute("keepdims", 1))
    if x.dtype == BOOL and axes:  # any and all
        x = reading.cast(x, "int32", name=f"{node.name}.whole")
        made = reading.op("reduce", [x], Reduce(function, axes, keepdims), name=f"{node.name}.int")
        return cast(reading, made, BOOL, name=node.name)
    if before:
        x = reading.op("unary", [x], Unary(before), name=f"{node.name}.{before}")
    name = f"{node.name}.{function}" if after else node.name
    made = reading.op("reduce", [x], Reduce(function, axes, keepdims), name=name) if axes else x
    return reading.op("unary", [made], Unary(after), name=node.name) if after else made


def _logsumexp(reading: Reading, node: Node) -> Value:
    """Read log(sum(exp(x))), from the largest value on, so that nothing overflows."""
    x = node.input(0)
    axes = _axes(node, x)
    if axes is None:
        return x
    keepdims = bool(node.attribute("keepdims", 1))
    most = reading.op("reduce", [x], Reduce("max", axes, keepdims=True), name=f"{node.name}.max")
    below = reading.op("sub", [x, most], name=f"{node.name}.below")
    powers = reading.op("unary", [below], Unary("exp"), name=f"{node.name}.exp")
    total = reading.op(
        "reduce", [powers], Reduce("sum", axes, keepdims=True), name=f"{node.name}.sum"
    )
    logs = reading.op("unary", [total], Unary("log"), name=f"{node.name}.log")
    made = reading.op("add", [logs, most], name=f"{node.name}.kept")
    if keepdims:
        return made
    shape = [size for axis, size in enumerate(x.shape) if axis not in axes]
    return reading.reshape(made, shape, name=node.name)


def _arg(function: str, reading: Reading, node: Node) -> Value:
    x = node.input(0)
    if node.attribute("select_last_index", 0):
        raise UnknownError("takes the last of equals")
    axis = axis_of(node.attribute("axis", 0), x.rank)
    attributes = Arg(function, axis, bool(node.attribute("keepdims", 1)))
    return reading.op("argmax", [x], attributes, name=node.name)


def _topk(reading: Reading, node: Node) -> tuple[Value, Value]:
    """Read the largest or smallest value of an axis, and its place."""
    x = node.input(0)
    count = node.attribute("k")
    if count is None:
        count = int(known(node.input(1), "number").item())
    axis = axis_of(node.attribute("axis", -1), x.rank)
    if count != 1:
        raise UnknownError(f"takes the {count} first of an order; the first alone is known")
    largest = node.attribute("largest", 1)
    value = Reduce("max" if largest else "min", (axis,), keepdims=True)
    place = Arg("argmax" if largest else "argmin", axis, keepdims=True)
    values = reading.op("reduce", [x], value, name=node.name)
    return values, reading.op("argmax", [x], place, name=f"{node.name}.places")


def _lrn(reading: Reading, node: Node) -> Value:
    """Read x / (bias + alpha * mean of squares over neighbouring channels) ** beta."""
    x, size = node.input(0), node.attribute("size")
    alpha, beta = node.attribute("alpha", 1e-4), node.attribute("beta", 0.75)
    last = reading.channels_last(x, name=node.name)
    *rest, channels = last.shape
    squares = reading.op("unary", [last], Unary("square"), name=f"{node.name}.squares")
    rows = reading.reshape(squares, (1, prod(rest), channels, 1), name=f"{node.name}.rows")
    window = AvgPool(
        kernel=(1, size), padding=(0, 0, (size - 1) // 2, size // 2), count_padding=True
    )
    means = reading.op("avgpool", [rows], window, name=f"{node.name}.means")
    back = reading.reshape(means, last.shape, name=f"{node.name}.back")
    scaled = reading.op("mul", [back, reading.number(back, alpha)], name=f"{node.name}.scaled")
    bias = reading.number(back, node.attribute("bias", 1.0))
    below = reading.op("add", [scaled, bias], name=f"{node.name}.below")
    power = reading.op("pow", [below, reading.number(below, beta)], name=f"{node.name}.power")
    made = reading.op("div", [last, power], name=f"{node.name}.normal")
    return reading.channels_first(made, name=node.name)


_REDUCE = {
    "ReduceMean": ("mean", "", ""),
    "ReduceSum": ("sum", "", ""),
    "ReduceMax": ("max", "", ""),
    "ReduceMin": ("min", "", ""),
    "ReduceProd": ("prod", "", ""),
    "ReduceL1": ("sum", "abs", ""),
    "ReduceL2": ("sum", "square", "sqrt"),
    "ReduceSumSquare": ("sum", "square", ""),
    "ReduceLogSum": ("sum", "", "log"),
}

POOLING: Mapping[str, Callable[[Reading, Node], Any]] = {
    "MaxPool": partial(_pool, "maxpool"),
    "AveragePool": partial(_pool, "avgpool"),
    "GlobalAveragePool": partial(_global, "mean"),
    "GlobalMaxPool": partial(_global, "max"),
    **{kind: partial(_reduce, *how) for kind, how in _REDUCE.items()},
    "ReduceLogSumExp": _logsumexp,
    "ArgMax": partial(_arg, "argmax"),
    "ArgMin": partial(_arg, "argmin"),
    "TopK": _topk,
    "LRN": _lrn,
}
