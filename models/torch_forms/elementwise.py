"""Forms of element-wise ops, reductions and products of matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from models.torch_forms.axes import in_graph_order

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.graph import Op
    from models.torch_forms.axes import Form

_COMPARISONS: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "equal": torch.eq,
    "notequal": torch.ne,
    "less": torch.lt,
    "lessequal": torch.le,
    "greater": torch.gt,
    "greaterequal": torch.ge,
}

_LOGICAL: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "and": torch.logical_and,
    "or": torch.logical_or,
    "xor": torch.logical_xor,
}

_FUNCTIONS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = {
    **{
        name: getattr(torch, name)
        for name in (
            *("abs", "neg", "exp", "log", "sqrt", "rsqrt", "square", "reciprocal"),
            *("sin", "cos", "floor", "ceil", "round", "sign", "erf"),
        )
    },
    "not": torch.logical_not,
}


def _divide(_: Op, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Divide; integers towards zero, and by 0 to 0."""
    if a.is_floating_point():
        return a / b
    none = b == 0
    return torch.div(a, b.masked_fill(none, 1), rounding_mode="trunc").masked_fill(none, 0)


def _matmul(op: Op, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    if op.attributes.transpose_a:
        a = a.transpose(-1, -2)
    if op.attributes.transpose_b:
        b = b.transpose(-1, -2)
    return a @ b


def _reduce(op: Op, x: torch.Tensor) -> torch.Tensor:
    function, axes, keepdim = op.attributes.function, op.attributes.axes, op.attributes.keepdims
    if function in ("any", "all", "prod"):
        # One axis at a time, from the last one on, so that the others keep their numbers.
        for axis in sorted(axes, reverse=True):
            x = getattr(torch, function)(x, axis, keepdim=keepdim)
        return x
    if not axes:
        return x
    reduce = {"max": torch.amax, "min": torch.amin}.get(function) or getattr(torch, function)
    result: torch.Tensor = reduce(x, axes, keepdim=keepdim)
    return result if result.dtype == x.dtype else result.to(x.dtype)


FORMS: Mapping[str, Form] = {
    "add": lambda _, x, y: x + y,
    "sub": lambda _, x, y: x - y,
    "mul": lambda _, x, y: x * y,
    "div": _divide,
    "maximum": lambda _, x, y: torch.maximum(x, y),
    "minimum": lambda _, x, y: torch.minimum(x, y),
    "pow": lambda _, x, y: torch.pow(x, y),
    "compare": lambda op, x, y: _COMPARISONS[op.attributes.function](x, y),
    "logical": lambda op, x, y: _LOGICAL[op.attributes.function](x, y),
    "where": lambda _, condition, x, y: torch.where(condition, x, y),
    "unary": lambda op, x: _FUNCTIONS[op.attributes.function](x),
    "cast": lambda op, x: x.to(getattr(torch, op.attributes.dtype)),
    "clip": lambda op, x: x.clamp(op.attributes.low, op.attributes.high),
    "matmul": in_graph_order(_matmul),
    "reduce": in_graph_order(_reduce),
    "act": lambda _, x: x,
    "leakyrelu": lambda op, x: functional.leaky_relu(x, op.attributes.alpha),
    "elu": lambda op, x: functional.elu(x, op.attributes.alpha),
    "prelu": lambda _, x, slope: torch.where(x >= 0, x, x * slope),
    "softmax": in_graph_order(lambda op, x: x.softmax(op.attributes.axis)),
    "logsoftmax": in_graph_order(lambda op, x: x.log_softmax(op.attributes.axis)),
}
"""Kind -> what torch does for it; see `models.torch_forms`."""
