from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from device_agents.api import Failure
from device_agents.errors import ConfigError
from models.spec import ArchSpec
from pipeline.data import Data, load_dataset
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.sections import TrainDevice, TrainSection
from pipeline.train.augment import affine
from pipeline.train.devices import choose_device
from pipeline.train.loop import Trained, predict, train
from pipeline.train.remembered import Training
from tests.kept_states import Kept, Stop

SPEC = ArchSpec.parse("16x16x1:same:conv_k3_s2_o8:mb_k3_s2_m24_o16:conv_k1_s1_o32:fc10")
CONFIG = TrainSection(epochs=4, batch_size=32, learning_rate=0.1, augment=0.5)


@pytest.fixture(scope="module")
def digits() -> Data:
    return Data(load_dataset("digits", {}, resolution=16, fractions=(0.6, 0.2, 0.2), seed=0))


def trained(*args, **kwargs) -> Trained:  # noqa: ANN002, ANN003
    outcome = train(*args, **kwargs)
    assert isinstance(outcome, Trained)
    return outcome


def weights(outcome: Trained) -> dict[str, np.ndarray]:
    return {k: v.numpy() for k, v in outcome.network.module.state_dict().items()}


def test_it_learns(digits: Data) -> None:
    assert trained(SPEC, digits, replace(CONFIG, epochs=8), seed=0).accuracy > 0.85


def test_the_seed_decides_everything(digits: Data) -> None:
    config = replace(CONFIG, epochs=1)
    first, again, other = (trained(SPEC, digits, config, seed=s) for s in (0, 0, 1))
    assert first.network.digest() == again.network.digest() != other.network.digest()


@pytest.mark.parametrize("stop", [1, 3])
def test_a_training_resumed_ends_as_one_never_interrupted(digits: Data, stop: int) -> None:
    whole = trained(SPEC, digits, CONFIG, seed=0)
    kept = Kept(stop)
    with pytest.raises(Stop):
        train(SPEC, digits, CONFIG, seed=0, checkpoints=kept)
    epochs: list[int] = []
    resumed = trained(SPEC, digits, CONFIG, seed=0, checkpoints=kept, on_epoch=epochs.append)
    assert epochs == list(range(stop + 1, 5))
    for name, value in weights(whole).items():
        assert np.array_equal(value, weights(resumed)[name]), name


def test_divergence_is_a_failure_that_names_the_rate(digits: Data) -> None:
    outcome = train(SPEC, digits, replace(CONFIG, learning_rate=1e20), seed=0)
    assert isinstance(outcome, Failure)
    assert "diverged in epoch" in outcome.reason
    assert "1e+20" in outcome.reason


def test_a_network_whose_outputs_are_no_numbers_is_a_failure(digits: Data) -> None:
    validation = digits.dataset.validation
    far = replace(validation, images=np.full_like(validation.images, np.inf))
    broken = Data(replace(digits.dataset, validation=far))
    outcome = train(SPEC, broken, replace(CONFIG, epochs=1), seed=0)
    assert isinstance(outcome, Failure)
    assert "outputs are not numbers; lower the learning rate, now 0.1" in outcome.reason


def test_logits_do_not_depend_on_the_batch(digits: Data) -> None:
    module = trained(SPEC, digits, replace(CONFIG, epochs=1), seed=0).network.module
    images = digits.dataset.test.images
    alone = np.concatenate([predict(module, images[i : i + 1]) for i in range(5)])
    assert np.allclose(predict(module, images)[:5], alone, atol=1e-4)


def test_augmentation_of_strength_zero_changes_nothing() -> None:
    images = torch.rand(4, 2, 9, 9)
    same = affine(images, torch.Generator().manual_seed(0), strength=0.0)
    assert torch.allclose(same, images, atol=1e-5)
    moved = affine(images, torch.Generator().manual_seed(0), strength=1.0)
    assert moved.shape == images.shape
    assert not torch.allclose(moved, images, atol=1e-2)


def test_the_device_is_named_where_it_is_not_there(
    digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto").type == choose_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="no device 'cuda' on this machine; it has cpu: name one"):
        train(SPEC, digits, replace(CONFIG, device="cuda"), seed=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == choose_device("cuda").type == "cuda"


def test_where_it_is_trained_is_no_part_of_what_is_remembered(digits: Data) -> None:
    places: tuple[TrainDevice, ...] = ("cpu", "cuda")
    here, there = (Training(replace(CONFIG, device=one), 0) for one in places)
    assert here.inputs(SPEC, digits) == there.inputs(SPEC, digits)
    assert "device" not in here.inputs(SPEC, digits)["config"]
    recipe = Recipe("x", train=CONFIG)
    assert "device" not in recipe.to_json()["train"]
    assert Recipe("x", train=replace(CONFIG, device="auto")).digest() != recipe.digest()
