"""Activations: x times a gate that is made of x."""

from __future__ import annotations

from math import pi, sqrt
from typing import TYPE_CHECKING

from models.graph import Op
from models.recognise.arithmetic import Arithmetic, near

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def activation(at: Arithmetic, op: Op) -> Sequence[Op] | None:
    """Find x times a gate that is made of x."""
    factor, factors = at.product(op.name)
    if op.act != "none" or len(factors) not in (1, 2):
        return None
    if len(factors) == 1:
        x = _six(at, factors[0])
        return _act(op, at, x, "hardsigmoid") if x is not None and near(factor, 1 / 6) else None
    for x, gate in (factors, factors[::-1]):
        for act, wanted, look in _GATES:
            if near(factor, wanted) and look(at, gate) == x:
                return _act(op, at, x, act)
    return None


def _act(op: Op, at: Arithmetic, x: str, act: str) -> Sequence[Op] | None:
    made = at.made.get(x)
    shape = op.out_shape if made is None else made.out_shape
    if shape != op.out_shape:
        return None
    return (Op("act", op.name, (x,), (shape,), act=act, block=op.block),)


def _six(at: Arithmetic, gate: str) -> str | None:
    """Return x of clip(x + 3, 0, 6)."""
    inner = at.act(gate, "relu6")
    return None if inner is None else at.moved(inner, 3.0)


def _mish_gate(at: Arithmetic, gate: str) -> str | None:
    inner = at.act(gate, "tanh")
    return None if inner is None else at.act(inner, "softplus")


def _erf_gate(at: Arithmetic, gate: str) -> str | None:
    """Return x of 1 + erf(x / sqrt(2))."""
    inner = at.moved(gate, 1.0)
    inside = None if inner is None else at.unary(inner, "erf")
    return None if inside is None else at.times(inside, sqrt(0.5))


def _tanh_gate(at: Arithmetic, gate: str) -> str | None:
    """Return x of 1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))."""
    inner = at.moved(gate, 1.0)
    inside = None if inner is None else at.act(inner, "tanh")
    total = None if inside is None else at.times(inside, sqrt(2 / pi))
    op = None if total is None else at.op(total, "add")
    if op is None:
        return None
    for x, rest in (op.inputs, op.inputs[::-1]):
        cube = at.times(rest, 0.044715)
        if cube is not None and at.cube_of(cube) == x:
            return x
        factor, factors = at.product(rest)
        if near(factor, 0.044715) and factors == [x, x, x]:
            return x
    return None


_GATES: Sequence[tuple[str, float, Callable[[Arithmetic, str], str | None]]] = (
    ("silu", 1.0, lambda at, gate: at.act(gate, "sigmoid")),
    ("hardswish", 1.0, lambda at, gate: at.act(gate, "hardsigmoid")),
    ("hardswish", 1 / 6, _six),
    ("mish", 1.0, _mish_gate),
    ("gelu", 0.5, _erf_gate),
    ("gelu_tanh", 0.5, _tanh_gate),
)
"""Activation, the number beside the product, and how the gate shows its x."""
