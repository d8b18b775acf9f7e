"""Open dimensions: none is guessed, what is given must fit, and names that agree must agree."""

from __future__ import annotations

from typing import Any

import pytest

from device_agents.agent.shapes import Dims, check, resolve, text
from device_agents.agent.wire import Refused

IMAGE: list[tuple[str, Dims]] = [("image", ["batch", 3, "height", "width"])]
TEXT: list[tuple[str, Dims]] = [
    ("ids", ["batch", "seq"]),
    ("mask", ["batch", "seq"]),
    ("past", ["batch", 4, "past"]),
]


@pytest.mark.parametrize(
    ("inputs", "given", "shapes"),
    [
        ([("x", [1, 3, 8, 8])], {}, [[1, 3, 8, 8]]),
        ([("x", [1, 3, 8, 8])], {"": [1, 3, 8, 8]}, [[1, 3, 8, 8]]),
        ([("x", [])], {}, [[]]),
        # A batch alone is 1, whatever converters call it, or what another input was given.
        ([("x", ["N", 3, 8, 8])], {}, [[1, 3, 8, 8]]),
        ([("x", ["unk__17", 8])], {}, [[1, 8]]),
        ([("x", ["", 8]), ("y", ["", 2])], {}, [[1, 8], [1, 2]]),
        ([("x", ["", 8]), ("y", ["", 2])], {"y": [4, 2]}, [[4, 8], [4, 2]]),
        (IMAGE, {"image": [1, 3, 640, 480]}, [[1, 3, 640, 480]]),
        (IMAGE, {"": [2, 3, 4, 5]}, [[2, 3, 4, 5]]),
        # One name, one length: the mask follows the ids.
        (TEXT, {"ids": [1, 7], "past": [1, 4, 9]}, [[1, 7], [1, 7], [1, 4, 9]]),
        ([("x", None)], {"x": [5, 6]}, [[5, 6]]),
        # What some exporters write for every open dimension is no name.
        ([("x", ["?", 3, "?", "?"])], {"x": [1, 3, 48, 192]}, [[1, 3, 48, 192]]),
        ([("x", ["?", 8])], {}, [[1, 8]]),
    ],
)
def test_shapes(inputs: Any, given: dict[str, list[int]], shapes: list[list[int]]) -> None:
    assert resolve(inputs, given) == shapes


@pytest.mark.parametrize(
    ("inputs", "given", "words"),
    [
        (
            IMAGE,
            {},
            "batch, height, width of image (batchx3xheightxwidth); give them as `--input-shape B",
        ),
        # A first dimension that is no batch decides over the time like any other.
        ([("x", ["frames", 40])], {}, "frames of x (framesx40)"),
        ([("x", ["n"])], {}, "n of x"),
        ([("x", [1, "", ""])], {}, "? of x (1x?x?); give them as `--input-shape 1xD1xD2`"),
        ([("x", None)], {}, "all of them of x (any shape); give them as `--input-shape AxBxC`"),
        (
            TEXT,
            {"ids": [1, 7]},
            "past of past (batchx4xpast); give them as `--input-shape past=BATCHx4xPAST`",
        ),
        (IMAGE, {"img": [1, 3, 8, 8]}, "no input 'img'; its inputs are image (batchx3xheightx"),
        (IMAGE, {"image": [1, 1, 8, 8]}, "1x1x8x8 does not fit input image (batchx3xheightxwidth"),
        (IMAGE, {"image": [3, 8, 8]}, "3x8x8 does not fit input image"),
        (IMAGE, {"": [1, 3, 8, 8], "image": [1, 3, 8, 8]}, "input image is given two shapes"),
        (TEXT, {"": [1, 7]}, "the model has 3 inputs, so a shape needs the name of one: ids"),
        (
            TEXT,
            {"ids": [1, 7], "mask": [1, 8], "past": [1, 4, 9]},
            "one dimension seq, which is 7 in the shape of ids and 8 in that of mask",
        ),
    ],
)
def test_refusals_name_the_dimension(inputs: Any, given: dict[str, list[int]], words: str) -> None:
    with pytest.raises(Refused) as error:
        resolve(inputs, given)
    assert words in str(error.value)
    assert error.value.kind == "bad_request"


@pytest.mark.parametrize(
    "value",
    [
        *([], {"x": 3}, {"x": [0]}, {"x": [-1, 3]}, {"x": [1.5]}, {"x": [True]}, {"x": ["3"]}),
        *({"x": [1] * 17}, {"x": [1 << 20, 1 << 20]}),
    ],
)
def test_what_a_host_sends_is_checked(value: object) -> None:
    words = (
        "is not an object" if isinstance(value, list) else "of input 'x' is no list of at most 16"
    )
    with pytest.raises(Refused, match=words):
        check(value)


def test_a_shape_reads_as_it_is_given() -> None:
    assert text([1, "", "w"]) == "1x?xw"
    assert text([]) == "scalar"
