"""Forms of functions of single numbers that are several of ours."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from models.ops import Compare, Unary
from pipeline.formats.torch.elementwise import scale_by, truncated, valued
from pipeline.formats.torch.writer import Value, held

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.formats.torch.calls import Call
    from pipeline.formats.torch.writer import Writer


def _do(w: Writer, kind: str, *values: Value | float) -> Value:
    """Write arithmetic of tensors and numbers."""
    return w.op(kind, w.fit([valued(value, "float32") for value in values]))


def _of(w: Writer, function: str, x: Value) -> Value:
    return w.op("unary", [x], Unary(function))


def _truncate(w: Writer, call: Call) -> Value:
    return truncated(w, call.first)


def _remainder(w: Writer, call: Call) -> Value:
    """Write fmod: the remainder of the sizes, with the sign of the first."""
    first, second = list(call.args.values())[:2]
    a, b = (w.cast(valued(value, call.dtype), call.dtype) for value in (first, second))
    rest = w.op("mod", w.fit([_of(w, "abs", a), _of(w, "abs", b)]))
    return w.op("mul", w.fit([rest, _of(w, "sign", a)]))


def _tangent(w: Writer, call: Call) -> Value:
    x = w.cast(call.first, call.dtype)
    return _do(w, "div", _of(w, "sin", x), _of(w, "cos", x))


def _of_powers(kind: str) -> Callable[[Writer, Call], Value]:
    """Make the form of (exp(x) ± exp(-x)) / 2."""

    def write(w: Writer, call: Call) -> Value:
        x = w.cast(call.first, call.dtype)
        both = _do(w, kind, _of(w, "exp", x), _of(w, "exp", _of(w, "neg", x)))
        return scale_by(w, both, 0.5)

    return write


def _inverse_sinh(w: Writer, call: Call) -> Value:
    x = w.cast(call.first, call.dtype)
    size = _of(w, "abs", x)
    root = _of(w, "sqrt", _do(w, "add", _of(w, "square", x), 1.0))
    return _do(w, "mul", _of(w, "sign", x), _of(w, "log", _do(w, "add", size, root)))


def _inverse_cosh(w: Writer, call: Call) -> Value:
    x = w.cast(call.first, call.dtype)
    root = _of(w, "sqrt", _do(w, "sub", _of(w, "square", x), 1.0))
    return _of(w, "log", _do(w, "add", x, root))


def _inverse_tanh(w: Writer, call: Call) -> Value:
    x = w.cast(call.first, call.dtype)
    share = _do(w, "div", _do(w, "add", x, 1.0), _do(w, "sub", 1.0, x))
    return scale_by(w, _of(w, "log", share), 0.5)


def _beside_erf(w: Writer, call: Call) -> Value:
    return _do(w, "sub", 1.0, _of(w, "erf", w.cast(call.first, call.dtype)))


def _is_nan(w: Writer, call: Call) -> Value:
    return w.op("compare", [call.first, call.first], Compare("notequal"))


def _is_infinite(w: Writer, call: Call) -> Value:
    size = _of(w, "abs", call.first)
    return w.op("compare", w.fit([size, held(torch.tensor(math.inf))]), Compare("equal"))


def _length(w: Writer, call: Call) -> Value:
    a, b = list(call.args.values())[:2]
    return _of(w, "sqrt", _do(w, "add", _of(w, "square", a), _of(w, "square", b)))


def _with_sign(w: Writer, call: Call) -> Value:
    x, other = list(call.args.values())[:2]
    size, zero = _of(w, "abs", w.cast(x, call.dtype)), held(torch.tensor(0.0))
    below = w.op("compare", w.fit([valued(other, "float32"), zero]), Compare("less"))
    return w.op("where", w.fit([below, _of(w, "neg", size), size]))


def _round(w: Writer, call: Call) -> Value:
    if call.dtype != "float32":
        return call.first
    scale = 10.0 ** (call["decimals"] or 0)
    return scale_by(w, _of(w, "round", scale_by(w, call.first, scale)), 1 / scale)


FORMS: Mapping[str, Callable[[Writer, Call], Any]] = {
    "trunc": _truncate,
    "fmod": _remainder,
    "round": _round,
    "tan": _tangent,
    "sinh": _of_powers("sub"),
    "cosh": _of_powers("add"),
    "asinh": _inverse_sinh,
    "acosh": _inverse_cosh,
    "atanh": _inverse_tanh,
    "erfc": _beside_erf,
    "isnan": _is_nan,
    "isinf": _is_infinite,
    "hypot": _length,
    "copysign": _with_sign,
}
"""Torch's name of an op -> what writes it."""
