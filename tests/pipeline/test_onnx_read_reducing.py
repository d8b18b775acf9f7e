"""Reductions and normalisations of ONNX, with attributes of all kinds, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.onnx_cases import Case, check

REDUCTIONS = [
    *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"),
    *("ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"),
]


@pytest.mark.parametrize("kind", REDUCTIONS)
@pytest.mark.parametrize("axes", [[1], [2, 3], [-1], [-3, 1], None, [0, 1, 2, 3]])
@pytest.mark.parametrize(("opset", "keepdims"), [(11, 1), (18, 0)])
def test_reductions(kind: str, axes: list[int] | None, opset: int, keepdims: int) -> None:
    case = Case(opset)
    x = case.node("Exp", case.input("x", 2, 3, 2, 4))
    if axes == [-3, 1]:
        axes = [-3, 2]
    attributes: dict[str, Any] = {"keepdims": keepdims}
    given = []
    if axes is not None and (opset >= 18 or (kind == "ReduceSum" and opset >= 13)):
        given = [case.constant(axes, np.int64)]
    elif axes is not None:
        attributes["axes"] = axes
    check(case.content(case.node(kind, x, *given, **attributes)))


def test_a_reduction_over_no_axes_does_nothing() -> None:
    case = Case(18)
    axes = case.constant(np.zeros(0), np.int64)
    made = case.node("ReduceSum", case.input("x", 2, 3), axes, noop_with_empty_axes=1)
    check(case.content(case.node("Relu", made)))


@pytest.mark.parametrize("kind", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_places_of_extremes(kind: str, axis: int, keepdims: int) -> None:
    case = Case()
    check(case.content(case.node(kind, case.input("x", 2, 3, 5, 7), axis=axis, keepdims=keepdims)))


@pytest.mark.parametrize("largest", [0, 1])
def test_the_first_of_an_order(largest: int) -> None:
    case = Case()
    made = case.node(
        "TopK", case.input("x", 2, 7), case.constant([1], np.int64), outputs=2, largest=largest
    )
    check(case.content(made, f"{made}_1"))


@pytest.mark.parametrize("size", [1, 3, 5])
def test_lrn(size: int) -> None:
    case = Case()
    x = case.node("Mul", case.input("x", 1, 7, 3, 5), case.constant(3, np.float32))
    check(case.content(case.node("LRN", x, size=size, alpha=0.3, beta=0.6, bias=1.5)))


@pytest.mark.parametrize("shape", [(1, 4, 5, 7), (1, 4, 9), (3, 4)])
def test_batch_normalisation(shape: tuple[int, ...]) -> None:
    case = Case()
    variance = case.constant(np.linspace(0.4, 2, 4), np.float32)
    parameters = [case.weight(4), case.weight(4), case.weight(4), variance]
    made = case.node("BatchNormalization", case.input("x", *shape), *parameters, epsilon=1e-3)
    check(case.content(made))


@pytest.mark.parametrize("shape", [(1, 4, 5, 7), (1, 4, 9)])
def test_instance_normalisation(shape: tuple[int, ...]) -> None:
    case = Case()
    made = case.node(
        "InstanceNormalization", case.input("x", *shape), case.weight(4), case.weight(4)
    )
    check(case.content(made))


@pytest.mark.parametrize("opset", [18, 21])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_normalisation(opset: int, groups: int) -> None:
    case = Case(opset)
    count = groups if opset == 18 else 6
    x = case.input("x", 1, 6, 5, 7)
    made = case.node(
        "GroupNormalization", x, case.weight(count), case.weight(count), num_groups=groups
    )
    check(case.content(made))


@pytest.mark.parametrize("axis", [-1, 1, 2])
@pytest.mark.parametrize("shift", [1, 0])
def test_layer_normalisation(axis: int, shift: int) -> None:
    case = Case()
    shape = (1, 3, 5, 7)
    parameters = [case.weight(*shape[axis:]) for _ in range(1 + shift)]
    made = case.node(
        "LayerNormalization", case.input("x", *shape), *parameters, axis=axis, epsilon=1e-4
    )
    check(case.content(made))


@pytest.mark.parametrize("power", [1, 2])
def test_vectors_of_one_length(power: int) -> None:
    case = Case()
    x = case.node("Exp", case.input("x", 1, 3, 5, 7))
    check(case.content(case.node("LpNormalization", x, axis=1, p=power)))


def test_mean_and_variance_normalisation() -> None:
    case = Case()
    check(case.content(case.node("MeanVarianceNormalization", case.input("x", 1, 3, 5, 7))))
