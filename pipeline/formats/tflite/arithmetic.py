"""How TFLite says arithmetic, comparisons, functions of one tensor and products of matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert.schema_py_generated import ActivationFunctionType, BuiltinOperator

from pipeline.formats.tflite import versions
from pipeline.formats.tflite.broadcasting import finish_broadcast
from pipeline.formats.tflite.integer_kernels import is_rescaling
from pipeline.formats.tflite.layers import dense_by_constant
from pipeline.formats.tflite.moving import transpose
from pipeline.formats.tflite.windows import fused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.ops import Clip, Matmul, Shape
    from pipeline.formats.tflite.step import Step

_NO_ACTIVATION = (("FusedActivationFunction", ActivationFunctionType.NONE),)

_FUSING = {
    "add": (BuiltinOperator.ADD, "Add"),
    "sub": (BuiltinOperator.SUB, "Sub"),
    "mul": (BuiltinOperator.MUL, "Mul"),
    "div": (BuiltinOperator.DIV, "Div"),
}
_PLAIN = {
    "maximum": BuiltinOperator.MAXIMUM,
    "minimum": BuiltinOperator.MINIMUM,
    "pow": BuiltinOperator.POW,
    "mod": BuiltinOperator.FLOOR_MOD,
    "floordiv": BuiltinOperator.FLOOR_DIV,
    "where": BuiltinOperator.SELECT_V2,
}
_COMPARISONS = {
    "equal": BuiltinOperator.EQUAL,
    "notequal": BuiltinOperator.NOT_EQUAL,
    "less": BuiltinOperator.LESS,
    "lessequal": BuiltinOperator.LESS_EQUAL,
    "greater": BuiltinOperator.GREATER,
    "greaterequal": BuiltinOperator.GREATER_EQUAL,
}
_LOGICAL = {
    "and": BuiltinOperator.LOGICAL_AND,
    "or": BuiltinOperator.LOGICAL_OR,
    "xor": BuiltinOperator.NOT_EQUAL,  # of truth values, which is the same
}
_FUNCTIONS = {
    "abs": BuiltinOperator.ABS,
    "neg": BuiltinOperator.NEG,
    "exp": BuiltinOperator.EXP,
    "log": BuiltinOperator.LOG,
    "sqrt": BuiltinOperator.SQRT,
    "rsqrt": BuiltinOperator.RSQRT,
    "sin": BuiltinOperator.SIN,
    "cos": BuiltinOperator.COS,
    "floor": BuiltinOperator.FLOOR,
    "ceil": BuiltinOperator.CEIL,
    "round": BuiltinOperator.ROUND,
    "sign": BuiltinOperator.SIGN,
    "not": BuiltinOperator.LOGICAL_NOT,
}


def _fusing(step: Step) -> None:
    code, options = _FUSING[step.op.kind]
    _check_numbers(step)
    if step.op.name in step.writer.differences.values():
        return  # a part of the op that squares it
    if step.op.name in step.writer.differences:
        difference = step.writer.graph[step.writer.differences[step.op.name]]
        read = [step.writer.read(difference, place, codes=False) for place in range(2)]
        finish_broadcast(step, BuiltinOperator.SQUARED_DIFFERENCE, read)
        return
    version = versions.RESCALING_MUL if step.op.kind == "mul" and _rescales(step) else 0
    params, fields = step.params(step.op.name), fused(step)
    if step.op.kind in ("add", "sub") and params is not None and params.dtype == "int16":
        fields = (*fields, ("PotScaleInt16", 0))  # scales that are no powers of two
    finish_broadcast(step, code, step.inputs(), (options, fields), version=version)


def _rescales(step: Step) -> bool:
    """Tell whether a product of codes is larger than its output's scale."""
    if not step.integer:
        return False
    first, second, result = (
        step.writer.params(name).scale for name in (*step.op.inputs, step.op.name)
    )
    return first * second / result >= 1


def _plain(step: Step) -> None:
    _check_numbers(step)
    finish_broadcast(step, _PLAIN[step.op.kind], step.inputs())


_POWERS = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}


def _pow(step: Step) -> None:
    """Emit a power; POW only of exponents that no delegated operator stands for."""
    exponent, function = step.value(1), None
    same = step.op.in_shapes[0] == step.op.out_shape and step.op.in_dtypes[0] == "float32"
    if exponent is not None and same and np.ptp(exponent) == 0:
        function = _POWERS.get(float(exponent.flat[0]))
    if function is None:
        _plain(step)
    else:
        _emit_function(step, function, step.input(0))


def _compare(step: Step) -> None:
    function = step.op.attributes.function
    if step.op.in_dtypes[0] == "bool" and function not in ("equal", "notequal"):
        raise step.refuse(f"is {function!r} of bool")
    finish_broadcast(step, _COMPARISONS[function], step.inputs())


def _logical(step: Step) -> None:
    finish_broadcast(step, _LOGICAL[step.op.attributes.function], step.inputs())


_ONLY = {
    "div": ("float32", "int32"),
    "pow": ("float32", "int32"),
    "floordiv": ("float32", "int32"),
    "abs": ("float32", "int32"),
    "sign": ("float32", "int32"),
}
"""Kind or function -> the types that its kernel knows, where those are not all numbers."""


def _check_numbers(step: Step) -> None:
    """Refuse a type of numbers that an operator's kernel does not know."""
    what, dtype = step.op.kind, step.op.in_dtypes[-1]
    what = step.op.attributes.function if what == "unary" else what
    if dtype not in _ONLY.get(what, (dtype,)):
        raise step.refuse(f"is {what!r} of {dtype}")


def _unary(step: Step) -> None:
    _check_numbers(step)
    _emit_function(step, step.op.attributes.function, step.input(0))


def _emit_function(step: Step, function: str, x: int) -> None:
    if function in _FUNCTIONS:
        step.finish(_FUNCTIONS[function], [x])
    elif function == "square":
        step.finish(BuiltinOperator.MUL, [x, x], ("Mul", _NO_ACTIVATION))
    elif function == "reciprocal":
        step.finish(BuiltinOperator.DIV, [step.number(1), x], ("Div", _NO_ACTIVATION))
    else:
        _erf(step, x)


def _erf(step: Step, x: int) -> None:
    """Emit erf(x) = 2 gelu(z) / z - 1 with z = x * sqrt(2): TFLite has no operator of its own.

    What is added to z is lost in any but 0, of which gelu(z) / z would be none.
    """
    shape = step.op.out_shape
    mul, add = ("Mul", _NO_ACTIVATION), ("Add", _NO_ACTIVATION)
    z = step.apply(BuiltinOperator.MUL, [x, step.number(2**0.5)], "scaled", shape, mul)
    z = step.apply(BuiltinOperator.ADD, [z, step.number(1e-20)], "nonzero", shape, add)
    gelu = step.apply(BuiltinOperator.GELU, [z], "gelu", shape, ("Gelu", ()))
    share = step.apply(BuiltinOperator.DIV, [gelu, z], "share", shape, ("Div", _NO_ACTIVATION))
    double = step.apply(BuiltinOperator.MUL, [share, step.number(2)], "double", shape, mul)
    step.finish(BuiltinOperator.ADD, [double, step.number(-1)], add)


def _cast(step: Step) -> None:
    step.finish(BuiltinOperator.CAST, step.inputs())


_RANGES = {
    (0.0, np.inf): BuiltinOperator.RELU,
    (0.0, 6.0): BuiltinOperator.RELU6,
    (-1.0, 1.0): BuiltinOperator.RELU_N1_TO_1,
}


def _clip(step: Step) -> None:
    clip: Clip = step.op.attributes
    code = _RANGES.get((clip.low, clip.high))
    (x,) = step.inputs()
    if is_rescaling(step.op):
        if step.integer:
            step.finish(BuiltinOperator.QUANTIZE, [x], ("Quantize", ()))
        else:
            step.finish(BuiltinOperator.RESHAPE, [x, step.ints(step.op.out_shape)])
    elif code is not None:
        step.finish(code, [x])
    elif clip.low == -np.inf:
        step.finish(BuiltinOperator.MINIMUM, [x, step.number(clip.high)])
    elif clip.high == np.inf:
        step.finish(BuiltinOperator.MAXIMUM, [x, step.number(clip.low)])
    else:
        # In this order the upper limit wins where they cross, as it does in the reference.
        limits = [x, step.number(clip.low)]
        x = step.apply(BuiltinOperator.MAXIMUM, limits, "low", step.op.out_shape)
        step.finish(BuiltinOperator.MINIMUM, [x, step.number(clip.high)])


_MATMUL_AXES = 5


def _matmul(step: Step) -> None:
    matmul: Matmul = step.op.attributes
    shape, second = step.op.in_shapes
    if max(len(shape), len(second)) > _MATMUL_AXES:
        raise step.refuse(f"multiplies {shape} by {second}, with more than {_MATMUL_AXES} axes")
    if matmul.transpose_a and shape[:-2] != second[:-2]:
        # tflite-runtime 2.14 computes something else where it turns and broadcasts at once.
        _matmul_of_turned(step, shape)
        return
    matrix = None if step.integer or matmul.transpose_a else step.value(1)
    if matrix is not None and matrix.size == second[-1] * second[-2]:
        matrix = matrix.reshape(second[-2:])
        dense_by_constant(step, matrix if matmul.transpose_b else matrix.T)
        return
    fields = (("AdjX", int(matmul.transpose_a)), ("AdjY", int(matmul.transpose_b)))
    step.finish(BuiltinOperator.BATCH_MATMUL, step.inputs(), ("BatchMatMul", fields))


def _matmul_of_turned(step: Step, shape: Shape) -> None:
    (first, second), axes = step.inputs(), list(range(len(shape) - 2))
    turned = step.temporary("turned", (*shape[:-2], shape[-1], shape[-2]), like=first)
    transpose(step, first, [*axes, len(shape) - 1, len(shape) - 2], turned)
    fields = (("AdjX", 0), ("AdjY", int(step.op.attributes.transpose_b)))
    step.finish(BuiltinOperator.BATCH_MATMUL, [turned, second], ("BatchMatMul", fields))


ARITHMETIC: Mapping[str, Callable[[Step], None]] = {
    **dict.fromkeys(_FUSING, _fusing),
    **dict.fromkeys(_PLAIN, _plain),
    "pow": _pow,
    "compare": _compare,
    "logical": _logical,
    "unary": _unary,
    "cast": _cast,
    "clip": _clip,
    "matmul": _matmul,
}
