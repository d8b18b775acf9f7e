"""Layers and pools of ONNX, with attributes of all kinds, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.onnx_cases import Case, check

WINDOWS: list[dict[str, Any]] = [
    {"kernel_shape": [3, 2]},
    {"kernel_shape": [3, 3], "strides": [2, 1], "pads": [1, 0, 2, 1]},
    {"kernel_shape": [2, 3], "dilations": [2, 1], "pads": [1, 1, 0, 1]},
    {"kernel_shape": [3, 4], "strides": [2, 3], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [4, 3], "strides": [2, 3], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [3, 2], "auto_pad": "VALID", "strides": [3, 2]},
]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(("groups", "out"), [(1, 5), (2, 8), (4, 4), (4, 12)])
def test_conv(window: dict[str, Any], groups: int, out: int) -> None:
    case = Case()
    weight = case.weight(out, 4 // groups, *window["kernel_shape"])
    made = case.node(
        "Conv", case.input("x", 1, 4, 9, 11), weight, case.weight(out), group=groups, **window
    )
    model = check(case.content(made))
    assert [op.kind for op in model.graph.ops] == ["depthwise" if groups == 4 else "conv"]


def test_conv_without_a_bias_and_of_one_channel() -> None:
    case = Case()
    made = case.node("Conv", case.input("x", 1, 1, 5, 7), case.weight(3, 1, 2, 3))
    check(case.content(made))


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_conv_of_a_sequence(groups: int) -> None:
    case = Case()
    x = case.input("x", 1, 6, 17)
    made = case.node(
        "Conv",
        x,
        case.weight(12, 6 // groups, 3),
        case.weight(12),
        group=groups,
        strides=[2],
        pads=[2, 1],
    )
    made = case.node("Relu", made)
    made = case.node("Conv", made, case.weight(4, 12, 3), dilations=[2], pads=[1, 3])
    check(case.content(made))


def test_conv_with_a_bias_that_is_computed() -> None:
    case = Case()
    bias = case.node("Relu", case.input("b", 3))
    check(
        case.content(case.node("Conv", case.input("x", 1, 2, 5, 7), case.weight(3, 2, 2, 3), bias))
    )


TRANSPOSED: list[dict[str, Any]] = [
    {},
    {"strides": [2, 3]},
    {"strides": [2, 3], "pads": [1, 0, 2, 1]},
    {"strides": [3, 2], "output_padding": [2, 1], "pads": [1, 1, 1, 1]},
    {"strides": [2, 2], "dilations": [2, 1]},
    {"strides": [2, 3], "auto_pad": "SAME_UPPER"},
    {"strides": [2, 3], "auto_pad": "SAME_LOWER"},
    {"strides": [2, 2], "output_shape": [11, 13]},
    {"strides": [2, 2], "output_shape": [11, 13], "auto_pad": "SAME_UPPER"},
    {"strides": [2, 2], "auto_pad": "VALID"},
]


@pytest.mark.parametrize("attributes", TRANSPOSED)
@pytest.mark.parametrize(("groups", "kernel"), [(1, (3, 2)), (2, (4, 3)), (4, (3, 3))])
def test_conv_transpose(attributes: dict[str, Any], groups: int, kernel: tuple[int, int]) -> None:
    case = Case()
    weight = case.weight(4, 3, *kernel)
    made = case.node(
        "ConvTranspose",
        case.input("x", 1, 4, 5, 6),
        weight,
        case.weight(3 * groups),
        group=groups,
        **attributes,
    )
    check(case.content(made))


def test_conv_transpose_of_a_sequence() -> None:
    case = Case()
    made = case.node(
        "ConvTranspose", case.input("x", 1, 4, 9), case.weight(4, 3, 4), strides=[2], pads=[1, 1]
    )
    check(case.content(made))


@pytest.mark.parametrize("turned_a", [0, 1])
@pytest.mark.parametrize("turned_b", [0, 1])
@pytest.mark.parametrize("added", ["none", "scalar", "row", "matrix", "computed"])
@pytest.mark.parametrize("weights", ["constant", "computed"])
def test_gemm(turned_a: int, turned_b: int, added: str, weights: str) -> None:
    case = Case()
    a = case.input("a", *((5, 3) if turned_a else (3, 5)))
    shape = (4, 5) if turned_b else (5, 4)
    b = case.weight(*shape) if weights == "constant" else case.input("b", *shape)
    c = {
        "none": [],
        "scalar": [case.constant(0.5, np.float32)],
        "row": [case.weight(4)],
        "matrix": [case.weight(3, 4)],
        "computed": [case.input("c", 1, 4)] if added == "computed" else [],
    }[added]
    made = case.node("Gemm", a, b, *c, transA=turned_a, transB=turned_b, alpha=0.7, beta=1.3)
    check(case.content(made))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((3, 5), (5, 4)),
        ((1, 3, 5), (5, 4)),
        ((2, 1, 3, 5), (2, 5, 4)),
        ((5,), (5, 4)),
        ((3, 5), (5,)),
        ((2, 3, 5), (5,)),
        ((5,), (2, 5, 4)),
        ((1, 3, 5), (1, 5, 4)),
    ],
)
@pytest.mark.parametrize("known", ["neither", "second", "first"])
def test_matmul(a: tuple[int, ...], b: tuple[int, ...], known: str) -> None:
    case = Case()
    first = case.weight(*a) if known == "first" else case.input("a", *a)
    second = case.weight(*b) if known == "second" else case.input("b", *b)
    check(case.content(case.node("MatMul", first, second)))


def test_a_product_and_a_bias_are_one_dense_layer() -> None:
    case = Case()
    made = case.node("MatMul", case.input("x", 1, 3, 5), case.weight(5, 4))
    made = case.node("Relu", case.node("Add", case.weight(4), made))
    model = check(case.content(made))
    assert [(op.kind, op.act) for op in model.graph.ops] == [("dense", "relu")]


@pytest.mark.parametrize("window", WINDOWS)
def test_max_pool(window: dict[str, Any]) -> None:
    case = Case()
    check(case.content(case.node("MaxPool", case.input("x", 1, 3, 9, 11), **window)))


@pytest.mark.parametrize("window", [w for w in WINDOWS if "dilations" not in w])
@pytest.mark.parametrize("count", [0, 1])
def test_average_pool(window: dict[str, Any], count: int) -> None:
    case = Case()
    made = case.node("AveragePool", case.input("x", 1, 3, 9, 11), count_include_pad=count, **window)
    check(case.content(made))


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("size", [(8, 9), (9, 11), (10, 12), (7, 7)])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 1]])
@pytest.mark.parametrize("count", [0, 1])
def test_pools_that_round_up(kind: str, size: tuple[int, int], pads: list[int], count: int) -> None:
    case = Case(19)
    attributes: dict[str, Any] = {"count_include_pad": count} if kind == "AveragePool" else {}
    if kind == "MaxPool" and count:
        attributes = {"dilations": [1, 1]}
    made = case.node(
        kind,
        case.input("x", 1, 2, *size),
        kernel_shape=[3, 2],
        strides=[2, 3],
        pads=pads,
        ceil_mode=1,
        **attributes,
    )
    check(case.content(made))


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
def test_pools_of_a_sequence(kind: str) -> None:
    case = Case()
    made = case.node(kind, case.input("x", 1, 3, 17), kernel_shape=[3], strides=[2], pads=[1, 1])
    check(case.content(made))


@pytest.mark.parametrize("kind", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("shape", [(1, 3, 5, 7), (1, 3, 11)])
def test_pools_of_a_whole_map(kind: str, shape: tuple[int, ...]) -> None:
    case = Case()
    made = case.node("Flatten", case.node(kind, case.input("x", *shape)))
    check(case.content(made))
