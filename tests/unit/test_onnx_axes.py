"""Layouts as digits, held against numpy's own transposes and reshapes."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.formats.onnx.axes import (
    as_it_is,
    find_axes,
    join_digits,
    refine_digits,
    split_digits,
    turn_digits,
    whole,
)
from tests.spec_strategies import REPLAY

SHAPES = st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=5).map(tuple)


def order(digits: tuple[tuple[int, int], ...]) -> list[int]:
    """The values of the reference in the order of the digits."""
    places = np.zeros((), int)
    for size, stride in digits:
        places = places[..., None] + np.arange(size) * stride
    return [int(place) for place in places.ravel()]


@settings(REPLAY, max_examples=200)
@given(SHAPES, st.randoms())
def test_turning_digits_is_numpys_transpose(shape: tuple[int, ...], rng: object) -> None:
    axes = list(range(len(shape)))
    rng.shuffle(axes)  # type: ignore[attr-defined]
    digits = turn_digits(whole(prod(shape)), shape, tuple(axes))
    assert digits is not None
    values = np.arange(prod(shape)).reshape(shape).transpose(axes).ravel()
    assert order(digits) == values.tolist()
    found = find_axes(digits, whole(prod(shape)), shape)
    assert found is not None  # another order may be the same one, of axes with one entry
    assert np.arange(prod(shape)).reshape(shape).transpose(found).ravel().tolist() == order(digits)


@settings(REPLAY, max_examples=200)
@given(SHAPES, st.randoms())
def test_two_orders_are_one_transpose_of_finer_digits_apart(
    shape: tuple[int, ...], rng: object
) -> None:
    ends, size = [], prod(shape)
    for _ in range(2):
        axes = list(range(len(shape)))
        rng.shuffle(axes)  # type: ignore[attr-defined]
        digits = turn_digits(whole(size), shape, tuple(axes))
        assert digits is not None
        ends.append(digits)
    found = refine_digits(*ends)
    assert found is not None
    digits, axes = found
    held = np.array(order(ends[0])).reshape([count for count, _ in digits])
    assert held.transpose(axes).ravel().tolist() == order(ends[1])


def test_a_reshape_after_a_transpose_may_need_values_to_move() -> None:
    digits = turn_digits(whole(24), (4, 6), (1, 0))
    assert digits == ((6, 1), (4, 6))
    assert split_digits(digits, (2, 3, 4)) == [((2, 3),), ((3, 1),), ((4, 6),)]
    assert split_digits(digits, (4, 6)) is None
    assert turn_digits(digits, (4, 6), as_it_is(2)) is None
    assert refine_digits(((6, 1), (4, 6)), ((4, 1), (6, 4))) is None
    assert join_digits([(2, 12), (1, 5), (3, 4), (4, 1)]) == ((24, 1),)
