"""Which rule a kind of op has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.layout.aligned import Aligned, Pointwise, Reduction
from models.layout.labels import Label, own_label
from models.layout.reshaping import Reshaping
from models.layout.rule import Choice, Rule
from models.ops import Matmul

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from models.graph import Op
    from models.ops import Conv


class Product(Rule):
    """Of a product of matrices. The choice is whether the output is stored turned.

    Either input may be stored turned: the op says so.
    """

    def __init__(self, op: Op) -> None:
        super().__init__(op)
        self.first = False
        self.turned = [_turned(own_label(shape)) for shape in op.in_shapes]

    def from_output(self, label: Label) -> Sequence[Choice]:
        """Return the choices of an order that the reader allows."""
        return (True,) if label == _turned(self.own) else (False,)

    def demand(self, place: int, choice: Choice, stored: Label | None) -> Label:
        """Return the label of an input for a choice."""
        return stored if stored == self.turned[place] else super().demand(place, choice, stored)

    def gives(self, choice: Choice) -> Label:
        """Return the label of the output for a choice."""
        return _turned(self.own) if choice else self.own

    def attributes(self, choice: Choice, labels: Sequence[Label]) -> Any:
        """Return the attributes for a choice."""
        product: Matmul = self.op.attributes
        a, b = (
            flag != (label == turned != own_label(shape))
            for flag, label, turned, shape in zip(
                (product.transpose_a, product.transpose_b),
                labels,
                self.turned,
                self.op.in_shapes,
                strict=True,
            )
        )
        return Matmul(not b, not a) if choice else Matmul(a, b)

    def sources(self, choice: Choice) -> Sequence[int]:
        """Return the places of the inputs, in the order in which they are read."""
        return (1, 0) if choice else (0, 1)


def _turned(label: Label) -> Label:
    return (*label[:-2], label[-1], label[-2])


def _of_gather(op: Op) -> Rule:
    return Aligned(op, aligned=1) if len(op.in_shapes[1]) == 1 else Rule(op)


def _of_conv(op: Op) -> Rule:
    conv: Conv = op.attributes
    single = op.pointwise and conv.stride == (1, 1) and not any(conv.padding)
    return Pointwise(op, tail=1, aligned=1) if single else Rule(op)


_ALIGNED = (
    *("add", "sub", "mul", "div", "maximum", "minimum", "pow", "mod", "floordiv", "compare"),
    *("logical", "where", "unary", "cast", "clip", "act", "leakyrelu", "elu", "prelu", "softmax"),
    *("logsoftmax", "l2norm", "concat", "slice", "pad", "tile"),
)

_RULES: Mapping[str, Callable[[Op], Rule]] = {
    **dict.fromkeys(_ALIGNED, Aligned),
    "reduce": Reduction,
    "argmax": Reduction,
    "reshape": Reshaping,
    "matmul": Product,
    "gather": _of_gather,
    "conv": _of_conv,
    "dense": lambda op: Aligned(op, tail=1, aligned=1),
    "batchnorm": lambda op: Aligned(op, tail=1, aligned=1),
    "layernorm": lambda op: Aligned(op, tail=op.attributes.axes_count, aligned=1),
}
"""A kind that is not here is computed as the source has it."""


def rule_of(op: Op) -> Rule:
    """Return the rule of an op that stands by itself."""
    return _RULES.get(op.kind, Rule)(op)
