"""A network from a supernet trained on: from its own weights, gently, and once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from device_agents.api import Failure
from models.spec import ArchSpec
from pipeline.data import Data, load_dataset
from pipeline.recipe.recipe import Recipe
from pipeline.store import Store
from pipeline.store.memo import Memo
from pipeline.train.loop import Trained, train
from pipeline.train.remembered import Training, finetune_network

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.network import Network

RECIPE = Path(__file__).parents[1] / "recipes" / "tiny.toml"
SPEC = ArchSpec.parse("12x12x1:same:conv_k3_s2_o8:mb_k3_s2_m24_o16:conv_k1_s1_o32:fc10")


RECIPE_TRAIN = Recipe.load(RECIPE, ["train.learning_rate=0.2", "train.batch_size=32"]).train
TRAINING = Training(RECIPE_TRAIN, 0)
DATA = Data(load_dataset("digits", {}, resolution=16, fractions=(0.6, 0.2, 0.2), seed=0))


@pytest.fixture
def memo(tmp_path: Path) -> Iterator[Memo]:
    with Store.open(tmp_path / "store") as store:
        yield Memo(store)


@pytest.fixture
def start() -> Network:
    found = train(SPEC, DATA, replace(TRAINING.config, epochs=1), seed=3)
    assert isinstance(found, Trained)
    return found.network


def same(a: Network, b: Network) -> bool:
    mine, theirs = a.module.state_dict(), b.module.state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_it_goes_on_from_the_weights_at_a_tenth_of_the_rate_and_once(
    memo: Memo, start: Network
) -> None:
    tuned = finetune_network(start, TRAINING, epochs=2, data=DATA, memo=memo)
    assert isinstance(tuned, Trained)
    gentle = replace(TRAINING.config, epochs=2, learning_rate=0.02)
    expected = train(SPEC, DATA, gentle, seed=TRAINING.seed, start=start)
    scratch = train(SPEC, DATA, gentle, seed=TRAINING.seed)
    assert isinstance(expected, Trained)
    assert isinstance(scratch, Trained)
    assert same(tuned.network, expected.network)
    assert not same(tuned.network, scratch.network)
    assert tuned.accuracy == expected.accuracy

    again = finetune_network(start, TRAINING, epochs=2, data=DATA, memo=memo)
    assert isinstance(again, Trained)
    assert same(again.network, tuned.network)
    assert again.wall_s == tuned.wall_s, "it was trained again"
    other = finetune_network(scratch.network, TRAINING, epochs=2, data=DATA, memo=memo)
    assert isinstance(other, Trained)
    assert not same(other.network, tuned.network)


def test_weights_that_are_no_numbers_are_a_failure(memo: Memo, start: Network) -> None:
    with torch.no_grad():
        next(start.module.parameters()).fill_(float("nan"))
    found = finetune_network(start, TRAINING, epochs=1, data=DATA, memo=memo)
    assert isinstance(found, Failure)
    assert "diverged" in found.reason
