"""ONNX ops that others define, and those of onnxruntime, held against onnxruntime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.onnx_cases import Case, check

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(3, 5), (5, 4)]),
        ("bhid,bhjd->bhij", [(1, 2, 3, 5), (1, 2, 4, 5)]),
        ("bhwc,hkc->bhwk", [(1, 3, 4, 5), (3, 7, 5)]),
        ("nchw,c->nhw", [(1, 3, 5, 7), (3,)]),
        ("...ij,...jk->...ik", [(2, 3, 5), (2, 5, 4)]),
        ("ij->ji", [(3, 5)]),
        ("ijk->ik", [(3, 5, 4)]),
        ("i,j->ij", [(3,), (5,)]),
        ("ij,jk", [(3, 5), (5, 4)]),
    ],
)
def test_einsum(equation: str, shapes: list[tuple[int, ...]]) -> None:
    case = Case()
    names = [case.input(f"x{place}", *shape) for place, shape in enumerate(shapes)]
    check(case.content(case.node("Einsum", *names, equation=equation)))


@pytest.mark.parametrize("attributes", [{}, {"exclusive": 1}, {"reverse": 1}])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_running_sums(attributes: dict[str, Any], dtype: Any) -> None:
    case = Case()
    x = case.input("x", 3, 5, 2, dtype=dtype)
    check(case.content(case.node("CumSum", x, case.constant(1, np.int64), **attributes)))


def test_a_diagonal_and_what_is_no_number() -> None:
    case = Case()
    x = case.input("x", 3, 5)
    eye = case.node("Add", x, case.node("EyeLike", x, k=1))
    with np.errstate(invalid="ignore"):
        check(case.content(eye, case.node("IsNaN", case.node("Log", x))))


def test_an_op_that_is_defined_by_others_is_written_out() -> None:
    case = Case(23)
    names = [case.input(name, 1, 2, 5, 8) for name in ("q", "k", "v")]
    check(case.content(case.node("Attention", *names)))
    case = Case(17)
    check(case.content(case.node("Shrink", case.input("x", 3, 5), lambd=0.4, bias=0.1)))


MICROSOFT: list[tuple[str, Callable[[Case], list[str]], dict[str, Any]]] = [
    ("Gelu", lambda case: [case.input("x", 1, 3, 5)], {}),
    (
        "SkipLayerNormalization",
        lambda case: [
            case.input("x", 1, 3, 5),
            case.input("y", 1, 3, 5),
            case.weight(5),
            case.weight(5),
        ],
        {"epsilon": 1e-4},
    ),
]


MICROSOFT += [
    ("FastGelu", lambda case: [case.input("x", 1, 3, 5), case.weight(5)], {}),
    ("BiasGelu", lambda case: [case.input("x", 1, 3, 5), case.weight(5)], {}),
    ("QuickGelu", lambda case: [case.input("x", 1, 3, 5)], {"alpha": 1.702}),
    (
        "FusedMatMul",
        lambda case: [case.input("x", 2, 5, 3), case.input("y", 2, 4, 5)],
        {"transA": 1, "transB": 1, "alpha": 0.5},
    ),
    *(
        (
            "FusedConv",
            lambda case: [case.input("x", 1, 3, 6, 5), case.weight(4, 3, 3, 3), case.weight(4)],
            {"activation": act, **more},
        )
        for act, more in [
            ("Relu", {}),
            ("LeakyRelu", {"activation_params": [0.2]}),
            ("Clip", {"activation_params": [0.0, 0.5]}),
        ]
    ),
]


@pytest.mark.parametrize(("kind", "inputs", "attributes"), MICROSOFT)
def test_an_op_of_onnxruntime(
    kind: str, inputs: Callable[[Case], list[str]], attributes: dict[str, Any]
) -> None:
    case = Case()
    check(case.content(case.node(kind, *inputs(case), domain="com.microsoft", **attributes)))
