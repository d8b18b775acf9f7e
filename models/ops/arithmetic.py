"""Element-wise arithmetic, comparisons, functions of one tensor, and products of matrices."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from models.ops.api import (
    BOOL,
    DTYPES,
    FUSED,
    Array,
    Named,
    OpKind,
    broadcast_shape,
    check_function,
    float_only,
    never,
    one_dtype,
    same_shape,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from models.graph import Op
    from models.ops.api import Dtypes, Shape, Shapes


@dataclass(frozen=True, slots=True)
class Matmul(Named):
    """Of a product of matrices in the last two axes; the axes before broadcast."""

    transpose_a: bool = False
    transpose_b: bool = False


@dataclass(frozen=True, slots=True)
class Compare(Named):
    """Of a comparison: one of `COMPARISONS`."""

    function: str


@dataclass(frozen=True, slots=True)
class Logical(Named):
    """Of two truth values: and, or, xor."""

    function: str


@dataclass(frozen=True, slots=True)
class Unary(Named):
    """Of a function of each value: one of `FUNCTIONS`."""

    function: str


@dataclass(frozen=True, slots=True)
class Cast(Named):
    """Of a change of type: `dtype`, one of `models.ops.DTYPES`."""

    dtype: str


@dataclass(frozen=True, slots=True)
class Clip(Named):
    """Of a limit on both sides; infinite where there is none."""

    low: float = -np.inf
    high: float = np.inf


def _erf(x: Array) -> Array:
    from scipy.special import erf

    result: Array = erf(x)
    return result


COMPARISONS: Mapping[str, Callable[[Array, Array], Array]] = {
    "equal": np.equal,
    "notequal": np.not_equal,
    "less": np.less,
    "lessequal": np.less_equal,
    "greater": np.greater,
    "greaterequal": np.greater_equal,
}

LOGICAL: Mapping[str, Callable[[Array, Array], Array]] = {
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
}

FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "abs": np.abs,
    "neg": np.negative,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "square": np.square,
    "reciprocal": lambda x: 1 / x,
    "sin": np.sin,
    "cos": np.cos,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "sign": np.sign,
    "erf": _erf,
    "not": np.logical_not,
}


def _divide(a: Array, b: Array) -> Array:
    """Divide; integers towards zero, as files mean it."""
    if a.dtype.kind == "f":
        quotient: Array = a / b
        return quotient
    whole: Array = np.where(
        b == 0, 0, np.sign(a) * np.sign(b) * (np.abs(a) // np.maximum(abs(b), 1))
    )
    return whole.astype(a.dtype)


def _unary_dtype(dtypes: Dtypes, unary: Unary) -> str:
    check_function(unary.function, FUNCTIONS)
    if unary.function == "not":
        if dtypes[0] != BOOL:
            raise ValueError(f"negates {dtypes[0]}, not {BOOL}")
        return BOOL
    exact = unary.function in ("abs", "neg", "square", "sign")
    return dtypes[0] if exact and dtypes[0] != BOOL else float_only(dtypes, None)


def _number_dtype(dtypes: Dtypes, _: Any) -> str:
    dtype = one_dtype(dtypes, None)
    if dtype == BOOL:
        raise ValueError("computes with truth values; they have no arithmetic")
    return dtype


def _compare_dtype(dtypes: Dtypes, compare: Compare) -> str:
    check_function(compare.function, COMPARISONS)
    one_dtype(dtypes, None)
    return BOOL


def _logical_dtype(dtypes: Dtypes, logical: Logical) -> str:
    check_function(logical.function, LOGICAL)
    if set(dtypes) != {BOOL}:
        raise ValueError(f"reads {' and '.join(dtypes)}, not {BOOL}")
    return BOOL


def _where_dtype(dtypes: Dtypes, _: Any) -> str:
    if dtypes[0] != BOOL:
        raise ValueError(f"chooses by {dtypes[0]}, not {BOOL}")
    return one_dtype(dtypes[1:], None)


def _cast_dtype(_: Dtypes, cast: Cast) -> str:
    if cast.dtype not in DTYPES:
        raise ValueError(f"casts to {cast.dtype!r}; known: {', '.join(DTYPES)}")
    return cast.dtype


def _matmul_shape(shapes: Shapes, matmul: Matmul) -> Shape:
    first, second = shapes
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"multiplies {first} by {second}, which are no matrices of one rank")
    *_, rows, shared = _turned(first) if matmul.transpose_a else first
    *_, other, columns = _turned(second) if matmul.transpose_b else second
    if shared != other:
        raise ValueError(f"multiplies {first} by {second}, whose inner sides differ")
    return (*broadcast_shape((first[:-2], second[:-2]), None), rows, columns)


def _turned(shape: Shape) -> Shape:
    return (*shape[:-2], shape[-1], shape[-2])


def _multiply(op: Op, arrays: Sequence[Array]) -> Array:
    a, b = arrays
    if op.attributes.transpose_a:
        a = a.swapaxes(-1, -2)
    if op.attributes.transpose_b:
        b = b.swapaxes(-1, -2)
    product: Array = a @ b
    return product


def _matmul_macs(op: Op) -> int:
    shared = op.in_shapes[0][-2 if op.attributes.transpose_a else -1]
    return prod(op.out_shape) * shared


def _keeps_batch(op: Op) -> bool:
    """A matrix whose rows are the batch may be multiplied by a constant, and not turned."""
    fixed = op.inputs[1] in op.constants and not op.attributes.transpose_a
    return len(op.in_shapes[0]) > 2 or fixed


def _elementwise(function: Callable[[Array, Array], Array], **row: Any) -> OpKind:
    return OpKind(
        shape=broadcast_shape,
        reference=lambda _, arrays: function(*arrays),
        inputs=2,
        **{"dtype": _number_dtype, **row},
    )


ROWS: Mapping[str, OpKind] = {
    # LiteRT aborts the process beyond 2**20.
    "add": _elementwise(np.add, activations=FUSED, finest_scale=dict.fromkeys(FUSED, 2.0**-10)),
    "mul": _elementwise(np.multiply, activations=FUSED, keeps_range=True),
    "sub": _elementwise(
        np.subtract, activations=FUSED, finest_scale=dict.fromkeys(FUSED, 2.0**-10)
    ),
    "div": _elementwise(_divide, activations=FUSED, integer=never),
    "maximum": _elementwise(np.maximum, shares_scale=True, keeps_range=True),
    "minimum": _elementwise(np.minimum, shares_scale=True, keeps_range=True),
    "pow": _elementwise(np.power, integer=never),
    "mod": _elementwise(np.mod, integer=never),
    "floordiv": _elementwise(np.floor_divide, integer=never),
    "compare": OpKind(
        shape=broadcast_shape,
        reference=lambda op, arrays: COMPARISONS[op.attributes.function](*arrays),
        dtype=_compare_dtype,
        attributes=Compare,
        inputs=2,
        integer=never,
    ),
    "logical": OpKind(
        shape=broadcast_shape,
        reference=lambda op, arrays: LOGICAL[op.attributes.function](*arrays),
        dtype=_logical_dtype,
        attributes=Logical,
        inputs=2,
    ),
    "where": OpKind(
        shape=broadcast_shape,
        reference=lambda _, arrays: np.where(*arrays),
        dtype=_where_dtype,
        inputs=3,
        integer=never,
    ),
    "unary": OpKind(
        shape=same_shape,
        reference=lambda op, arrays: FUNCTIONS[op.attributes.function](arrays[0]),
        dtype=_unary_dtype,
        attributes=Unary,
        integer=never,
    ),
    "cast": OpKind(
        shape=same_shape,
        reference=lambda op, arrays: arrays[0].astype(op.attributes.dtype),
        dtype=_cast_dtype,
        attributes=Cast,
        integer=never,
    ),
    "clip": OpKind(
        shape=same_shape,
        reference=lambda op, arrays: np.clip(
            arrays[0],
            arrays[0].dtype.type(op.attributes.low),
            arrays[0].dtype.type(op.attributes.high),
        ),
        dtype=float_only,
        attributes=Clip,
        integer=never,
        keeps_range=True,
    ),
    "matmul": OpKind(
        shape=_matmul_shape,
        reference=_multiply,
        dtype=float_only,
        attributes=Matmul,
        inputs=2,
        macs=_matmul_macs,
        keeps_batch=_keeps_batch,
    ),
}
