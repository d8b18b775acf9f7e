"""Which ops TFLite computes with int8 codes: those of the others are real inside a file.

Such an op reads what codes mean and its result is quantised, which is what its codes mean
(`models.integer`). Only what kernels of every runtime know is here, with the scales that they fix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.formats.tflite.windows import counts_unevenly

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.graph import Op
    from models.quantization import Quantization
_L2_RANK = 4
_EXACT_L2_EPSILON = 1e-12
"""Kernels divide by the root of the sum of squares, and by 1e-6 where that is less."""

_ACTIVATIONS = (
    *("relu", "relu6", "hardswish", "silu", "sigmoid", "hardsigmoid", "tanh", "gelu", "gelu_tanh"),
)


def computes_codes(op: Op, quantization: Quantization) -> bool:
    """Tell whether an op whose tensors all have parameters is one of int8 kernels."""
    result = quantization.tensors.get(op.name)
    if _has_one_format(op):
        tensors = (*op.inputs, op.name) if op.rules.shares_scale else (op.inputs[0], op.name)
        if len({quantization.tensors[name] for name in tensors}) > 1:
            return False
    fixed = op.rules.fixed_scale.get(op.act)
    if fixed is not None and (result is None or (result.scale, result.zero_point) != fixed):
        return False
    return _KNOWN.get(op.kind, _never)(op)


def is_plain_l2norm(op: Op) -> bool:
    """Tell whether an op is L2_NORMALIZATION: over the last axis, and no larger epsilon."""
    shape, axis = op.in_shapes[0], op.attributes.axis
    known = len(shape) <= _L2_RANK and op.attributes.epsilon <= _EXACT_L2_EPSILON
    return known and axis == len(shape) - 1


def _has_one_format(op: Op) -> bool:
    """Tell whether kernels want one number format for what an op reads and gives."""
    if op.kind == "reduce":
        return op.attributes.function in ("max", "min")
    return op.rules.keeps_scale or op.rules.shares_scale


def _always(_: Op) -> bool:
    return True


def _never(_: Op) -> bool:
    return False


_KNOWN: Mapping[str, Callable[[Op], bool]] = {
    **dict.fromkeys(("conv", "depthwise", "deconv", "dense", "matmul"), _always),
    **dict.fromkeys(("add", "sub", "mul", "maximum", "minimum"), _always),
    **dict.fromkeys(("mean", "maxpool", "softmax", "logsoftmax", "prelu", "leakyrelu"), _always),
    **dict.fromkeys(("reshape", "transpose", "concat", "slice", "pad", "gather", "tile"), _always),
    **dict.fromkeys(("depthtospace", "spacetodepth", "resize"), _always),
    "act": lambda op: op.act in _ACTIVATIONS,
    "avgpool": lambda op: not counts_unevenly(op),
    "reduce": lambda op: op.attributes.function in ("mean", "sum", "max", "min"),
    "l2norm": is_plain_l2norm,
}
