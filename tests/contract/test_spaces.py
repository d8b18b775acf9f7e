"""What every search space promises; a new file in a folder of spaces is tested without a word.

Every space of networks can be built from an input and a number of classes alone, every recorded
space from nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from models.cost import cost
from models.lower import lower
from models.spec import ArchSpec
from pipeline.search import space as spaces
from pipeline.search.recorded import RECORDED
from tests.search_problems import Cells

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pipeline.search.api import SearchSpace

DRAWS = 60


def build(name: str) -> SearchSpace[Any]:
    if name == "cells":  # the base class alone, in the smallest possible subclass
        return Cells()
    if name in RECORDED.names():
        recorded: SearchSpace[Any] = RECORDED.load(name)()
        return recorded
    return spaces.create(name, input=(32, 32, 3), classes=10)


@pytest.fixture(params=[*spaces.SPACES.names(), "cells", *RECORDED.names()])
def space(request: pytest.FixtureRequest) -> SearchSpace[Any]:
    made = build(request.param)
    assert made.name == request.param
    return made


@pytest.fixture(params=[*spaces.SPACES.names(), "cells"])
def network_space(request: pytest.FixtureRequest) -> SearchSpace[ArchSpec]:
    return build(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_there_are_spaces_and_each_has_a_summary() -> None:
    assert spaces.SPACES.names()
    for folder in (spaces.SPACES, RECORDED):
        assert all(folder.summary(name).endswith(".") for name in folder.names())


def test_decisions_and_size_agree(space: SearchSpace[Any]) -> None:
    assert min(space.cardinalities) >= 1
    assert space.size == math.prod(space.cardinalities)


def test_samples_are_different_points_of_the_space(
    space: SearchSpace[Any], rng: np.random.Generator
) -> None:
    specs = [space.sample(rng) for _ in range(DRAWS)]
    assert all(spec in space and "\n" not in str(spec) for spec in specs)
    assert len(set(specs)) > DRAWS // 2


def test_the_same_seed_gives_the_same_points(space: SearchSpace[Any]) -> None:
    def draws(seed: int) -> list[Hashable]:
        rng = np.random.default_rng(seed)
        a, b = space.sample(rng), space.sample(rng)
        return [a, b, space.mutate(a, rng), space.crossover(a, b, rng)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_every_decision_makes_a_difference(
    space: SearchSpace[Any], rng: np.random.Generator
) -> None:
    encoded = np.array([space.encode(space.sample(rng)) for _ in range(5 * DRAWS)])
    starts = np.cumsum([0, *space.cardinalities[:-1]])
    drawn = np.add.reduceat((encoded.sum(axis=0) > 0).astype(int), starts)
    assert np.all(drawn >= np.minimum(2, space.cardinalities))


def test_choices_inverts_decode_up_to_equal_points(
    space: SearchSpace[Any], rng: np.random.Generator
) -> None:
    for _ in range(DRAWS):
        drawn = tuple(int(rng.integers(count)) for count in space.cardinalities)
        spec = space.decode(drawn)
        assert space.decode(space.choices(spec)) == spec


def test_mutants_differ_and_stay(space: SearchSpace[Any], rng: np.random.Generator) -> None:
    spec = space.sample(rng)
    for _ in range(DRAWS):
        mutant = space.mutate(spec, rng)
        assert mutant != spec
        assert mutant in space
        spec = mutant


def test_children_come_from_their_parents(
    space: SearchSpace[Any], rng: np.random.Generator
) -> None:
    for _ in range(DRAWS):
        a, b = space.sample(rng), space.sample(rng)
        child = space.crossover(a, b, rng)
        assert child in space
        assert space.crossover(a, a, rng) == a


def test_encoding_is_one_hot_and_tells_points_apart(
    space: SearchSpace[Any], rng: np.random.Generator
) -> None:
    specs = list(dict.fromkeys(space.sample(rng) for _ in range(DRAWS)))
    vectors = np.array([space.encode(spec) for spec in specs])
    assert vectors.shape == (len(specs), sum(space.cardinalities))
    assert vectors.dtype == np.float64
    starts = np.cumsum([0, *space.cardinalities[:-1]])
    assert np.all(np.add.reduceat(vectors, starts, axis=1) == 1)
    assert len(np.unique(vectors, axis=0)) == len(specs)


def test_features_are_finite_and_tell_points_apart(
    space: SearchSpace[Any], rng: np.random.Generator
) -> None:
    specs = list(dict.fromkeys(space.sample(rng) for _ in range(DRAWS)))
    vectors = np.array([space.features(spec) for spec in specs])
    latency = np.array([space.latency_features(spec) for spec in specs])
    assert np.array_equal(latency, vectors)  # no space knows other devices unless it is told
    assert vectors.ndim == 2
    assert vectors.dtype == np.float64
    assert np.all(np.isfinite(vectors))
    assert len(np.unique(vectors, axis=0)) == len(specs)
    # Not of the instance and not of what it was asked before.
    again = build(space.name)
    backwards = [again.features(spec) for spec in reversed(specs)]
    assert np.array_equal(vectors, backwards[::-1])


def test_what_makes_no_difference_is_in_no_vector(
    space: SearchSpace[Any], rng: np.random.Generator
) -> None:
    for _ in range(DRAWS):
        drawn = [int(rng.integers(count)) for count in space.cardinalities]
        at = int(rng.integers(len(drawn)))
        spec = space.decode(tuple(drawn))
        drawn[at] = int(rng.integers(space.cardinalities[at]))
        other = space.decode(tuple(drawn))
        assert (space.choices(spec) == space.choices(other)) == (spec == other)
        assert np.array_equal(space.features(spec), space.features(other)) == (spec == other)


def test_points_of_elsewhere_are_outside(space: SearchSpace[Any]) -> None:
    assert 17 not in space
    assert None not in space
    assert "k3_e6" not in space


def test_networks_of_elsewhere_are_outside(
    network_space: SearchSpace[ArchSpec], rng: np.random.Generator
) -> None:
    stranger = network_space.sample(rng).with_classes(17)
    assert stranger not in network_space
    with pytest.raises(ValueError, match="not in space"):
        network_space.choices(stranger)


def test_a_network_that_fits_no_input_of_the_space_is_outside(
    network_space: SearchSpace[ArchSpec],
) -> None:
    # Its first block adds its input, which has another number of channels than the space's.
    stranger = ArchSpec.parse("32x32x16:same:conv_k3_s1_o16_skip:fc10")
    assert stranger not in network_space
    with pytest.raises(ValueError, match="not in space"):
        network_space.choices(stranger)


def test_networks_can_be_lowered_and_counted(
    network_space: SearchSpace[ArchSpec], rng: np.random.Generator
) -> None:
    assert all(cost(network_space.sample(rng)).macs > 0 for _ in range(DRAWS))


@pytest.mark.parametrize("name", spaces.SPACES.names())
def test_networks_fit_inputs_small_and_large_from_the_name_alone(
    name: str, rng: np.random.Generator
) -> None:
    for size, pixels in ((8, 1), (32, 4), (95, 12), (96, 3), (224, 7)):
        space = spaces.create(name, input=(size, size, 3), classes=7, channel_multiple=16)
        spec = space.sample(rng)
        assert spec.input == (size, size, 3)
        assert lower(spec)["pool"].in_shapes[0][1:3] == (pixels, pixels)
        assert all(block.out % 16 == 0 for block in spec.blocks)
