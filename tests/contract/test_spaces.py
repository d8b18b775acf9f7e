"""What every search space promises; a new file in pipeline/search/space is tested without a word.

Every space can be built from an input and a number of classes alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.cost import cost
from models.spec import ArchSpec
from pipeline.search import space as spaces
from tests.search_problems import Cells

if TYPE_CHECKING:
    from pipeline.search.api import SearchSpace

DRAWS = 60


@pytest.fixture(params=[*spaces.SPACES.names(), "cells"])
def space(request: pytest.FixtureRequest) -> SearchSpace:
    if request.param == "cells":  # the base class alone, in the smallest possible subclass
        return Cells()
    return spaces.create(request.param, input=(32, 32, 3), classes=10)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_there_are_spaces_and_each_has_a_summary() -> None:
    assert spaces.SPACES.names()
    assert all(spaces.SPACES.summary(name).endswith(".") for name in spaces.SPACES.names())


def test_name_decisions_and_size_agree(space: SearchSpace) -> None:
    assert space.name in {*spaces.SPACES.names(), "cells"}
    assert len(space.decisions) == len(set(space.decisions)) == len(space.cardinalities)
    assert min(space.cardinalities) >= 1
    assert space.size == np.prod([float(count) for count in space.cardinalities])


def test_samples_are_different_networks_of_the_space(
    space: SearchSpace, rng: np.random.Generator
) -> None:
    specs = [space.sample(rng) for _ in range(DRAWS)]
    assert all(isinstance(spec, ArchSpec) and spec in space for spec in specs)
    assert len(set(specs)) > DRAWS // 2


def test_the_same_seed_gives_the_same_networks(space: SearchSpace) -> None:
    def draws(seed: int) -> list[ArchSpec]:
        rng = np.random.default_rng(seed)
        a, b = space.sample(rng), space.sample(rng)
        return [a, b, space.mutate(a, rng), space.crossover(a, b, rng)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_every_decision_makes_a_difference(space: SearchSpace, rng: np.random.Generator) -> None:
    encoded = np.array([space.encode(space.sample(rng)) for _ in range(5 * DRAWS)])
    starts = np.cumsum([0, *space.cardinalities[:-1]])
    drawn = np.add.reduceat((encoded.sum(axis=0) > 0).astype(int), starts)
    assert np.all(drawn >= np.minimum(2, space.cardinalities))


def test_choices_inverts_decode_up_to_equal_networks(
    space: SearchSpace, rng: np.random.Generator
) -> None:
    for _ in range(DRAWS):
        drawn = tuple(int(rng.integers(count)) for count in space.cardinalities)
        spec = space.decode(drawn)
        assert space.decode(space.choices(spec)) == spec


def test_mutants_differ_and_stay(space: SearchSpace, rng: np.random.Generator) -> None:
    spec = space.sample(rng)
    for _ in range(DRAWS):
        mutant = space.mutate(spec, rng)
        assert mutant != spec
        assert mutant in space
        spec = mutant


def test_children_come_from_their_parents(space: SearchSpace, rng: np.random.Generator) -> None:
    for _ in range(DRAWS):
        a, b = space.sample(rng), space.sample(rng)
        child = space.crossover(a, b, rng)
        assert child in space
        assert space.crossover(a, a, rng) == a


def test_encoding_is_one_hot_and_tells_networks_apart(
    space: SearchSpace, rng: np.random.Generator
) -> None:
    specs = list(dict.fromkeys(space.sample(rng) for _ in range(DRAWS)))
    vectors = np.array([space.encode(spec) for spec in specs])
    assert vectors.shape == (len(specs), sum(space.cardinalities))
    assert vectors.dtype == np.float64
    starts = np.cumsum([0, *space.cardinalities[:-1]])
    assert np.all(np.add.reduceat(vectors, starts, axis=1) == 1)
    assert len(np.unique(vectors, axis=0)) == len(specs)


def test_networks_of_elsewhere_are_outside(space: SearchSpace, rng: np.random.Generator) -> None:
    stranger = space.sample(rng).with_classes(17)
    assert stranger not in space
    assert 17 not in space
    with pytest.raises(ValueError, match="not in space"):
        space.choices(stranger)


def test_networks_can_be_lowered_and_counted(space: SearchSpace, rng: np.random.Generator) -> None:
    assert all(cost(space.sample(rng)).macs > 0 for _ in range(DRAWS))
