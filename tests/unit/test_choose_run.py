"""Which run a command goes on with: the last one of the same recipe on the same device."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from device_agents.errors import ConfigError
from pipeline.cli.display import Display
from pipeline.recipe.recipe import Recipe
from pipeline.run.opening import check_different, choose_run, open_run, set_up
from pipeline.store import Store
from pipeline.store.errors import StoreError
from pipeline.store.leases import open_leases
from profiles.registry import load_device
from profiles.schema import DeviceProfile

if TYPE_CHECKING:
    from collections.abc import Iterator

TINY = Path(__file__).parents[1] / "recipes" / "tiny.toml"
BOARD, PHONE = DeviceProfile("board", transport="fake"), DeviceProfile("phone", transport="fake")


def recipe(*overrides: str) -> Recipe:
    return Recipe.load(TINY, overrides)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    seconds = itertools.count(1_750_000_000.0)
    with Store.open(tmp_path / "store", clock=lambda: next(seconds)) as opened:
        yield opened


def chosen(
    store: Store, plan: Recipe, device: DeviceProfile = BOARD, *, fresh: bool = False
) -> str:
    return choose_run(plan, device, store, fresh=fresh).id


def test_the_same_recipe_on_the_same_device_goes_on(store: Store) -> None:
    first = choose_run(recipe(), BOARD, store, fresh=False)
    assert choose_run(recipe(), BOARD, store, fresh=False) == first
    assert (first.id, first.device) == ("tiny-1", "board")
    assert first.recipe_digest == recipe().digest()
    assert Recipe.from_json(first.recipe) == recipe()
    # What no result depends on makes no other run: where the page goes, a default spelt out.
    assert chosen(store, recipe("report.path=elsewhere.html")) == "tiny-1"
    assert chosen(store, recipe(f"seed={recipe().seed}")) == "tiny-1"
    assert [run.id for run in store.runs()] == ["tiny-1"]


def test_another_recipe_or_device_is_another_run_and_each_is_found_again(store: Store) -> None:
    asked = [
        (recipe(), BOARD),
        (recipe("seed=7"), BOARD),
        (recipe(), PHONE),
        (recipe("search.candidates=5"), PHONE),
        (recipe("name=other"), BOARD),
    ]
    made = [chosen(store, *each) for each in asked]
    assert made == ["tiny-1", "tiny-2", "tiny-3", "tiny-4", "other-1"]
    assert [chosen(store, *each) for each in reversed(asked)] == made[::-1]


def test_fresh_is_a_run_of_its_own_which_is_the_one_that_goes_on(store: Store) -> None:
    assert chosen(store, recipe(), fresh=True) == "tiny-1"  # nothing was there to leave
    assert chosen(store, recipe(), fresh=True) == "tiny-2"
    assert chosen(store, recipe()) == "tiny-2"
    assert chosen(store, recipe("seed=7")) == "tiny-3"
    assert chosen(store, recipe()) == "tiny-2"


def test_an_opened_run_is_held_alone_on_its_devices(store: Store, tmp_path: Path) -> None:
    fake = load_device("fake")
    with open_leases(str(tmp_path / "store")) as leases, Display() as events:

        def opened(*, fresh: bool = False):  # noqa: ANN202
            return open_run(
                recipe(), [fake], store=store, leases=leases, events=events, fresh=fresh
            )

        with opened() as first:
            assert (first.run.id, first.bench.run_id, first.others) == ("tiny-1", "tiny-1", ())
            assert first.bench.digest == first.bench.device.digest
            assert first.folder.is_dir()
            with pytest.raises(StoreError, match="run tiny-1 is being worked on"), opened():
                pass
            with opened(fresh=True) as other:
                assert other.run.id == "tiny-2"
        with opened() as again:
            assert again.run.id == "tiny-2"


def test_a_recipe_may_ask_for_a_runtime_and_threads_of_its_own() -> None:
    section = recipe("device.runtime=onnx", "device.threads=3").device
    found = set_up(BOARD, section)
    assert (found.runtime, found.threads) == ("onnx", 3)
    assert set_up(BOARD, recipe().device) == BOARD


def test_a_device_that_is_named_twice_is_refused() -> None:
    check_different([BOARD, PHONE])
    with pytest.raises(ConfigError, match="device 'phone' is named twice"):
        check_different([PHONE, BOARD, PHONE])
