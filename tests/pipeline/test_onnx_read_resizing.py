"""Maps of another size of ONNX, with attributes of all kinds, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.onnx_cases import Case, check

RESIZES: list[tuple[str, dict[str, Any]]] = [
    (mode, {"coordinate_transformation_mode": coordinates, **more})
    for mode, more in [
        *(
            ("nearest", {"nearest_mode": r})
            for r in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
        ),
        ("linear", {}),
        ("cubic", {}),
        ("cubic", {"cubic_coeff_a": -0.5, "exclude_outside": 1}),
    ]
    for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
]


@pytest.mark.parametrize(("mode", "attributes"), RESIZES)
@pytest.mark.parametrize("size", [(10, 14), (3, 4), (8, 9), (1, 5)])
def test_resize_to_a_size(mode: str, attributes: dict[str, Any], size: tuple[int, int]) -> None:
    case = Case()
    given = ["", "", case.constant([1, 3, *size], np.int64)]
    check(
        case.content(
            case.node("Resize", case.input("x", 1, 3, 5, 7), *given, mode=mode, **attributes)
        )
    )


@pytest.mark.parametrize(("mode", "attributes"), RESIZES)
@pytest.mark.parametrize("scales", [(2.0, 2.0), (1.5, 2.3), (0.6, 0.5), (1.0, 3.0)])
def test_resize_by_scales(
    mode: str, attributes: dict[str, Any], scales: tuple[float, float]
) -> None:
    case = Case()
    given = ["", case.constant([1, 1, *scales], np.float32)]
    check(
        case.content(
            case.node("Resize", case.input("x", 1, 3, 5, 7), *given, mode=mode, **attributes)
        )
    )


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_resize_of_other_axes(mode: str) -> None:
    case = Case(18)
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": "half_pixel"}
    x = case.input("x", 1, 5, 7, 3)
    last = case.node("Resize", x, "", "", case.constant([1, 10, 14, 3], np.int64), **attributes)
    some = case.node(
        "Resize", x, "", "", case.constant([14, 10], np.int64), axes=[2, 1], **attributes
    )
    line = case.node(
        "Resize",
        case.input("y", 1, 3, 7),
        "",
        "",
        case.constant([1, 3, 14], np.int64),
        **attributes,
    )
    check(case.content(last, some, line))


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_resize_without_aliasing(mode: str) -> None:
    case = Case(18)
    given = ["", "", case.constant([1, 3, 4, 5], np.int64)]
    made = case.node("Resize", case.input("x", 1, 3, 9, 14), *given, mode=mode, antialias=1)
    check(case.content(made))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample(mode: str) -> None:
    case = Case(9)
    made = case.node(
        "Upsample", case.input("x", 1, 3, 5, 7), case.constant([1, 1, 2, 3], np.float32), mode=mode
    )
    check(case.content(made))
