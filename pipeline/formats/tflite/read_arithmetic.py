"""Arithmetic, comparisons and activations of a TFLite file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from models.ops import (
    Cast,
    Clip,
    Compare,
    Elu,
    L2Norm,
    LeakyRelu,
    Logical,
    Softmax,
    Unary,
)
from pipeline.formats.tflite.reading import CLIPS
from pipeline.formats.tflite.values import UnknownError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.formats.tflite.file import FileOp
    from pipeline.formats.tflite.reading import Reading

_GRAPH_DTYPES = ("float32", "int32", "int64", "bool")
_L2_EPSILON = 1e-12
"""TensorFlow Lite divides by the root of the sum of squares, or 1e-6 if that is less."""


def operands(reading: Reading, op: FileOp) -> list[str]:
    """Return names in the graph of all that an op reads, brought to one rank."""
    numbers = [reading.input_of(op, place) for place in range(len(op.inputs))]
    rank = max(len(reading.shape(number)) for number in numbers)
    return [reading.ranked(number, rank) for number in numbers]


def _binary(
    kind: str, attributes: Any = None, *, fused: bool = False, one_scale: bool = False
) -> Callable[[Reading, FileOp], None]:
    def read(reading: Reading, op: FileOp) -> None:
        if len(op.inputs) != 2:
            raise UnknownError(f"reads {len(op.inputs)} tensors, not 2")
        names = operands(reading, op)
        if one_scale:
            for name in names:
                reading.check_kept(name, op.outputs[0])
        act = reading.activation(op) if fused else "none"
        reading.emit(op, kind, names, attributes, act=act)

    return read


def in_scale_of(reading: Reading, op: FileOp, name: str) -> str:
    """Return a tensor with the number format of an op's output: rescaled where it has another."""
    params = reading.scale(op.outputs[0])
    if params is None or reading.params.get(name) in (params, None):
        return name
    changed = reading.unique(f"{name}.rescaled")
    if name in reading.builder.constants:
        value = params.dequantize(params.quantize(reading.weights[name][0]))
        reading.constant(changed, value)
    else:
        reading.apply("clip", changed, [name], Clip())
    reading.note(changed, op.outputs[0])
    return changed


def _unary(kind: str, attributes: Any = None, act: str = "none") -> Callable[..., None]:
    def read(reading: Reading, op: FileOp) -> None:
        reading.emit(op, kind, [reading.name(reading.input_of(op))], attributes, act=act)

    return read


def _negate(reading: Reading, op: FileOp) -> None:
    name = reading.name(reading.input_of(op))
    reading.check_kept(name, op.outputs[0])
    reading.emit(op, "unary", [name], Unary("neg"))


def _add_n(reading: Reading, op: FileOp) -> None:
    names = operands(reading, op)
    if len(names) == 1:
        raise UnknownError("adds one tensor up")
    total = names[0]
    for place, name in enumerate(names[1:-1]):
        total = reading.step(op, f"sum{place}", "add", [total, name])
    reading.emit(op, "add", [total, names[-1]])


def _squared_difference(reading: Reading, op: FileOp) -> None:
    difference = reading.step(op, "difference", "sub", operands(reading, op))
    reading.emit(op, "mul", [difference, difference])


def _select(reading: Reading, op: FileOp) -> None:
    condition, first, second = (reading.input_of(op, place) for place in range(3))
    shape = reading.shape(condition)
    rank = max(len(shape), len(reading.shape(first)), len(reading.shape(second)))
    if op.kind == "SELECT" and len(shape) == 1 and rank > 1:
        # Of each row of the first axis.
        chosen = reading.operand(condition, (*shape, *(1,) * (rank - 1)))
    else:
        chosen = reading.ranked(condition, rank)
    names = [reading.ranked(number, rank) for number in (first, second)]
    for name in names:
        reading.check_kept(name, op.outputs[0])
    reading.emit(op, "where", [chosen, *names])


def _cast(reading: Reading, op: FileOp) -> None:
    dtype, source = reading.tensor(op.outputs[0]).dtype, reading.tensor(reading.input_of(op))
    if dtype not in _GRAPH_DTYPES:
        raise UnknownError(f"makes numbers of type {dtype}")
    # Kernels take the codes as they are, which are the numbers only if nothing is between them.
    if source.quantized and ((source.scales != 1).any() or source.zero_points.any()):
        raise UnknownError(f"makes {dtype} of {source.dtype} codes")
    reading.emit(op, "cast", [reading.name(reading.input_of(op))], Cast(dtype))


def _leaky(reading: Reading, op: FileOp) -> None:
    slope = LeakyRelu(float(op.option("alpha")))
    reading.emit(op, "leakyrelu", [reading.name(reading.input_of(op))], slope)


def _prelu(reading: Reading, op: FileOp) -> None:
    reading.emit(op, "prelu", operands(reading, op))


def _gelu(reading: Reading, op: FileOp) -> None:
    act = "gelu_tanh" if op.option("approximate") else "gelu"
    reading.emit(op, "act", [reading.name(reading.input_of(op))], act=act)


def _softmax(reading: Reading, op: FileOp) -> None:
    source = reading.input_of(op)
    name, beta = reading.name(source), 1.0
    if op.kind == "SOFTMAX":
        beta = float(op.option("beta"))
    shape = reading.shape(source)
    if not shape:
        raise UnknownError("reads a number without an axis")
    if beta != 1:
        factor = reading.unique(f"{reading.names[op.outputs[0]]}.beta")
        reading.constant(factor, np.full((1,) * len(shape), beta, np.float32))
        name = reading.step(op, "scaled", "mul", [name, factor])
    kind = "softmax" if op.kind == "SOFTMAX" else "logsoftmax"
    reading.emit(op, kind, [name], Softmax(len(shape) - 1))


def _l2norm(reading: Reading, op: FileOp) -> None:
    source = reading.input_of(op)
    axis = len(reading.shape(source)) - 1
    if axis < 0:
        raise UnknownError("reads a number without an axis")
    norm = L2Norm(axis, _L2_EPSILON)
    reading.emit(op, "l2norm", [reading.name(source)], norm, act=reading.activation(op))


def _silu(reading: Reading, op: FileOp) -> None:
    """Read LOGISTIC; one that only gates its own input is a SiLU with the product after it."""
    source = reading.input_of(op)
    gated = reading.only_reader(op.outputs[0])
    if gated is not None and gated.kind == "MUL" and set(gated.inputs) == {source, op.outputs[0]}:
        kept = reading.scale(op.outputs[0]) is None or reading.scale(gated.outputs[0]) is not None
        if kept and gated.option("act") == 0:
            reading.skipped[op.outputs[0]] = "silu"
            return
    reading.emit(op, "act", [reading.name(source)], act="sigmoid")


def _mul(reading: Reading, op: FileOp) -> None:
    """Read MUL; with a sigmoid of its other input it is a SiLU."""
    gates = [number for number in op.inputs if reading.skipped.get(number) == "silu"]
    if not gates:
        _binary("mul", fused=True)(reading, op)
        return
    source = next(number for number in op.inputs if number != gates[0])
    reading.emit(op, "act", [reading.name(source)], act="silu")


@dataclass(frozen=True, slots=True)
class _Low:
    """A lower limit, which the upper limit after it takes up."""

    source: int
    value: float


def _limit(reading: Reading, op: FileOp) -> None:
    """Read MAXIMUM and MINIMUM; with a number they are limits, the one after the other together."""
    source, value = _limited(reading, op)
    if source is None:
        _binary(op.kind.lower(), one_scale=True)(reading, op)
        return
    if source in reading.at:
        reading.check_kept(reading.at[source], op.outputs[0])
    if op.kind == "MAXIMUM":
        after = reading.only_reader(op.outputs[0])
        if (
            after is not None
            and after.kind == "MINIMUM"
            and (_limited(reading, after)[0] == op.outputs[0])
        ):
            reading.skipped[op.outputs[0]] = _Low(source, value)
            return
        reading.emit(op, "clip", [reading.name(source)], Clip(low=value))
        return
    low = reading.skipped.get(source)
    if isinstance(low, _Low):
        clip, source = Clip(low.value, value), low.source
    else:
        clip = Clip(high=value)
    reading.emit(op, "clip", [reading.name(source)], clip)


def _limited(reading: Reading, op: FileOp) -> tuple[int | None, float]:
    """Return the tensor of real numbers that an op limits, and by which; None if it does not."""
    if len(op.inputs) == 2:
        for number, other in (op.inputs, op.inputs[::-1]):
            value = reading.value(other) if other >= 0 else None
            if value is None or value.size != 1 or value.dtype != np.float32 or number < 0:
                continue
            if reading.value(number) is None and value.ndim <= len(reading.tensor(number).shape):
                return number, float(value.reshape(()))
    return None, 0.0


_FUNCTIONS = {
    "ABS": "abs",
    "EXP": "exp",
    "LOG": "log",
    "SQRT": "sqrt",
    "RSQRT": "rsqrt",
    "SQUARE": "square",
    "SIN": "sin",
    "COS": "cos",
    "FLOOR": "floor",
    "CEIL": "ceil",
    "ROUND": "round",
    "SIGN": "sign",
    "LOGICAL_NOT": "not",
}
_COMPARISONS = {
    "EQUAL": "equal",
    "NOT_EQUAL": "notequal",
    "LESS": "less",
    "LESS_EQUAL": "lessequal",
    "GREATER": "greater",
    "GREATER_EQUAL": "greaterequal",
}

ARITHMETIC: Mapping[str, Callable[[Reading, FileOp], None]] = {
    "ADD": _binary("add", fused=True),
    "SUB": _binary("sub", fused=True),
    "MUL": _mul,
    "DIV": _binary("div", fused=True),
    "MAXIMUM": _limit,
    "MINIMUM": _limit,
    "POW": _binary("pow"),
    "FLOOR_DIV": _binary("floordiv"),
    "FLOOR_MOD": _binary("mod"),
    "LOGICAL_AND": _binary("logical", Logical("and")),
    "LOGICAL_OR": _binary("logical", Logical("or")),
    **{kind: _binary("compare", Compare(name)) for kind, name in _COMPARISONS.items()},
    **{kind: _unary("unary", Unary(name)) for kind, name in _FUNCTIONS.items()},
    "NEG": _negate,
    "ADD_N": _add_n,
    "SQUARED_DIFFERENCE": _squared_difference,
    "SELECT": _select,
    "SELECT_V2": _select,
    "CAST": _cast,
    "RELU": _unary("act", act="relu"),
    "RELU6": _unary("act", act="relu6"),
    "RELU_N1_TO_1": _unary("clip", CLIPS["relu_n1_to_1"]),
    "RELU_0_TO_1": _unary("clip", CLIPS["relu_0_to_1"]),
    "LOGISTIC": _silu,
    "TANH": _unary("act", act="tanh"),
    "HARD_SWISH": _unary("act", act="hardswish"),
    "ELU": _unary("elu", Elu()),
    "GELU": _gelu,
    "LEAKY_RELU": _leaky,
    "PRELU": _prelu,
    "SOFTMAX": _softmax,
    "LOG_SOFTMAX": _softmax,
    "L2_NORMALIZATION": _l2norm,
}
