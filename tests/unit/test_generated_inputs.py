"""Inputs that nobody gave: such as the model may be fed."""

from __future__ import annotations

import numpy as np

from models.graph import GraphBuilder
from models.model import Input, Model
from models.ops import Cast, Gather, Reshape
from pipeline.formats.beside import compare_output
from pipeline.formats.ends import FileEnds, TensorFormat
from pipeline.formats.generated_inputs import generate_inputs, index_ranges


def test_tokens_are_those_of_the_smallest_table_that_they_are_looked_up_in() -> None:
    builder = GraphBuilder()
    tokens = builder.input("tokens", (1, 6), "int64")
    large, small = builder.constant("large", (50, 4)), builder.constant("small", (3, 4))
    line = builder.op("reshape", "line", [tokens], Reshape((1, 2, 3)))
    narrow = builder.op("cast", "narrow", [line], Cast("int32"))
    a = builder.op("gather", "a", [large, narrow], Gather(0))
    b = builder.op("gather", "b", [small, narrow], Gather(0))
    mask = builder.input("mask", (1, 6), "int64")
    c = builder.op("cast", "c", [mask], Cast("float32"))
    model = Model(builder.graph(a, b, c), {}, inputs=(Input("words"), Input("mask")))
    ranges = index_ranges(model)
    assert ranges == {"words": (0, 2)}
    ends = FileEnds(
        "NHWC",
        (TensorFormat("words", "int64", (1, 6)), TensorFormat("mask", "int64", (1, 6))),
        (TensorFormat("y", "float32", (1,)),),
    )
    found = generate_inputs(ends, ranges=ranges)
    assert found["words"].dtype == np.int64
    assert set(found["words"].ravel().tolist()) == {0, 1, 2}
    assert set(found["mask"].ravel().tolist()) == {0, 1}


def test_what_is_no_number_in_both_is_no_difference() -> None:
    given = np.array([[1.0, np.nan, np.inf, 2.0]], np.float32)
    same = compare_output("y", "y", given, given.copy())
    assert (same.max_abs_error, same.value_range, same.error_share) == (0.0, 2.0, 0.0)
    for place, value in ((1, 1.0), (2, -np.inf), (0, np.nan)):
        other = given.copy()
        other[0, place] = value
        assert not compare_output("y", "y", given, other).error_share <= 1.0
