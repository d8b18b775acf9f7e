"""Ends of two files that are the same, whatever they are called and however they are laid out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents.errors import ConfigError, VerificationError
from pipeline.formats.beside import Beside, check_files, compare_files, compare_output
from pipeline.formats.ends import FileEnds, TensorFormat
from pipeline.formats.pairing import pair_files

if TYPE_CHECKING:
    from pipeline.formats.api import Numbers
    from pipeline.formats.ends import Arrays

RNG = np.random.default_rng(0)


def ends(
    layout: str, inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]
) -> FileEnds:
    return FileEnds(
        layout,
        tuple(TensorFormat(name, "float32", shape) for name, shape in inputs.items()),
        tuple(TensorFormat(name, "float32", shape) for name, shape in outputs.items()),
    )


def test_a_map_is_laid_out_for_the_other_file_and_its_outputs_are_brought_back() -> None:
    onnx = ends("NCHW", {"x": (1, 3, 5, 7)}, {"y": (1, 2, 5, 7)})
    tflite = ends("NHWC", {"serving_x": (1, 5, 7, 3)}, {"out": (1, 5, 7, 2)})
    x = RNG.standard_normal((4, 1, 3, 5, 7), np.float32)

    def first(inputs: Arrays) -> Arrays:
        return {"y": inputs["x"][:, :, :2] * 2}

    def second(inputs: Arrays) -> Arrays:
        given = inputs["serving_x"]
        assert given.shape == (4, 1, 5, 7, 3)
        return {"out": given[..., :2] * 2}

    found, given, got = compare_files((onnx, tflite), {"x": x}, first, second)
    (output,) = found.outputs
    assert (found.samples, found.inputs_moved) == (4, ("channels last",))
    assert (output.name, output.other, output.max_abs_error) == ("y", "out", 0.0)
    assert output.cosine == pytest.approx(1)
    np.testing.assert_array_equal(given["y"], got["y"])
    check_files(found, ["floats", "floats"], ("a", "b"))


def test_where_shapes_leave_two_ways_the_outputs_decide() -> None:
    onnx = ends("NCHW", {"x": (1, 4, 4, 4)}, {"y": (1, 3)})
    other = ends("NHWC", {"x": (1, 4, 4, 4)}, {"y": (1, 3)})
    assert [way.inputs[0].way for way in pair_files(onnx, other)][-1] == "as it is"
    x = RNG.standard_normal((2, 1, 4, 4, 4), np.float32)

    def run(inputs: Arrays) -> Arrays:
        return {"y": inputs["x"][:, :, 0, 1, :3]}

    found, _, _ = compare_files((onnx, other), {"x": x}, run, run)
    assert found.inputs_moved == ()
    assert found.outputs[0].max_abs_error == 0


def test_an_output_of_any_shape_is_laid_out_as_it_comes() -> None:
    onnx = ends("NCHW", {"x": (1, 3, 4, 6)}, {"y": (-1, -1, -1, -1)})
    tflite = ends("NHWC", {"x": (1, 4, 6, 3)}, {"y": (1, 4, 6, 1)})
    x = RNG.standard_normal((2, 1, 3, 4, 6), np.float32)
    found, _, _ = compare_files(
        (onnx, tflite),
        {"x": x},
        lambda inputs: {"y": inputs["x"][:, :, :1]},
        lambda inputs: {"y": inputs["x"][..., :1]},
    )
    assert found.outputs[0].max_abs_error == 0
    with pytest.raises(VerificationError, match="has the shape"):
        compare_files(
            (onnx, tflite),
            {"x": x},
            lambda inputs: {"y": inputs["x"][:, :, :2]},
            lambda inputs: {"y": inputs["x"][..., :1]},
        )


def test_outputs_of_one_shape_and_other_names_are_matched_by_what_they_hold() -> None:
    one = ends("NHWC", {"x": (1, 6)}, {"note": (1, 6), "onset": (1, 6), "contour": (1, 2)})
    other = ends("NHWC", {"x": (1, 6)}, {"a": (1, 6), "b": (1, 2), "c": (1, 6)})
    x = RNG.standard_normal((3, 1, 6), np.float32)

    def first(inputs: Arrays) -> Arrays:
        v = inputs["x"]
        return {"note": v * 3, "onset": -v, "contour": v[..., :2]}

    def second(inputs: Arrays) -> Arrays:
        v = inputs["x"]
        return {"a": -v, "b": v[..., :2], "c": v * 3}

    found, _, _ = compare_files((one, other), {"x": x}, first, second)
    assert [(o.name, o.other, o.max_abs_error) for o in found.outputs] == [
        *(("note", "c", 0.0), ("onset", "a", 0.0), ("contour", "b", 0.0)),
    ]


def test_files_of_other_networks_are_told_apart() -> None:
    one = ends("NHWC", {"x": (1, 6)}, {"y": (1, 3)})
    with pytest.raises(ConfigError, match=r"1 and 2 inputs \(x \[1, 6\]; x .*, h \[1, 4\]\)"):
        pair_files(one, ends("NHWC", {"x": (1, 6), "h": (1, 4)}, {"y": (1, 3)}))
    with pytest.raises(ConfigError, match=r"'x' is \[1, 6\] in one .*, and 'z' is \[1, 7\]"):
        pair_files(one, ends("NHWC", {"z": (1, 7)}, {"y": (1, 3)}))
    assert pair_files(one, ends("NHWC", {"x": (-1, 6)}, {"y": (1, 1, 3)}))[0].outputs[0].way == (
        "reshaped"
    )


@pytest.mark.parametrize(
    ("change", "numbers", "sentence"),
    [
        (0.01, ("floats", "floats"), r"output 'y' differs by up to 0.01"),
        (0.5, ("floats", "halves"), r"of its range \(at most 0.02\)"),
        (np.nan, ("floats", "floats"), "differs by up to nan"),
        (2.0, ("floats", "integers"), r"dB SQNR in the median sample \(at least 10\)"),
        (np.nan, ("integers", "integers"), "reaches nan dB"),
    ],
)
def test_what_differs_by_more_than_numbers_allow_is_named(
    change: float, numbers: tuple[str, str], sentence: str
) -> None:
    first = np.linspace(-1, 1, 60, dtype=np.float32).reshape(5, 12)
    wrong = first.copy()
    wrong[:, 3] += change
    figures = compare_output("y", "z", first, wrong)
    close = compare_output("y", "z", first, first + np.float32(1e-6))

    check_files(Beside(5, (close,)), list(numbers), ("a.onnx", "b.tflite"))  # type: ignore[arg-type]
    with pytest.raises(VerificationError, match=sentence):
        check_files(Beside(5, (figures,)), list(numbers), ("a.onnx", "b.tflite"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("second", "generated", "advised"),
    [("integers", True, True), ("integers", False, False), ("floats", True, False)],
)
def test_codes_that_fail_generated_inputs_are_told_to_try_real_ones(
    *, second: Numbers, generated: bool, advised: bool
) -> None:
    first = np.linspace(-1, 1, 60, dtype=np.float32).reshape(5, 12)
    found = Beside(5, (compare_output("y", "y", first, first + 2),))

    with pytest.raises(VerificationError) as raised:
        check_files(found, ["floats", second], ("a.onnx", "b.tflite"), generated=generated)

    assert ("--data compares on real ones" in str(raised.value)) == advised


@pytest.mark.parametrize("wrong", [np.inf, -np.inf])
def test_an_output_that_overflows_is_named_not_a_crash(wrong: float) -> None:
    first = np.array([[1.0, 2.0], [0.0, 3.0]], np.float32)
    second = np.array([[1.0, 2.0], [wrong, 3.0]], np.float32)

    found = compare_output("y", "y", first, second)

    assert found.sqnr_db == -np.inf
    with pytest.raises(VerificationError, match="the output 'y' differs by up to"):
        check_files(Beside(2, (found,)), ["floats", "floats"], ("a.onnx", "a.tflite"))


def test_integers_are_counted() -> None:
    first = np.arange(200).reshape(10, 20)
    wrong = first.copy()
    wrong[0, :5] += 1
    figures = compare_output("place", "place", first, wrong)
    assert (figures.equal_share, figures.sqnr_db) == (0.975, None)

    with pytest.raises(VerificationError, match=r"equal in 97.5% of its values \(at least 99%\)"):
        check_files(Beside(10, (figures,)), ["floats", "floats"], ("a", "b"))


def test_an_output_without_a_finite_number_is_not_called_equal() -> None:
    nothing = np.full((4, 3), np.nan, np.float32)
    sentence = r"'y' holds no finite number in either file on these inputs"
    with pytest.raises(VerificationError, match=sentence):
        compare_output("y", "y", nothing, nothing)
    some = nothing.copy()
    some[0, 0] = 1.0
    assert compare_output("y", "y", some, some).max_abs_error == 0


@pytest.mark.parametrize(
    ("classes", "equal", "numbers", "passes"),
    [
        (10, 60, "integers", True),
        (10, 40, "integers", False),
        (2, 60, "integers", False),
        (10, 98, "floats", False),
    ],
)
def test_class_numbers_of_an_int8_file_may_turn_over(
    classes: int, equal: int, numbers: Numbers, *, passes: bool
) -> None:
    first = np.arange(100).reshape(100, 1) % classes
    second = np.where(np.arange(100)[:, None] < equal, first, (first + 1) % classes)
    found = Beside(100, (compare_output("a", "b", first, second),))
    if passes:
        check_files(found, ["floats", numbers], ("one", "two"))
        return
    with pytest.raises(VerificationError, match="is equal in"):
        check_files(found, ["floats", numbers], ("one", "two"))
