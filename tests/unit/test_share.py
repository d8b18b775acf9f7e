"""Weights that share values: as few as asked, as near as can be, zeros apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from device_agents.errors import ConfigError
from models.execute import execute_all
from models.lower import lower
from models.model import Model, random_model
from models.spec import ArchSpec
from pipeline.compress.api import Needs
from pipeline.compress.clusters import share
from pipeline.compress.passes import create

SPEC = "16x16x3:same:conv_k3_s2_o16:mb_k3_s1_m32_o16_se8-relu-hardsigmoid_skip:fc5"
NUMBERS = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=1, max_dims=2, max_side=40),
    elements=st.one_of(st.just(0.0), st.floats(-1e3, 1e3, width=32), st.integers(-3, 3).map(float)),
)


def net(seed: int = 0) -> Model:
    return random_model(lower(ArchSpec.parse(SPEC)), np.random.default_rng(seed))


def squared_error(numbers: np.ndarray, values: np.ndarray) -> float:
    return float(np.square(numbers.astype(np.float64)[..., None] - values).min(-1).sum())


@settings(deadline=None, max_examples=60)
@given(NUMBERS, st.sampled_from([2, 4, 32]), st.sampled_from(["linear", "density"]))
def test_never_worse_than_evenly_spaced_values(numbers: np.ndarray, most: int, start: str) -> None:
    found = share(numbers, most, start)  # type: ignore[arg-type]
    made = found.numbers
    assert made.shape == numbers.shape
    assert len(np.unique(made)) <= len(found.values) <= most
    assert (made[numbers == 0] == 0).all()
    there = numbers[numbers != 0]
    if not there.size:
        return
    evenly = np.linspace(there.min(), there.max(), most - bool((numbers == 0).any()))
    error = float(np.square(made.astype(np.float64) - numbers).sum())
    rounding = numbers.size * (1e-6 * float(np.abs(numbers).max())) ** 2
    assert error <= 1.0001 * squared_error(there, evenly) + rounding
    # Each number has the nearest of the values that numbers like it may have.
    others = found.values[found.values != 0] if (numbers == 0).any() else found.values
    if others.size:
        assert error <= 1.0001 * squared_error(there, others) + rounding
    assert found.counts.sum() == numbers.size


def test_clusters_that_are_there_are_found() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([-5, -1, 2, 9])
    numbers = rng.permutation(np.repeat(centres, [10, 500, 40, 1]) + 0.01 * rng.random(551))
    found = share(numbers, 4, "linear")
    assert np.abs(found.values - centres).max() < 0.02
    assert found.counts.tolist() == [10, 500, 40, 1]


def test_each_value_is_the_mean_of_its_numbers() -> None:
    numbers = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    found = share(numbers, 16, "linear")
    for place, value in enumerate(found.values):
        assert value == pytest.approx(numbers[found.places == place].mean(), abs=1e-5)


def test_few_values_stay_what_they_are() -> None:
    numbers = np.array([[0, 3, 0, -2], [3, 3, 0.5, -2]], np.float32)
    np.testing.assert_array_equal(share(numbers, 4, "linear").numbers, numbers)
    shared = share(np.random.default_rng(0).standard_normal(900), 32, "linear").numbers
    np.testing.assert_array_equal(share(shared, 32, "density").numbers, shared)


@pytest.mark.parametrize("start", ["linear", "density"])
def test_more_values_than_clusters_that_have_an_error(start: str) -> None:
    """Most evenly spaced values of magnitudes this far apart have no number near them."""
    rng = np.random.default_rng(0)
    for count in rng.integers(150, 400, 20):
        numbers = np.exp(8 * rng.standard_normal(count)).astype(np.float32)
        found = share(numbers, 128, start)  # type: ignore[arg-type]
        assert found.counts.sum() == count
        evenly = np.linspace(numbers.min(), numbers.max(), 128)
        error = float(np.square(found.numbers.astype(np.float64) - numbers).sum())
        assert error <= 1.0001 * squared_error(numbers, evenly)


def test_a_network_has_no_more_values_and_nearly_the_same_outputs() -> None:
    model = net()
    x = {"input": np.random.default_rng(1).standard_normal((4, 16, 16, 3)).astype(np.float32)}
    before = execute_all(model, x)
    noise = {}
    for bits in (2, 8):
        made = create("share", bits=bits).apply(model, Needs())
        for op in made.graph.ops:
            if op.has_weights and op.kind != "depthwise":
                assert len(np.unique(made.weights[op.name][0])) <= 1 << bits
                np.testing.assert_array_equal(made.weights[op.name][1], model.weights[op.name][1])
        after = execute_all(made, x)
        noise[bits] = max(
            np.abs(after[name] - value).max() / np.abs(value).max()
            for name, value in before.items()
        )
        assert f"as codes of {bits} bits; their entropy is " in made.history[-1]
    assert noise[8] < 0.02 < noise[2]


def test_what_is_0_stays_0_and_nothing_else_becomes_it() -> None:
    sparse = create("sparsify", ratio=0.8).apply(net(), Needs())
    made = create("share", bits=3).apply(sparse, Needs())
    for name, (weight, *_) in sparse.weights.items():
        np.testing.assert_array_equal(made.weights[name][0] == 0, weight == 0)


def test_a_network_of_few_values_is_told_to_be_one() -> None:
    made = create("share", bits=4).apply(net(), Needs())
    again = create("share", bits=4).apply(made, Needs())
    assert again.digest() == made.digest()
    assert again.history[-1].startswith("shared nothing: ")


def test_layers_are_kept_and_mistakes_refused() -> None:
    model = net()
    name = next(op.name for op in model.graph.ops if op.has_weights)
    kept = create("share", bits=1, keep=[name]).apply(model, Needs())
    np.testing.assert_array_equal(kept.weights[name][0], model.weights[name][0])
    with pytest.raises(ConfigError, match="option 'bits': 9 is not a whole number from 1 up to 8"):
        create("share", bits=9)
    with pytest.raises(ConfigError, match="no op of the network is named 'nosuch'"):
        create("share", keep=["nosuch"]).apply(model, Needs())
    coded = create("small_weights").apply(model, Needs())
    with pytest.raises(ConfigError, match="dynamic8 already; weights are shared before"):
        create("share").apply(coded, Needs())
