from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

from device_agents.errors import ConfigError
from models.spec import ArchSpec
from pipeline.cli.commands.tune import _given, command
from pipeline.data import Data, load_dataset
from pipeline.recipe.sections import TrainSection
from pipeline.search import strategy as strategies
from pipeline.search.api import Estimate, Trial
from pipeline.search.tuning import BriefTraining, Setting, TuningSpace, tune
from pipeline.store import Store
from pipeline.store.memo import Memo
from pipeline.train.remembered import Training

if TYPE_CHECKING:
    from collections.abc import Iterator

SPEC = ArchSpec.parse("8x8x1:same:conv_k3_s2_o8:fc10")
OWN = TrainSection(epochs=1, batch_size=32, learning_rate=0.1)


@pytest.fixture
def training(tmp_path: Path) -> Iterator[BriefTraining]:
    data = load_dataset("digits", {}, resolution=8, fractions=(0.6, 0.2, 0.2), seed=0)
    with Store.open(tmp_path) as store:
        yield BriefTraining(SPEC, Training(OWN, 0), Data(data), Memo(store))


def _tune(
    training: BriefTraining, space: TuningSpace, strategy: str, trials: int
) -> tuple[list[Trial[Setting]], list[str]]:
    said: list[str] = []
    found = tune(
        training,
        space,
        strategy,
        trials=trials,
        on_trial=lambda _: None,
        on_end=said.append,
    )
    return found, said


def test_the_recipes_own_values_are_in_the_space_around_them() -> None:
    space = TuningSpace.around(OWN, {})
    assert Setting.of(OWN) in space
    assert Setting.of(replace(OWN, learning_rate=0.07)) not in space
    rng = np.random.default_rng(0)
    for _ in range(20):
        setting = space.sample(rng)
        assert space.decode(space.choices(setting)) == setting
        assert isinstance(setting.batch_size, int)


def test_values_given_replace_those_around_and_a_single_one_fixes() -> None:
    space = TuningSpace.around(OWN, {"learning_rate": [0.3, 0.01], "batch_size": [16]})
    assert space.values[:2] == ((0.01, 0.3), (16,))


def test_values_around_are_those_that_a_recipe_may_have() -> None:
    wild = replace(OWN, learning_rate=60.0, batch_size=50_000, weight_decay=0.5)
    space = TuningSpace.around(wild, {})
    assert space.values[0] == (15.0, 30.0, 60.0)  # 100 at most
    assert space.values[1] == (25_000, 50_000)  # 65 536 at most
    assert max(space.values[2]) == 0.5  # 1 at most
    odd = TuningSpace.around(replace(OWN, learning_rate=0.12345), {})
    assert odd.values[0] == (0.0309, 0.0617, 0.12345, 0.247, 0.494)  # no 0.123 beside its own


def test_half_an_image_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'batch_size': 1\.5 is not a whole number"):
        TuningSpace.around(OWN, {"batch_size": [1.5]})


@pytest.mark.parametrize("strategy", strategies.STRATEGIES.names())
def test_every_strategy_searches_settings(strategy: str) -> None:
    space = TuningSpace.around(OWN, {})
    chosen = strategies.create(strategy, space, np.random.default_rng(0))
    for _ in range(3):
        asked = chosen.ask(4)
        assert all(setting in space for setting in asked)
        known = {"latency_ms": Estimate(0.0, 0.0, "counted")}
        chosen.tell(
            [
                Trial(
                    setting,
                    {**known, "accuracy": Estimate(setting.learning_rate, 0.01, "trained")},
                    setting.learning_rate,
                )
                for setting in asked
            ]
        )


def test_an_unknown_hyper_parameter_names_the_known() -> None:
    with pytest.raises(ConfigError, match="no hyper-parameter 'learnig_rate' to tune; have learn"):
        TuningSpace.around(OWN, {"learnig_rate": [0.1]})


def test_a_value_that_cannot_be_is_refused_with_its_bounds() -> None:
    with pytest.raises(ConfigError, match=r"'learning_rate': -1\.0 is not a number above 0 up to"):
        TuningSpace.around(OWN, {"learning_rate": [0.1, -1.0]})


def test_a_diverging_training_is_a_failed_setting_and_the_best_is_first(
    training: BriefTraining,
) -> None:
    given = {"batch_size": [32], "weight_decay": [0], "label_smoothing": [0], "augment": [0]}
    space = TuningSpace.around(OWN, given)
    # No recipe may have such a rate; in the space it stands for whatever makes a loss NaN.
    space = replace(space, values=((0.001, 0.1, 1e38), *space.values[1:]))
    found, said = _tune(training, space, "grid", trials=10)
    assert [trial.spec.learning_rate for trial in found] == [0.1, 0.001, 1e38]
    assert found[-1].failure is not None
    assert "diverged" in found[-1].failure.reason
    assert found[0].estimates["accuracy"].value > found[1].estimates["accuracy"].value
    assert said == []  # three is all there are


def test_what_was_trained_is_not_trained_again(training: BriefTraining) -> None:
    space = TuningSpace.around(OWN, {"batch_size": [64]})
    first, _ = _tune(training, space, "random_search", trials=2)
    trained = {step.key for step in training.memo.steps}
    again, _ = _tune(training, space, "random_search", trials=3)
    assert {t.spec for t in first} < {t.spec for t in again}
    assert len({step.key for step in training.memo.steps} - trained) == 1


def test_values_given_twice_add_up() -> None:
    texts = ("learning_rate=0.1", "train.learning_rate=0.2,0.3")
    assert _given(texts) == {"learning_rate": [0.1, 0.2, 0.3]}


def test_a_wrong_strategy_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    recipe = Path(__file__).resolve().parents[2] / "recipes" / "digits.toml"
    store = tmp_path / "store"
    with pytest.raises(
        ConfigError, match=r"no search strategy 'gridd' known; did you mean 'grid'. have grid"
    ):
        command.main(
            [str(recipe), "--strategy", "gridd", "--store", str(store)], standalone_mode=False
        )
    assert not store.exists()


def test_a_recipe_without_search_and_target_is_enough_where_both_are_given(tmp_path: Path) -> None:
    path = tmp_path / "short.toml"
    path.write_text('name = "short"\ndata = { name = "digits", resolution = 8 }\n')
    given = ["--store", str(tmp_path / "store"), "--trials", "1", "--values", "batch_size=64"]
    for missing, section, named in (
        (["--network", str(SPEC)], "search", "tune without --epochs"),
        (["--epochs", "1"], "target", "tune without --network"),
    ):
        said = CliRunner().invoke(command, [str(path), *given, *missing])
        assert isinstance(said.exception, ConfigError)
        assert f"no [{section}], which `edgewright {named}` needs" in str(said.exception)
    both = ["--network", str(SPEC), "--epochs", "1", "--json"]
    done = CliRunner().invoke(command, [str(path), *given, *both], catch_exceptions=False)
    assert done.exit_code == 0
    assert len(json.loads(done.stdout)["settings"]) == 1
