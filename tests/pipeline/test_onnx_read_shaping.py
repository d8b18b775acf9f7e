"""Ops that move values of ONNX, with attributes of all kinds, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.formats.api import Unsupported
from pipeline.formats.onnx.read import read_onnx
from tests.onnx_cases import Case, check


@pytest.mark.parametrize(
    "shape", [[1, -1], [0, 3, 35], [0, 0, -1], [105], [1, 5, 3, 7], [-1, 3, 1, 5, 7]]
)
def test_reshape(shape: list[int]) -> None:
    case = Case()
    made = case.node("Reshape", case.input("x", 1, 3, 5, 7), case.constant(shape, np.int64))
    check(case.content(made))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, 4])
def test_flatten(axis: int) -> None:
    case = Case()
    check(case.content(case.node("Flatten", case.input("x", 2, 3, 5, 7), axis=axis)))


@pytest.mark.parametrize("order", [None, [0, 2, 3, 1], [3, 1, 0, 2]])
def test_transpose(order: list[int] | None) -> None:
    case = Case()
    attributes = {} if order is None else {"perm": order}
    check(case.content(case.node("Transpose", case.input("x", 2, 3, 5, 7), **attributes)))


@pytest.mark.parametrize("opset", [11, 13])
def test_squeeze_and_unsqueeze(opset: int) -> None:
    case = Case(opset)

    def axes(*numbers: int) -> dict[str, Any]:
        return {"axes": list(numbers)} if opset < 13 else {}

    def more(*numbers: int) -> list[str]:
        return [] if opset < 13 else [case.constant(numbers, np.int64)]

    x = case.node("Unsqueeze", case.input("x", 1, 3, 5), *more(0, -1), **axes(0, -1))
    y = case.node("Squeeze", x, *more(0, -1), **axes(0, -1))
    check(case.content(x, y, case.node("Squeeze", x)))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat(axis: int) -> None:
    case = Case()
    shape = [2, 3, 5]
    other = list(shape)
    other[axis] = 4
    made = case.node(
        "Concat", case.input("x", *shape), case.weight(*other), case.input("y", *shape), axis=axis
    )
    check(case.content(made))


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_split(opset: int) -> None:
    case = Case(opset)
    x = case.input("x", 1, 6, 5)
    sizes = [1, 2, 3]
    given = [] if opset < 13 else [case.constant(sizes, np.int64)]
    attributes: dict[str, Any] = {"split": sizes} if opset < 13 else {}
    made = case.node("Split", x, *given, outputs=3, axis=1, **attributes)
    whole = {"num_outputs": 3} if opset >= 18 else {}
    equal = case.node("Split", x, outputs=3, axis=2 if whole else 1, **whole)
    check(case.content(made, f"{made}_1", f"{made}_2", equal, f"{equal}_2"))


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps"),
    [
        ([1], [3], [2], None),
        ([0, -3], [2, 100], [1, -1], [1, 2]),
        ([-1], [-100], [3], [-1]),
        ([-2, 1], [-6, 9], [3, 2], [-2, 3]),
        ([1, 0], [2, 2], None, None),
    ],
)
def test_slice(
    starts: list[int], ends: list[int], axes: list[int] | None, steps: list[int] | None
) -> None:
    case = Case()
    given = [case.constant(starts, np.int64), case.constant(ends, np.int64)]
    if axes is not None or steps is not None:
        given.append("" if axes is None else case.constant(axes, np.int64))
    if steps is not None:
        given.append(case.constant(steps, np.int64))
    check(case.content(case.node("Slice", case.input("x", 2, 3, 5, 7), *given)))


@pytest.mark.parametrize("indices", [[0, 2], [-1, 1, -2], 1, -1, [[0, 1], [2, -1]]])
@pytest.mark.parametrize("axis", [1, -1, 0])
def test_gather(indices: Any, axis: int) -> None:
    case = Case()
    made = case.node(
        "Gather", case.input("x", 3, 4, 5), case.constant(indices, np.int64), axis=axis
    )
    check(case.content(made))


def test_entries_that_are_looked_up_while_it_runs() -> None:
    case = Case()
    made = case.node("Gather", case.weight(7, 4), case.input("ids", 1, 6, dtype=np.int64))
    check(case.content(made))


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
@pytest.mark.parametrize("pads", [[0, 0, 1, 2, 0, 0, 2, 1], [0, 1, -1, 0, 0, 0, 2, -2]])
@pytest.mark.parametrize("opset", [13, 18])
def test_pad(mode: str, pads: list[int], opset: int) -> None:
    case = Case(opset)
    given = [case.constant(pads, np.int64)]
    if mode == "constant":
        given.append(case.constant(0.7, np.float32))
    check(case.content(case.node("Pad", case.input("x", 1, 3, 5, 7), *given, mode=mode)))


def test_pad_around() -> None:
    case = Case(19)
    pads = case.constant([0, 0, 1, 2, 0, 1, 2, -3], np.int64)
    check(case.content(case.node("Pad", case.input("x", 1, 3, 4, 6), pads, mode="wrap")))


def test_pad_with_a_value_that_is_computed_is_named() -> None:
    case = Case()
    pads = case.constant([0, 1, 0, 1], np.int64)
    found = read_onnx(case.content(case.node("Pad", case.input("x", 2, 3), pads, case.input("v"))))
    assert isinstance(found, Unsupported)
    assert "Pad at 'Pad_0' (computes its value while it runs)" in found.sentence


def test_pad_of_some_axes() -> None:
    case = Case(18)
    given = [case.constant([1, 2, 0, 3], np.int64), "", case.constant([-1, 1], np.int64)]
    check(case.content(case.node("Pad", case.input("x", 1, 3, 5, 7), *given)))


@pytest.mark.parametrize("shape", [[1, 3, 5, 7], [2, 3, 1, 7], [3, 5, 1], [7]])
def test_expand(shape: list[int]) -> None:
    case = Case()
    made = case.node("Expand", case.input("x", 1, 3, 1, 7), case.constant(shape, np.int64))
    check(case.content(made))


def test_tile() -> None:
    case = Case()
    made = case.node("Tile", case.input("x", 1, 3, 2), case.constant([1, 2, 3], np.int64))
    check(case.content(made))


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode: str) -> None:
    case = Case()
    made = case.node("DepthToSpace", case.input("x", 1, 12, 3, 5), blocksize=2, mode=mode)
    check(case.content(made, case.node("SpaceToDepth", made, blocksize=2)))


@pytest.mark.parametrize("upper", [0, 1])
def test_trilu(upper: int) -> None:
    case = Case()
    made = case.node("Trilu", case.input("x", 1, 5, 7), case.constant(1, np.int64), upper=upper)
    check(case.content(made))


@pytest.mark.parametrize("places", [[[0, 1], [2, -1]], [[0], [2]], [[[1, 0]], [[2, 3]]]])
def test_entries_at_places_of_several_axes(places: Any) -> None:
    case = Case()
    x = case.input("x", 3, 4, 2)
    found = case.node("GatherND", x, case.constant(places, np.int64))
    shape = (*np.shape(places)[:-1], *(3, 4, 2)[np.shape(places)[-1] :])
    put = case.node("ScatterND", x, case.constant(places, np.int64), case.input("u", *shape))
    check(case.content(found, put))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_values_at_places_of_their_own(axis: int) -> None:
    case = Case()
    places = case.constant([[[0, 1], [1, 0], [-1, 1]]], np.int64)
    check(case.content(case.node("GatherElements", case.input("x", 2, 3, 2), places, axis=axis)))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_values_at_places_that_are_computed(axis: int) -> None:
    case = Case()
    x, y = case.input("x", 4, 5, 6), case.input("y", 4, 5, 6)
    places = case.node("ArgMax", y, axis=axis)
    counted_back = case.node("Sub", places, case.constant(4, np.int64))
    made = [case.node("GatherElements", x, each, axis=axis) for each in (places, counted_back)]
    check(case.content(*made))


def test_entries_at_computed_places_of_several_axes() -> None:
    case = Case()
    x, places = case.input("x", 5, 6, 7), case.input("i", 3, 2, dtype=np.int64)
    back = case.node("Sub", places, case.constant([5, 3], np.int64))
    check(case.content(case.node("GatherND", x, places), case.node("GatherND", x, back)))


def test_parts_that_hold_nothing() -> None:
    case = Case()
    x = case.input("x", 2, 6)
    case.node("Split", x, case.constant([6, 0], np.int64), axis=1, outputs=2)
    ends = [case.constant([number], np.int64) for number in (6, 9, 1)]
    made = case.node("Concat", "t0_1", case.node("Slice", x, *ends), "t0", axis=1)
    check(case.content(made))


@pytest.mark.parametrize("axis", [0, -1])
def test_one_of_many(axis: int) -> None:
    case = Case()
    x = case.node("Sub", case.input("x", 2, 3, dtype=np.int64), case.constant(2, np.int64))
    depth, values = case.constant(4, np.int64), case.constant([0.5, 2], np.float32)
    check(case.content(case.node("OneHot", x, depth, values, axis=axis)))
