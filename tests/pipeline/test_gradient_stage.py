"""A recipe's gradient search on a simulated board whose truth is known: table, search, landing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents.errors import ConfigError, TargetError
from models.lower import lower
from pipeline.cli.display import Display
from pipeline.measure import bench as benches
from pipeline.measure import untrained
from pipeline.measure.form import Form
from pipeline.recipe.recipe import Recipe
from pipeline.run.stages import run
from pipeline.search import estimators
from pipeline.search import space as spaces
from pipeline.store import Store
from pipeline.store.leases import open_leases
from profiles.registry import load_device
from tests.pipeline.test_search_cli import board, made_up_accuracy, null_model, truth_ms

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.search.stage import SearchOutcome

RECIPE = """
name = "small"
device = { name = "board" }
data = { name = "digits", resolution = 16 }
target = { baseline = "mobilenet-v1", widths = [0.25], latency_ms = TARGET }

[search]
space = "proxyless"
strategy = "proxyless-gradient"
candidates = 3
finalists = 2
space_options = { stem = [3, 1, 8], first = 8, head = 0, stages = [[2, 8, 2], [2, 16, 2]] }
strategy_options = { warmup_epochs = 1, epochs = 3, arch_learning_rate = 0.1 }
"""
STAGES = [[2, 8, 2], [2, 16, 2]]
SPACE = spaces.create(
    "proxyless", input=(16, 16, 1), classes=10, stem=[3, 1, 8], first=8, head=0, stages=STAGES
)
TARGET_MS = float(
    np.median([truth_ms(lower(SPACE.sample(np.random.default_rng(s)))) for s in range(40)])
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a board and a recipe; no finalist is trained there."""
    board(tmp_path)
    (tmp_path / "small.toml").write_text(RECIPE.replace("TARGET", str(TARGET_MS)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(tmp_path / "config"))
    monkeypatch.setattr(untrained, "encode", null_model)
    monkeypatch.setattr(Form, "suffix", ".json")
    monkeypatch.setattr(estimators, "score_briefly", made_up_accuracy)
    monkeypatch.setattr(benches, "PAUSES_S", (0.0, 0.0))
    return tmp_path


def searched(place: Path, *overrides: str) -> SearchOutcome:
    recipe = Recipe.load(place / "small.toml", overrides)
    with Store.open(place / "store") as store, open_leases(str(place / "store")) as leases:
        return run(
            recipe,
            load_device("board"),
            store=store,
            leases=leases,
            events=Display(),
            until="search",
        ).search


@pytest.mark.slow
def test_it_lands_on_the_device(place: Path) -> None:
    found = searched(place, "search.strategy_options.mode=two")
    assert 1 <= len(found.trials) <= 3
    for trial in found.trials:
        truth = truth_ms(lower(trial.spec))
        assert trial.spec in SPACE
        assert 0.94 * TARGET_MS <= truth <= 1.01 * TARGET_MS  # it saw measurements, not the truth
        assert trial.estimates["latency_ms"].source == "measured"
        assert trial.estimates["latency_ms"].value == pytest.approx(truth, rel=0.02)
        assert trial.estimates["table_ms"].source == "table"
        assert trial.estimates["table_ms"].value == pytest.approx(truth, rel=0.1)
    assert found.finalists


def test_a_target_out_of_reach_names_the_fastest_network(place: Path) -> None:
    with pytest.raises(TargetError, match=r"target of 0\.4 ms .* known, 16x16x1.*measured on the"):
        searched(place, "target.latency_ms=0.4")


def test_a_latency_model_that_is_no_table_is_refused(place: Path) -> None:
    with pytest.raises(ConfigError, match="'few-shot' is not for it; leave it out, or say"):
        searched(place, "search.latency=few-shot")
