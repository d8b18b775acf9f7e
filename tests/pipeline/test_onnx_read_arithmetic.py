"""Arithmetic and activations of ONNX, with attributes of all kinds, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.onnx_cases import Case, check

UNARY = [
    *(
        "Abs",
        "Neg",
        "Exp",
        "Reciprocal",
        "Sin",
        "Cos",
        "Tan",
        "Floor",
        "Ceil",
        "Round",
        "Sign",
        "Erf",
    ),
    *("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Identity"),
]


@pytest.mark.parametrize("kind", UNARY)
def test_a_function_of_every_value(kind: str) -> None:
    case = Case()
    check(case.content(case.node(kind, case.input("x", 1, 3, 5, 7))))


@pytest.mark.parametrize("kind", ["Log", "Sqrt"])
def test_a_function_of_positive_values(kind: str) -> None:
    case = Case()
    check(case.content(case.node(kind, case.node("Exp", case.input("x", 2, 5)))))


ACTIVATIONS: list[tuple[str, int, dict[str, Any]]] = [
    ("LeakyRelu", 17, {"alpha": 0.2}),
    ("Elu", 17, {"alpha": 0.7}),
    ("Selu", 17, {}),
    ("Celu", 17, {"alpha": 1.7}),
    ("HardSigmoid", 17, {}),
    ("HardSigmoid", 17, {"alpha": 1 / 6, "beta": 0.5}),
    ("HardSwish", 17, {}),
    ("Mish", 18, {}),
    ("Gelu", 20, {}),
    ("Gelu", 20, {"approximate": "tanh"}),
    ("ThresholdedRelu", 17, {"alpha": 0.4}),
]


@pytest.mark.parametrize(("kind", "opset", "attributes"), ACTIVATIONS)
def test_an_activation(kind: str, opset: int, attributes: dict[str, Any]) -> None:
    case = Case(opset)
    scaled = case.node("Mul", case.input("x", 1, 3, 5, 7), case.constant(3, np.float32))
    check(case.content(case.node(kind, scaled, **attributes)))


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 1, 1), (1,), (3, 5, 7), ()])
def test_prelu(shape: tuple[int, ...]) -> None:
    case = Case()
    check(case.content(case.node("PRelu", case.input("x", 1, 3, 5, 7), case.weight(*shape))))


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("opset", [11, 13])
@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1])
def test_softmax(kind: str, opset: int, axis: int | None) -> None:
    case = Case(opset)
    attributes = {} if axis is None else {"axis": axis}
    check(case.content(case.node(kind, case.input("x", 2, 3, 5, 7), **attributes)))


BROADCAST = [
    ((1, 3, 5, 7), (3, 1, 1)),
    ((1, 3, 5, 7), ()),
    ((5, 7), (1, 3, 1, 7)),
    ((2, 3), (2, 3)),
    ((1, 3, 1, 1), (1, 3, 5, 7)),
]


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Sum", "Mean"])
@pytest.mark.parametrize(("first", "second"), BROADCAST)
@pytest.mark.parametrize("known", ["neither", "first", "second"])
def test_arithmetic_of_two(
    kind: str, first: tuple[int, ...], second: tuple[int, ...], known: str
) -> None:
    case = Case()
    names = [
        case.weight(*shape) if known == which else case.input(which, *shape)
        for which, shape in (("first", first), ("second", second))
    ]
    if kind in ("Div", "Pow"):
        names = [case.node("Exp", name) for name in names]
    check(case.content(case.node(kind, *names)))


@pytest.mark.parametrize("kind", ["Max", "Min", "Sum", "Mean"])
def test_arithmetic_of_several(kind: str) -> None:
    case = Case()
    names = [case.input("a", 3, 5), case.input("b", 5), case.input("c", 3, 1)]
    check(case.content(case.node(kind, *names)))


@pytest.mark.parametrize("exponent", [2.0, 0.5, -1.0, 3.0, 1.0, -0.5])
def test_a_power(exponent: float) -> None:
    case = Case()
    x = case.node("Exp", case.input("x", 2, 5))
    check(case.content(case.node("Pow", x, case.constant(exponent, np.float32))))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div", "Mod", "Max"])
def test_arithmetic_of_whole_numbers(kind: str, dtype: Any) -> None:
    case = Case()
    by = case.constant([3, -2, 5], dtype)
    x = case.node("Sub", case.input("x", 4, 3, dtype=dtype), case.constant(2, dtype))
    check(case.content(case.node(kind, x, by)))


def test_the_remainder_of_real_numbers() -> None:
    case = Case()
    made = case.node(
        "Mod", case.input("x", 4, 3), case.constant([0.3, -0.2, 0.7], np.float32), fmod=1
    )
    check(case.content(made))


@pytest.mark.parametrize("kind", ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"])
def test_comparisons_and_choices(kind: str) -> None:
    case = Case()
    x = case.input("x", 1, 3, 5, 7)
    y = case.node("Round", case.input("y", 5, 1))
    found = case.node(kind, case.node("Round", x), y)
    check(case.content(case.node("Where", found, x, case.constant(-3, np.float32)), found))


@pytest.mark.parametrize("kind", ["And", "Or", "Xor", "Equal"])
def test_truth_values(kind: str) -> None:
    case = Case()
    made = case.node(kind, case.input("a", 3, 5, dtype=bool), case.input("b", 5, dtype=bool))
    check(case.content(case.node("Not", made)))


@pytest.mark.parametrize("to", [1, 6, 7, 9, 11, 10])
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64, bool])
def test_casts(to: int, dtype: Any) -> None:
    case = Case()
    x = case.input("x", 3, 5, dtype=dtype)
    made = case.node("Cast", x, to=to)
    if to in (10, 11):
        made = case.node("Cast", made, to=1)
    check(case.content(made), tolerance=1e-3 if to == 10 else 1e-4)  # the file rounds to halves


@pytest.mark.parametrize("bounds", ["none", "low", "high", "both", "six", "computed"])
def test_clip(bounds: str) -> None:
    case = Case()
    x = case.node("Mul", case.input("x", 1, 3, 5, 7), case.constant(4, np.float32))
    low, high = case.constant(-0.5, np.float32), case.constant(0.7, np.float32)
    given = {
        "none": [],
        "low": [low],
        "high": ["", high],
        "both": [low, high],
        "six": [case.constant(0, np.float32), case.constant(6, np.float32)],
        "computed": [case.node("ReduceMin", case.input("l", 4), keepdims=0)],
    }[bounds]
    check(case.content(case.node("Clip", x, *given)))


def test_a_relu6_is_fused_into_the_convolution() -> None:
    case = Case()
    made = case.node("Conv", case.input("x", 1, 3, 5, 7), case.weight(4, 3, 3, 3))
    made = case.node("Clip", made, case.constant(0, np.float32), case.constant(6, np.float32))
    model = check(case.content(made))
    assert [(op.kind, op.act) for op in model.graph.ops] == [("conv", "relu6")]
