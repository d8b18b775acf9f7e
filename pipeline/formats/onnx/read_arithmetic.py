"""Reads element-wise arithmetic, comparisons, choices and casts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from models.ops import FLOAT, Cast, Clip, Compare, Logical, Unary
from models.ops.api import BOOL
from pipeline.formats.onnx.node import Node, UnknownError, Value, known

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.formats.onnx.reading import Reading

_ROOTS = {2.0: "square", 0.5: "sqrt", -1.0: "reciprocal", -0.5: "rsqrt"}
"""Exponents that have a function of their own."""

CAST_TO: Mapping[int, str] = {
    onnx.TensorProto.FLOAT: FLOAT,
    onnx.TensorProto.FLOAT16: FLOAT,
    onnx.TensorProto.BFLOAT16: FLOAT,
    onnx.TensorProto.DOUBLE: FLOAT,
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.BOOL: BOOL,
}
"""Types of the file and what they are in the graph, which computes with single precision."""


def _two(kind: str, reading: Reading, node: Node) -> Value:
    inputs = [node.input(0), node.input(1)]
    return reading.op(kind, reading.aligned(inputs, name=node.name), name=node.name)


def _compare(function: str, reading: Reading, node: Node) -> Value:
    inputs = reading.aligned([node.input(0), node.input(1)], name=node.name)
    if inputs[0].dtype == BOOL and function == "equal":
        differ = reading.op("logical", inputs, Logical("xor"), name=f"{node.name}.differ")
        return reading.op("unary", [differ], Unary("not"), name=node.name)
    return reading.op("compare", inputs, Compare(function), name=node.name)


def _logical(function: str, reading: Reading, node: Node) -> Value:
    inputs = reading.aligned([node.input(0), node.input(1)], name=node.name)
    return reading.op("logical", inputs, Logical(function), name=node.name)


def _unary(function: str, reading: Reading, node: Node) -> Value:
    return reading.op("unary", [node.input(0)], Unary(function), name=node.name)


def _several(kind: str, reading: Reading, node: Node) -> Value:
    """Read an op of any number of tensors as one of two, again and again."""
    values = reading.aligned([value for value in node.inputs if value], name=node.name)
    result, *rest = values
    for place, value in enumerate(rest):
        last = place == len(rest) - 1
        name = node.name if last else f"{node.name}.{place}"
        result = reading.op(kind, [result, value], name=name)
    return result


def _mean(reading: Reading, node: Node) -> Value:
    total = _several("add", reading, node)
    count = reading.number(total, 1 / len(node.inputs))
    return reading.op("mul", [total, count], name=f"{node.name}.mean")


def _pow(reading: Reading, node: Node) -> Value:
    x, exponent = node.input(0), node.input(1)
    if exponent.array is not None and exponent.array.size == 1 and x.dtype == FLOAT:
        value = float(exponent.array.item())
        if x.rank >= exponent.rank and value == 1:
            return x
        if x.rank >= exponent.rank and value in _ROOTS:
            return reading.op("unary", [x], Unary(_ROOTS[value]), name=node.name)
    exponent = reading.cast(exponent, x.dtype, name=f"{node.name}.exponent")
    return reading.op("pow", reading.aligned([x, exponent], name=node.name), name=node.name)


def _mod(reading: Reading, node: Node) -> Value:
    x, by = reading.aligned([node.input(0), node.input(1)], name=node.name)
    if not node.attribute("fmod", 0):
        return reading.op("mod", [x, by], name=node.name)
    # The remainder has the sign of the dividend: that of its size, with the sign put back.
    sizes = [reading.op("unary", [v], Unary("abs"), name=f"{node.name}.abs") for v in (x, by)]
    rest = reading.op("mod", sizes, name=f"{node.name}.rest")
    sign = reading.op("unary", [x], Unary("sign"), name=f"{node.name}.sign")
    return reading.op("mul", [rest, sign], name=node.name)


def _tan(reading: Reading, node: Node) -> Value:
    parts = [
        reading.op("unary", [node.input(0)], Unary(name), name=f"{node.name}.{name}")
        for name in ("sin", "cos")
    ]
    return reading.op("div", parts, name=node.name)


def _where(reading: Reading, node: Node) -> Value:
    inputs = [node.input(place) for place in range(3)]
    return reading.op("where", reading.aligned(inputs, name=node.name), name=node.name)


def _cast(reading: Reading, node: Node) -> Value:
    to = node.attribute("to")
    if to not in CAST_TO:
        # A smaller type holds no other values than those that fit it, wherever files use it.
        if node.input(0).array is not None and to in _SMALL:
            return reading.constant(node.name, known(node.input(0), "input").astype(_SMALL[to]))
        raise UnknownError(f"casts to {onnx.TensorProto.DataType.Name(to)}")
    return cast(reading, node.input(0), CAST_TO[to], name=node.name)


_SMALL = {
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.INT16: "int16",
    onnx.TensorProto.UINT16: "uint16",
}


def cast(reading: Reading, x: Value, dtype: str, *, name: str) -> Value:
    """Return a tensor of another type; what is not 0 is true."""
    if dtype == BOOL and x.dtype != BOOL:
        zero = reading.number(x, 0)
        return reading.op("compare", [x, zero], Compare("notequal"), name=name)
    return x if x.dtype == dtype else reading.op("cast", [x], Cast(dtype), name=name)


def _cast_like(reading: Reading, node: Node) -> Value:
    like = node.input(1)
    if like.raw is not None and str(like.raw.dtype) != like.dtype:
        raise UnknownError(f"casts to {like.raw.dtype}")
    return cast(reading, node.input(0), node.input(1).dtype, name=node.name)


def read_clip(reading: Reading, node: Node) -> Value:
    """Read a limit, its bounds attributes or tensors, known or computed."""
    x = node.input(0)
    low, high = node.optional(1), node.optional(2)
    bounds = [node.attribute("min", -np.inf), node.attribute("max", np.inf)]
    fixed = x.dtype == FLOAT and all(
        bound is None or bound.array is not None for bound in (low, high)
    )
    if fixed:
        for place, bound in enumerate((low, high)):
            if bound is not None and bound.array is not None:
                bounds[place] = float(bound.array.item())
        return clip(reading, x, *bounds, name=node.name)
    for kind, bound in (("maximum", low), ("minimum", high)):
        if bound is not None:
            x = reading.op(
                kind, reading.aligned([x, bound], name=node.name), name=f"{node.name}.{kind}"
            )
    return x


def clip(reading: Reading, x: Value, low: float, high: float, *, name: str) -> Value:
    """Add a limit: an activation where it is one."""
    if (low, high) == (0, 6):
        return reading.op("act", [x], name=name, act="relu6")
    if (low, high) == (0, np.inf) or (low == 0 and high >= np.finfo(np.float32).max):
        return reading.op("act", [x], name=name, act="relu")
    low = min(low, high)  # the upper bound is the one that holds
    return reading.op("clip", [x], Clip(float(low), float(high)), name=name)


def _is_inf(reading: Reading, node: Node) -> Value:
    """Read whether a number is infinite, above or below zero as asked."""
    x = node.input(0)
    signs = [
        sign
        for name, sign in (("positive", 1), ("negative", -1))
        if node.attribute(f"detect_{name}", 1)
    ]
    if len(signs) != 1:
        x = reading.op("unary", [x], Unary("abs"), name=f"{node.name}.abs")
    limit = reading.number(x, np.inf * signs[0] if signs else np.nan)
    return reading.op("compare", [x, limit], Compare("equal"), name=node.name)


_UNARY = {
    "Abs": "abs",
    "Neg": "neg",
    "Exp": "exp",
    "Log": "log",
    "Sqrt": "sqrt",
    "Reciprocal": "reciprocal",
    "Sin": "sin",
    "Cos": "cos",
    "Floor": "floor",
    "Ceil": "ceil",
    "Round": "round",
    "Sign": "sign",
    "Erf": "erf",
    "Not": "not",
}
_COMPARE = {
    "Equal": "equal",
    "Less": "less",
    "LessOrEqual": "lessequal",
    "Greater": "greater",
    "GreaterOrEqual": "greaterequal",
}

ARITHMETIC: Mapping[str, Callable[[Reading, Node], Any]] = {
    **{kind: partial(_two, kind.lower()) for kind in ("Add", "Sub", "Mul", "Div")},
    **{kind: partial(_unary, function) for kind, function in _UNARY.items()},
    **{kind: partial(_compare, function) for kind, function in _COMPARE.items()},
    **{kind: partial(_logical, kind.lower()) for kind in ("And", "Or", "Xor")},
    "Sum": partial(_several, "add"),
    "Max": partial(_several, "maximum"),
    "Min": partial(_several, "minimum"),
    "Mean": _mean,
    "Pow": _pow,
    "Mod": _mod,
    "Tan": _tan,
    "IsInf": _is_inf,
    "Where": _where,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Clip": read_clip,
}
