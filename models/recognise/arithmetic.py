"""How a tensor was made, as sums and products."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.graph import Op
    from models.model import Model

_CLOSE = 2e-3
"""Relative: constants of files are written with few digits (0.7071, 0.0447)."""


class Arithmetic:
    """Looks from an op back at how its inputs were made."""

    def __init__(self, model: Model) -> None:
        self.weights = dict(model.weights)
        self.made = {op.name: op for op in model.graph.ops}

    def op(self, name: str, kind: str, act: str = "") -> Op | None:
        """Return the op that makes a tensor if it is of a kind."""
        found = self.made.get(name)
        if found is None or found.kind != kind or (kind != "act" and found.act != "none"):
            return None
        return found if not act or found.act == act else None

    def unary(self, name: str, function: str) -> str | None:
        """Return what a tensor is this function of."""
        found = self.op(name, "unary")
        if found is None or found.attributes.function != function:
            return None
        return found.inputs[0]

    def act(self, name: str, act: str) -> str | None:
        """Return what a tensor is this activation of."""
        found = self.op(name, "act", act)
        return None if found is None else found.inputs[0]

    def number(self, name: str) -> float | None:
        """Return a constant of one value."""
        held = self.weights.get(name)
        if held is None or name in self.made or held[0].size != 1:
            return None
        return float(held[0].item())

    def product(self, name: str) -> tuple[float, list[str]]:
        """Return a tensor as a number times tensors."""
        for kind in ("mul", "div"):
            op = self.op(name, kind)
            if op is None:
                continue
            a, b = op.inputs
            if (by := self.number(b)) is not None and (kind == "mul" or by != 0):
                factor, factors = self.product(a)
                return factor * (by if kind == "mul" else 1 / by), factors
            if kind == "mul" and (by := self.number(a)) is not None:
                factor, factors = self.product(b)
                return factor * by, factors
            if kind == "mul":
                (first, left), (second, right) = self.product(a), self.product(b)
                return first * second, [*left, *right]
        return 1.0, [name]

    def moved(self, name: str, by: float) -> str | None:
        """Return what a tensor is, plus this number."""
        op = self.op(name, "add")
        if op is None:
            return None
        for here, other in (op.inputs, op.inputs[::-1]):
            found = self.number(other)
            if found is not None and near(found, by):
                return here
        return None

    def times(self, name: str, by: float) -> str | None:
        """Return the one tensor that a tensor is this number times of."""
        factor, factors = self.product(name)
        return factors[0] if len(factors) == 1 and near(factor, by) else None

    def square_of(self, name: str) -> str | None:
        """Return what a tensor is the square of."""
        if (found := self.unary(name, "square")) is not None:
            return found
        op = self.op(name, "mul")
        return op.inputs[0] if op is not None and op.inputs[0] == op.inputs[1] else None

    def cube_of(self, name: str) -> str | None:
        """Return what a tensor is the third power of."""
        power = self.op(name, "pow")
        if power is not None and self.number(power.inputs[1]) == 3:
            return power.inputs[0]
        op = self.op(name, "mul")
        if op is not None:
            for a, b in (op.inputs, op.inputs[::-1]):
                if self.square_of(a) == b:
                    return b
        return None


def near(a: float, b: float) -> bool:
    """Tell whether two numbers mean the same."""
    return abs(a - b) <= _CLOSE * abs(b)
