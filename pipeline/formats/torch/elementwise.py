"""Forms of torch's element-wise ops: arithmetic, comparisons, activations."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from models.ops import Compare, Logical, Unary
from pipeline.formats.torch.writer import Unsaid, Value, held

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.formats.torch.calls import Call
    from pipeline.formats.torch.writer import Writer


def valued(value: Any, like: str) -> Value:
    """Return a number as a constant, of the type `like` where it can be."""
    if isinstance(value, Value):
        return value
    whole = like in ("int32", "int64") and isinstance(value, int)
    dtype = {"int32": torch.int32, "int64": torch.int64}[like] if whole else None
    if isinstance(value, bool):
        dtype = torch.bool
    return held(torch.tensor(value, dtype=dtype))


def scale_by(w: Writer, x: Value, factor: float) -> Value:
    """Return x * factor."""
    if factor == 1:
        return x
    if x.constant is not None:
        return held(x.constant * factor)
    factor = float(factor) if x.dtype == "float32" else factor
    return w.op("mul", w.fit([x, valued(factor, x.dtype)]))


_OF_TRUTH = {"add": "or", "mul": "and", "maximum": "or", "minimum": "and"}
"""Arithmetic -> what it is of truth values."""


def _binary(kind: str, attributes: Any = None) -> Callable[[Writer, Call], Value]:
    """Make the form of an op of two tensors, or of one and a number, with torch's promotion."""

    def write(w: Writer, call: Call) -> Value:
        first, second = _operands(call)
        if call.dtype == "bool" and kind in _OF_TRUTH:
            return _logical(_OF_TRUTH[kind])(w, call)
        second = scale_by(w, second, call.args.get("alpha", 1))
        if call.masks and kind == "add":
            first, second = bounded(first), bounded(second)
        return w.op(kind, w.fit([w.cast(x, call.dtype) for x in (first, second)]), attributes)

    return write


def _of_numbers(kind: str) -> Callable[[Writer, Call], Value]:
    """Make the form of an extreme of two tensors that is the other one where one is no number."""

    def write(w: Writer, call: Call) -> Value:
        a, b = w.fit([w.cast(x, call.dtype) for x in _operands(call)])
        found = w.op(kind, [a, b])
        for x, other in ((a, b), (b, a)):
            found = w.op("where", [w.op("compare", [x, x], Compare("notequal")), other, found])
        return found

    return write


def _operands(call: Call) -> tuple[Value, Value]:
    """Return the first two arguments; a number has the type of the tensor beside it."""
    first, second = list(call.args.values())[:2]
    like = (first if isinstance(first, Value) else second).dtype
    return valued(first, like), valued(second, like)


def _subtract_from(w: Writer, call: Call) -> Value:
    first, second = _operands(call)
    values = (second, scale_by(w, first, call["alpha"]))
    return w.op("sub", w.fit([w.cast(x, call.dtype) for x in values]))


def _divide(w: Writer, call: Call) -> Value:
    rounding = call.args.get("rounding_mode")
    if rounding is None:
        return _binary("div")(w, call)
    if rounding == "floor":
        return _binary("floordiv")(w, call)
    if call.dtype.startswith("int"):
        return _binary("div")(w, call)
    quotients = w.op("div", w.fit([w.cast(x, call.dtype) for x in _operands(call)]))
    return truncated(w, quotients)


def truncated(w: Writer, x: Value) -> Value:
    """Return numbers without what is behind the point."""
    if x.dtype != "float32":
        return x
    size = w.op("unary", [w.op("unary", [x], Unary("abs"))], Unary("floor"))
    return w.op("mul", [w.op("unary", [x], Unary("sign")), size])


def _power(w: Writer, call: Call) -> Value:
    base, exponent = call.args.values()
    functions: dict[Any, str] = {2: "square", 0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}
    if isinstance(exponent, Value) and exponent.constant is not None and not exponent.shape:
        exponent = exponent.constant.item()
    if exponent in functions and isinstance(base, Value):
        return w.op("unary", [w.cast(base, call.dtype)], Unary(functions[exponent]))
    if exponent == 1 and isinstance(base, Value):
        return base
    return _binary("pow")(w, call)


def _compare(function: str) -> Callable[[Writer, Call], Value]:
    def write(w: Writer, call: Call) -> Value:
        values = _operands(call)
        return w.op("compare", w.fit(promoted(w, values)), Compare(function))

    return write


def promoted(w: Writer, values: tuple[Value, ...]) -> list[Value]:
    """Return tensors in the one type that torch would compute with."""
    order = ("bool", "int8", "uint8", "int32", "int64", "float32")
    # A number beside a tensor of integers stays an integer; only a float makes floats.
    wanted = max((value.dtype for value in values), key=order.index)
    wanted = "int32" if wanted in ("bool", "int8", "uint8") else wanted
    return [w.cast(value, wanted) for value in values]


def _logical(function: str) -> Callable[[Writer, Call], Value]:
    def write(w: Writer, call: Call) -> Value:
        values = [truth(w, value) for value in _operands(call)]
        return w.op("logical", w.fit(values), Logical(function))

    return write


def truth(w: Writer, value: Value) -> Value:
    """Return which values are not 0."""
    if value.dtype == "bool":
        return value
    zero = valued(0 if value.dtype.startswith("int") else 0.0, value.dtype)
    return w.op("compare", w.fit([value, zero]), Compare("notequal"))


def _not(w: Writer, call: Call) -> Value:
    return w.op("unary", [truth(w, call.first)], Unary("not"))


def _of_bits(form: Callable[[Writer, Call], Value]) -> Callable[[Writer, Call], Value]:
    """Make the form of an op of bits, which is known of truth values alone."""

    def write(w: Writer, call: Call) -> Value:
        if call.dtype != "bool":
            raise Unsaid("it computes with the bits of integers")
        return form(w, call)

    return write


def _where(w: Writer, call: Call) -> Value:
    condition, *choices = call.args.values()
    values = [w.cast(valued(value, call.dtype), call.dtype) for value in choices]
    if call.masks:
        values = [bounded(value) for value in values]
    return w.op("where", w.fit([truth(w, condition), *values]))


MASKED = -1e9
"""What scores are that a softmax must not see: finite, for any runtime to take it."""


def bounded(value: Value) -> Value:
    """Return a constant of a mask that is finite, and any other value as it is."""
    if value.constant is None or not value.constant.is_floating_point():
        return value
    return replace(value, constant=value.constant.clamp(min=MASKED))


def _unary(function: str) -> Callable[[Writer, Call], Value]:
    def write(w: Writer, call: Call) -> Value:
        return w.op("unary", [w.cast(call.first, call.dtype)], Unary(function))

    return write


def _after(function: str, before: float = 1.0, plus: float = 0.0, after: float = 1.0) -> Any:
    """Make the form of function(x * before + plus) * after."""

    def write(w: Writer, call: Call) -> Value:
        x = scale_by(w, w.cast(call.first, call.dtype), before)
        if plus:
            x = w.op("add", w.fit([x, held(torch.tensor(plus))]))
        return scale_by(w, w.op("unary", [x], Unary(function)), after)

    return write


def _expm1(w: Writer, call: Call) -> Value:
    powers = w.op("unary", [call.first], Unary("exp"))
    return w.op("sub", w.fit([powers, held(torch.tensor(1.0))]))


FORMS: Mapping[str, Callable[[Writer, Call], Any]] = {
    "add": _binary("add"),
    "sub": _binary("sub"),
    "rsub": _subtract_from,
    "mul": _binary("mul"),
    "div": _divide,
    "floor_divide": _binary("floordiv"),
    "remainder": _binary("mod"),
    "pow": _power,
    "maximum": _binary("maximum"),
    "minimum": _binary("minimum"),
    "fmax": _of_numbers("maximum"),
    "fmin": _of_numbers("minimum"),
    "eq": _compare("equal"),
    "ne": _compare("notequal"),
    "lt": _compare("less"),
    "le": _compare("lessequal"),
    "gt": _compare("greater"),
    "ge": _compare("greaterequal"),
    "logical_and": _logical("and"),
    "logical_or": _logical("or"),
    "logical_xor": _logical("xor"),
    "logical_not": _not,
    "bitwise_and": _of_bits(_logical("and")),
    "bitwise_or": _of_bits(_logical("or")),
    "bitwise_xor": _of_bits(_logical("xor")),
    "bitwise_not": _of_bits(_not),
    "where": _where,
    **{
        name: _unary(name)
        for name in (
            *("abs", "neg", "exp", "log", "sqrt", "rsqrt", "square", "reciprocal"),
            *("sin", "cos", "floor", "ceil", "sign", "erf"),
        )
    },
    "sgn": _unary("sign"),
    "exp2": _after("exp", before=math.log(2)),
    "log2": _after("log", after=1 / math.log(2)),
    "log10": _after("log", after=1 / math.log(10)),
    "log1p": _after("log", plus=1.0),
    "expm1": _expm1,
}
"""Torch's name of an op -> what writes it."""
