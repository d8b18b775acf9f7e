"""How ONNX says element-wise arithmetic, comparisons and functions of one tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import helper

from models.ops import Clip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.graph import Op
    from models.ops import Cast, Compare, Logical, Unary
    from pipeline.formats.onnx.places import Made, Place
    from pipeline.formats.onnx.write import Writer

    Emitter = Callable[[Writer, Op], Made | Place]

_BINARY = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "maximum": "Max",
    "minimum": "Min",
    "pow": "Pow",
    "where": "Where",
}
_COMPARISONS = {
    "equal": "Equal",
    "notequal": "Equal",
    "less": "Less",
    "lessequal": "LessOrEqual",
    "greater": "Greater",
    "greaterequal": "GreaterOrEqual",
}
_LOGICAL = {"and": "And", "or": "Or", "xor": "Xor"}
_UNARY = {
    "abs": "Abs",
    "neg": "Neg",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "reciprocal": "Reciprocal",
    "sin": "Sin",
    "cos": "Cos",
    "floor": "Floor",
    "ceil": "Ceil",
    "round": "Round",
    "sign": "Sign",
    "erf": "Erf",
    "not": "Not",
}


def _elementwise(kind: str) -> Emitter:
    def emit(writer: Writer, op: Op) -> Made:
        axes = writer.common_axes(op)
        value = writer.file.node(kind, writer.operands(op, axes), op.name)
        return writer.aligned(op, value, axes)

    return emit


def _mod(writer: Writer, op: Op) -> Made:
    axes, file = writer.common_axes(op), writer.file
    a, b = writer.operands(op, axes)
    if op.out_dtype != "float32":
        return writer.aligned(op, file.node("Mod", [a, b], op.name), axes)
    # ONNX's remainder of real numbers has the sign of the first, ours that of the second.
    quotient = file.node("Floor", [file.node("Div", [a, b], f"{op.name}.div")], f"{op.name}.floor")
    whole = file.node("Mul", [quotient, b], f"{op.name}.whole")
    return writer.aligned(op, file.node("Sub", [a, whole], op.name), axes)


def _floordiv(writer: Writer, op: Op) -> Made:
    axes, file = writer.common_axes(op), writer.file
    a, b = writer.operands(op, axes)
    if op.out_dtype == "float32":
        quotient = file.node("Div", [a, b], f"{op.name}.div")
        return writer.aligned(op, file.node("Floor", [quotient], op.name), axes)
    # ONNX divides integers towards zero: what is left over is taken away before.
    rest = file.node("Mod", [a, b], f"{op.name}.mod")
    whole = file.node("Sub", [a, rest], f"{op.name}.whole")
    return writer.aligned(op, file.node("Div", [whole, b], op.name), axes)


def _compare(writer: Writer, op: Op) -> Made:
    compare: Compare = op.attributes
    axes = writer.common_axes(op)
    inputs = writer.operands(op, axes)
    if op.in_dtypes[0] == "bool":
        to = helper.np_dtype_to_tensor_dtype(np.dtype("int32"))
        inputs = [
            writer.file.node("Cast", [value], f"{op.name}.{side}", to=to)
            for side, value in zip("ab", inputs, strict=True)
        ]
    equal = compare.function == "notequal"
    name = f"{op.name}.equal" if equal else op.name
    value = writer.file.node(_COMPARISONS[compare.function], inputs, name)
    if equal:
        value = writer.file.node("Not", [value], op.name)
    return writer.aligned(op, value, axes)


def _logical(writer: Writer, op: Op) -> Made:
    logical: Logical = op.attributes
    return _elementwise(_LOGICAL[logical.function])(writer, op)  # type: ignore[return-value]


def _unary(writer: Writer, op: Op) -> Made:
    unary: Unary = op.attributes
    source, file = writer.source(op), writer.file
    if unary.function == "square":
        return source.gives(file.node("Mul", [source.name, source.name], op.name))
    if unary.function == "rsqrt":
        root = file.node("Sqrt", [source.name], f"{op.name}.sqrt")
        return source.gives(file.node("Reciprocal", [root], op.name))
    return source.gives(file.node(_UNARY[unary.function], [source.name], op.name))


def _cast(writer: Writer, op: Op) -> Made:
    cast: Cast = op.attributes
    source = writer.source(op)
    to = helper.np_dtype_to_tensor_dtype(np.dtype(cast.dtype))
    return source.gives(writer.file.node("Cast", [source.name], op.name, to=to))


def _clip(writer: Writer, op: Op) -> Made | Place:
    clip: Clip = op.attributes
    if clip == Clip():
        return writer.viewed(op, writer.place(op))
    source = writer.source(op)
    bounds = [
        writer.file.number(bound) if np.isfinite(bound) else "" for bound in (clip.low, clip.high)
    ]
    while bounds and not bounds[-1]:
        bounds.pop()
    return source.gives(writer.file.node("Clip", [source.name, *bounds], op.name))


EMITTERS: Mapping[str, Emitter] = {
    **{kind: _elementwise(name) for kind, name in _BINARY.items()},
    "mod": _mod,
    "floordiv": _floordiv,
    "compare": _compare,
    "logical": _logical,
    "unary": _unary,
    "cast": _cast,
    "clip": _clip,
}
