"""Which ops TFLite computes with int8 codes: those of the others are real inside a file.

Such an op reads what codes mean and its result is quantised, which is what its codes mean
(`models.integer`). An op has codes only where kernels of every runtime know it, with the scales
that they fix.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from models.quantization import float_tensors
from pipeline.formats.tflite.windows import counts_unevenly

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.graph import Op
    from models.quantization import Quantization

_OF_EQUAL_CODES = ("where", "compare")
"""Kinds that do not compute: codes of one scale are chosen or compared as they are."""
_L2_RANK = 4
_EXACT_L2_EPSILON = 1e-12
"""Kernels divide by the root of the sum of squares, and by 1e-6 where that is less."""


def computes_codes(op: Op, quantization: Quantization) -> bool:
    """Tell whether an op whose tensors all have parameters is one of int8 kernels."""
    rules, result = op.rules, quantization.tensors.get(op.name)
    formats = [quantization.tensors[name] for name in float_tensors(op)]
    if op.kind in _OF_EQUAL_CODES:
        return len(set(formats)) == 1
    if is_rescaling(op):
        return True
    own = _OWN_RULES.get(op.kind)
    if not rules.integer(op) or (own is not None and not own(op)):
        return False
    if rules.shares_scale and len(set(formats)) > 1:
        return False
    if (rules.keeps_scale or rules.keeps_scale_of(op)) and result != formats[0]:
        return False
    fixed = rules.fixed_scale.get(op.act)
    return fixed is None or (result is not None and (result.scale, result.zero_point) == fixed)


def is_rescaling(op: Op) -> bool:
    """Tell whether an op changes no value: between codes it puts them on another scale."""
    return op.kind == "clip" and (op.attributes.low, op.attributes.high) == (-inf, inf)


def is_plain_l2norm(op: Op) -> bool:
    """Tell whether an op is L2_NORMALIZATION: over the last axis, and no larger epsilon."""
    shape, axis = op.in_shapes[0], op.attributes.axis
    known = len(shape) <= _L2_RANK and op.attributes.epsilon <= _EXACT_L2_EPSILON
    return known and axis == len(shape) - 1


_OWN_RULES: Mapping[str, Callable[[Op], bool]] = {
    "avgpool": lambda op: not counts_unevenly(op),
    "l2norm": is_plain_l2norm,
}
