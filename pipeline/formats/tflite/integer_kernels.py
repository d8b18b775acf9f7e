"""Which ops TFLite computes with codes: those of the others are real inside a file.

Such an op reads what codes mean and its result is quantised, which is what its codes mean
(`models.integer`). An op has codes only where kernels of every runtime know it, with the scales
that they fix.
"""

from __future__ import annotations

from math import inf, prod
from typing import TYPE_CHECKING

from models.ops import FLOAT
from models.quantization import float_tensors
from pipeline.formats.tflite.windows import counts_unevenly

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from models.codes import QParams
    from models.graph import Op
    from models.quantization import Quantization

_OF_EQUAL_CODES = ("where", "compare")
"""Kinds that do not compute: codes of one scale are chosen or compared as they are."""
_SLOW_AS_CODES = ("prelu", "softmax", "avgpool")
_SLOW_ACTIVATIONS = ("relu", "relu6", "gelu", "gelu_tanh")
_LARGE = 4096
_OF_INT8_ONLY = ("argmax", "prelu", "logsoftmax", "l2norm", "depthtospace", "spacetodepth")
_WIDE_UNIT = 2.0**-15
"""The scale of int16 outputs where kernels fix it."""
_L2_RANK = 4
_EXACT_L2_EPSILON = 1e-12
"""Kernels divide by the root of the sum of squares, and by 1e-6 where that is less."""


def computes_codes(op: Op, quantization: Quantization) -> bool:
    """Tell whether an op whose tensors all have parameters is one of integer kernels."""
    formats = [quantization.tensors[name] for name in float_tensors(op)]
    if any(params.dtype == "int16" for params in formats) and not _knows_int16(op):
        return False
    if op.kind in _OF_EQUAL_CODES:
        return len(set(formats)) == 1
    if _is_faster_in_real_numbers(op):
        return False
    own = _OWN_RULES.get(op.kind)
    known = op.rules.integer(op) if own is None else own(op)
    return known and _has_fitting_formats(op, formats)


def _has_fitting_formats(op: Op, formats: Sequence[QParams]) -> bool:
    """Tell whether a kernel takes these parameters of all that an op of codes reads and gives."""
    result, fixed = formats[-1], op.rules.fixed_scale.get(op.act)
    if op.rules.shares_scale and len(set(formats)) > 1:
        return False
    if op.keeps_scale and op.out_dtype == FLOAT and result != formats[0]:
        return False
    if fixed is None:
        return True
    wide = result.dtype == "int16"
    return (result.scale, result.zero_point) == ((_WIDE_UNIT, 0) if wide else fixed)


def _is_faster_in_real_numbers(op: Op) -> bool:
    """Tell whether an op's own kernel is slower than XNNPACK's with a conversion on each side.

    XNNPACK has none for codes of these. With LiteRT 2.3 on x86, maps of 56x56x64, milliseconds:
    relu6 1.73 against 0.19, PReLU 1.52 and 0.22, an average pool 1.01 and 0.25, softmax 0.58 and
    0.28, GELU 0.23 and 0.19, the convolutions around them included. Small tensors are left to one
    operator.
    """
    slow = op.act in _SLOW_ACTIVATIONS if op.kind == "act" else op.kind in _SLOW_AS_CODES
    return slow and prod(op.out_shape) >= _LARGE


def _knows_int16(op: Op) -> bool:
    """Tell whether kernels of int8 codes know int16 ones, and compute the same with them."""
    if op.kind == "act":
        return op.act in ("relu", "relu6", "sigmoid", "tanh")
    bilinear = op.kind == "resize" and op.attributes.mode == "bilinear"
    return not bilinear and op.kind not in _OF_INT8_ONLY


def is_rescaling(op: Op) -> bool:
    """Tell whether an op changes no value: between codes it puts them on another scale."""
    return op.kind == "clip" and (op.attributes.low, op.attributes.high) == (-inf, inf)


def is_plain_l2norm(op: Op) -> bool:
    """Tell whether an op is L2_NORMALIZATION: over the last axis, and no larger epsilon."""
    shape, axis = op.in_shapes[0], op.attributes.axis
    known = len(shape) <= _L2_RANK and op.attributes.epsilon <= _EXACT_L2_EPSILON
    return known and axis == len(shape) - 1


_OWN_RULES: Mapping[str, Callable[[Op], bool]] = {
    "clip": is_rescaling,
    "avgpool": lambda op: not counts_unevenly(op),
    "l2norm": is_plain_l2norm,
}
