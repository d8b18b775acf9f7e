"""A supernet trained, interrupted, remembered and asked for its sub-networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch

from device_agents.api import Failure
from device_agents.errors import ConfigError
from models.spec import ArchSpec, SpecError
from models.supernet.elastic import ElasticNet
from pipeline.data.api import Data, Dataset, Split
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.sections import SupernetSection, TrainSection
from pipeline.search.space.ofa_mobilenet_v3 import OfaMobileNetV3Space
from pipeline.search.space.stages import ElasticStage
from pipeline.store import Store
from pipeline.store.memo import Memo
from pipeline.train import trained_supernet as supernets
from pipeline.train.loop import evaluate
from pipeline.train.recalibration import recalibrate
from pipeline.train.shrinking import Phase, phases
from pipeline.train.supernet import train_supernet
from pipeline.train.trained_supernet import Supernet, SupernetTraining, train_supernet_once
from tests.kept_states import Kept, Stop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.train.shrinking import ElasticSpace

RECIPE = Path(__file__).parents[1] / "recipes" / "tiny.toml"
SPACE = OfaMobileNetV3Space(
    input=(8, 8, 1),
    classes=3,
    stem=(3, 1, 8),
    stages=(ElasticStage(2, 8, "relu"), ElasticStage(1, 8, "hardswish", se=True)),
    head=16,
    feature_mix=0,
    depths=(1, 2),
    expansions=(2, 3),
    kernels=(3, 5),
    resolutions=(6, 8),
)
CONFIG = SupernetSection(
    full_epochs=6, kernel_epochs=2, depth_epochs=2, width_epochs=2, batch_size=16,
    learning_rate=0.1, elastic_learning_rate=0.05,
)  # fmt: skip
TRAIN = TrainSection(augment=0.2, label_smoothing=0.1)


def bars() -> Dataset:
    """Return images whose class is the third of the rows that is bright."""
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        labels = np.arange(count) % 3
        images = 0.5 * rng.standard_normal((count, 1, 8, 8))
        for image, label in zip(images, labels, strict=True):
            image[0, 3 * label : 3 * label + 2] += 1.5
        return Split(images.astype(np.float32), labels)

    return Dataset("bars", 3, split(96), split(48), split(12))


DATA = Data(bars())


def trained(config: SupernetSection = CONFIG, **options: object) -> ElasticNet:
    net = train_supernet(SPACE, DATA, config=config, train=TRAIN, seed=0, **options)  # type: ignore[arg-type]
    assert isinstance(net, ElasticNet)
    return net


@pytest.fixture(scope="module")
def whole() -> ElasticNet:
    return trained()


def test_the_phases_have_the_epochs_and_networks_of_the_paper() -> None:
    config = SupernetSection(
        full_epochs=180, kernel_epochs=125, depth_epochs=150, width_epochs=150,
        learning_rate=2.6, elastic_learning_rate=0.96,
    )  # fmt: skip
    space = OfaMobileNetV3Space(input=(32, 32, 1), classes=3)
    assert phases(space, config) == (
        Phase("full", 180, 2.6, 1, 1, 1, 1),
        Phase("kernel", 125, 0.96, 1, 3, 1, 1),
        Phase("depth", 25, pytest.approx(0.32), 2, 3, 2, 1),
        Phase("depth", 125, 0.96, 2, 3, 3, 1),
        Phase("width", 25, pytest.approx(0.32), 4, 3, 3, 2),
        Phase("width", 125, 0.96, 4, 3, 3, 3),
    )
    fixed = replace(space, kernels=(5,), depths=(2,))
    short = replace(config, width_epochs=3)
    assert [(p.name, p.epochs, p.expansions) for p in phases(fixed, short)] == [
        ("full", 180, 1),
        ("width", 3, 3),
    ]


@pytest.mark.parametrize("options", range(2, 13))
def test_no_phase_is_without_epochs_whatever_the_number_of_options(options: int) -> None:
    space = replace(SPACE, depths=tuple(range(1, options + 1)), expansions=(2,), kernels=(3,))
    epochs = [p.epochs for p in phases(space, replace(CONFIG, depth_epochs=60)) if p.depths > 1]
    assert sum(epochs) == 60
    assert len(epochs) == options - 1
    assert epochs[-1] == max(epochs) >= min(epochs) > 0


def test_depths_that_no_stage_has_are_no_phase() -> None:
    stages = tuple(replace(stage, depths=(2,)) for stage in SPACE.stages)
    names = [phase.name for phase in phases(replace(SPACE, stages=stages), CONFIG)]
    assert names == ["full", "kernel", "width"]


def test_before_a_width_only_those_that_were_trained_bound_the_sorting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    supported: list[list[float]] = []
    inner = SPACE.full.blocks[-2]

    def note(_net: ElasticNet, specs: list[ArchSpec]) -> None:
        supported.append([spec.blocks[-2].mid / inner.out for spec in specs])

    monkeypatch.setattr(ElasticNet, "sort_channels", note)
    space = replace(SPACE, expansions=(2, 3, 4))
    least = replace(CONFIG, full_epochs=1, kernel_epochs=0, depth_epochs=0)
    for width_epochs in (1, 6):
        config = replace(least, width_epochs=width_epochs)
        assert isinstance(
            train_supernet(space, DATA, config=config, train=TRAIN, seed=0), ElasticNet
        )
    # One epoch leaves no time for expansion 3 by itself.
    assert supported == [[4], [4], [3, 4]]


def test_every_sub_network_learns(whole: ElasticNet) -> None:
    rng = np.random.default_rng(3)
    for spec in [SPACE.full, *(SPACE.sample(rng) for _ in range(6))]:
        network = whole.extract(spec)
        data = DATA.at(spec.input)
        recalibrate(network.module, data.train.images, batch_size=96)
        assert evaluate(network.module, data.validation, DATA.task) > 0.8, spec
    assert not torch.equal(whole.matrices["2_5_3"], torch.eye(9))


@pytest.mark.parametrize("stop", [6, 11])
def test_a_training_resumed_ends_as_one_never_interrupted(whole: ElasticNet, stop: int) -> None:
    kept = Kept(stop)
    with pytest.raises(Stop):
        trained(checkpoints=kept)
    epochs: list[int] = []
    resumed = trained(checkpoints=kept, on_epoch=epochs.append)
    assert epochs == list(range(stop + 1, 13))
    assert resumed.digest() == whole.digest()


def test_the_teacher_is_the_full_network_of_the_first_phase() -> None:
    kept = Kept(7)
    with pytest.raises(Stop):
        trained(checkpoints=kept)
    full = trained(replace(CONFIG, kernel_epochs=0, depth_epochs=0, width_epochs=0))
    assert kept.state is not None
    for name, value in full.net.state_dict().items():
        if "running" not in name and "num_batches" not in name:
            assert np.array_equal(kept.state[f"teacher/{name}"], value.numpy()), name
            assert f"model/net.{name}" in kept.state


def test_divergence_is_a_failure_that_names_phase_and_rate() -> None:
    outcome = train_supernet(
        SPACE, DATA, config=replace(CONFIG, learning_rate=1e20), train=TRAIN, seed=0
    )
    assert isinstance(outcome, Failure)
    assert "phase 'full'" in outcome.reason
    assert "lower search.supernet.learning_rate, now 1e+20" in outcome.reason
    wild = replace(CONFIG, full_epochs=1, elastic_learning_rate=1e20)
    outcome = train_supernet(SPACE, DATA, config=wild, train=TRAIN, seed=0)
    assert isinstance(outcome, Failure)
    assert "phase 'kernel'" in outcome.reason
    assert "elastic_learning_rate" in outcome.reason


def test_a_kernel_that_no_supernet_holds_is_refused_before_the_training() -> None:
    space = replace(SPACE, kernels=(1, 3))
    with pytest.raises(SpecError, match="kernel is 1, it must be 3"):
        train_supernet(space, DATA, config=CONFIG, train=TRAIN, seed=0)


class Held(NamedTuple):
    """How a supernet is trained, on what, and what remembers it."""

    training: SupernetTraining
    data: Data
    memo: Memo

    def train(self, space: ElasticSpace, **options: Any) -> Supernet | Failure:
        return train_supernet_once(space, self.training, data=self.data, memo=self.memo, **options)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    overrides = [
        "search.supernet.full_epochs=2",
        "search.supernet.kernel_epochs=1",
        "search.supernet.depth_epochs=1",
        "search.supernet.width_epochs=1",
        "search.supernet.batch_size=32",
        "search.supernet.calibration_images=40",
    ]
    recipe = Recipe.load(RECIPE, overrides)
    with Store.open(tmp_path / "store") as store:
        section = recipe.need_search("search").supernet
        yield Held(SupernetTraining(section, recipe.train, recipe.seed), DATA, Memo(store))


def test_a_supernet_is_trained_once_and_asked_once(
    held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs: list[int] = []
    supernet = held.train(SPACE, on_epoch=epochs.append)
    assert isinstance(supernet, Supernet)
    assert held.training.epochs(SPACE) == 5
    assert epochs == [1, 2, 3, 4, 5, 5]
    spec = replace(SPACE, resolutions=(6,), depths=(1,), expansions=(2,)).full
    network = supernet.network(spec)
    assert network.spec == spec
    assert network.history == ("supernet", "recalibrate:40")
    found = supernet.accuracy(spec)
    assert found == evaluate(network.module, DATA.at(spec.input).validation, DATA.task)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it is remembered")

    monkeypatch.setattr(supernets, "train_supernet", refuse)
    again = held.train(SPACE)
    assert isinstance(again, Supernet)
    assert again.digest == supernet.digest
    monkeypatch.setattr(supernets, "recalibrate", refuse)
    assert again.accuracy(spec) == found

    path = tmp_path / "supernet.npz"
    supernet.save(path)
    assert Supernet.load(path, held.training, data=DATA, memo=held.memo).accuracy(spec) == found
    other = Data(replace(DATA.dataset, classes=4))
    with pytest.raises(ConfigError, match="images of 3 classes, the data set has 4"):
        Supernet.load(path, held.training, data=other, memo=held.memo)


def test_an_interrupted_training_goes_on_in_the_store(held: Held) -> None:
    def stop(epoch: int) -> None:
        if epoch == 4:
            raise Stop

    with pytest.raises(Stop):
        held.train(SPACE, on_epoch=stop)
    epochs: list[int] = []
    resumed = held.train(SPACE, on_epoch=epochs.append)
    assert epochs == [4, 5, 5]
    how = held.training
    straight = train_supernet(SPACE, DATA, config=how.config, train=how.train, seed=how.seed)
    assert isinstance(resumed, Supernet)
    assert isinstance(straight, ElasticNet)
    assert resumed.digest == straight.digest()


def test_other_middle_widths_are_another_supernet(held: Held) -> None:
    space = replace(SPACE, expansions=(1.5, 3))  # 12 channels, to multiples of 4 or of 8
    other = replace(space, channel_multiple=4)
    assert space.full == other.full
    held.train(space)
    assert supernets.is_trained(space, held.training, data=DATA, memo=held.memo)
    assert not supernets.is_trained(other, held.training, data=DATA, memo=held.memo)


def test_a_divergence_is_remembered(held: Held) -> None:
    config = replace(held.training.config, learning_rate=1e20)
    held = held._replace(training=replace(held.training, config=config))
    first, again = held.train(SPACE), held.train(SPACE)
    assert isinstance(first, Failure)
    assert first == again


def test_outputs_that_are_no_numbers_are_a_failure(held: Held) -> None:
    net = ElasticNet(SPACE.full, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net.net.dense[0].weight[0, 0] = float("nan")
    outcome = Supernet(net, *held).accuracy(SPACE.full)
    assert isinstance(outcome, Failure)
    assert "not numbers" in outcome.reason
