"""What every strategy promises; a new file in pipeline/search/strategy is tested without a word."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents.api import Failure
from device_agents.errors import ConfigError
from pipeline.search import strategy as strategies
from pipeline.search.api import Trial
from pipeline.search.space.mnasnet import MnasNetSpace
from tests.search_problems import Cells, additive, run

if TYPE_CHECKING:
    from models.spec import ArchSpec
    from pipeline.search.api import Strategy

SPACE = MnasNetSpace(input=(16, 16, 1), classes=4)
SCORE = additive(SPACE, 3)
WITHOUT_CHANCE = ("grid", "manual")  # whatever the seed, they hand out the same
MUTATE_ONLY = ("regularised_evolution",)  # where nothing can be mutated they cannot go on
_DRAWN = np.random.default_rng(9).integers(0, SPACE.cardinalities, (60, len(SPACE.cardinalities)))
OPTIONS = {"manual": {"choices": _DRAWN.tolist()}}  # what a list has to have to be a search


@pytest.fixture(params=strategies.STRATEGIES.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _create(name: str) -> Strategy[ArchSpec]:
    return strategies.create(name, SPACE, np.random.default_rng(0), **OPTIONS.get(name, {}))


def _specs(name: str, seed: int, batch: int = 8, trials: int = 48) -> list[ArchSpec]:
    options = OPTIONS.get(name)
    done = run(name, SPACE, SCORE, trials=trials, seed=seed, batch=batch, options=options)
    return [t.spec for t in done]


def test_a_search_replays_bit_for_bit_from_its_seed(name: str) -> None:
    first = _specs(name, 5)
    assert first == _specs(name, 5)
    assert (first == _specs(name, 6)) == (name in WITHOUT_CHANCE)


def test_it_asks_for_as_many_networks_of_the_space_as_wanted(name: str) -> None:
    strategy = _create(name)
    for n in (1, 3, 12, 1):
        asked = list(strategy.ask(n))
        assert len(asked) == n
        assert all(spec in SPACE for spec in asked)
        strategy.tell([Trial(spec, score=SCORE(spec)) for spec in asked])


def test_any_batch_size_will_do(name: str) -> None:
    for batch in (1, 7, 48):
        assert len(_specs(name, 1, batch, trials=30)) == max(batch, -(-30 // batch) * batch)


def test_failures_are_survived(name: str) -> None:
    strategy = _create(name)
    broken = Failure("out of memory")
    for step in range(6):  # all fail at first, later half of them; a NaN is no better
        asked = strategy.ask(10)
        strategy.tell(
            [
                Trial(spec, score=-math.inf, failure=broken)
                if step < 2 or i % 2
                else Trial(spec, score=math.nan if i == 0 else SCORE(spec))
                for i, spec in enumerate(asked)
            ]
        )
    assert all(spec in SPACE for spec in strategy.ask(5))


def test_a_budget_may_end_in_mid_batch(name: str) -> None:
    strategy = _create(name)
    asked = strategy.ask(6)
    strategy.tell([Trial(spec, score=SCORE(spec)) for spec in (asked[0], asked[2])])
    assert len(strategy.ask(2)) == 2


def test_an_exhausted_space_does_not_hang(name: str) -> None:
    tiny = Cells(depth=2, options=2)
    everything = tuple((a, b) for a in range(2) for b in range(2))
    options = {"choices": everything} if name == "manual" else {}
    done = run(name, tiny, additive(tiny, 0), trials=40, seed=0, options=options)
    assert {trial.spec for trial in done[:20]} == {tiny.decode(choices) for choices in everything}
    assert len(done) == (4 if name in WITHOUT_CHANCE else 40)  # a list ends, chance repeats itself


def test_a_space_of_one_point_is_refused_or_repeated(name: str) -> None:
    only = Cells(depth=2, options=1)
    if name in MUTATE_ONLY:
        with pytest.raises(ConfigError, match="has nothing one decision away from"):
            run(name, only, additive(only, 0), trials=30, seed=0)
        return
    done = run(name, only, additive(only, 0), trials=30, seed=0)
    assert {trial.spec for trial in done} == {only.decode((0, 0))}


def test_unknown_strategy_and_option_name_the_known() -> None:
    with pytest.raises(
        ConfigError, match="no search strategy 'randomsearch' known; did you mean 'random_"
    ):
        strategies.create("randomsearch", SPACE, np.random.default_rng(0))


def test_an_unknown_option_names_the_known(name: str) -> None:
    with pytest.raises(ConfigError, match=f"strategy '{name}' has no option 'nonsense'; known: "):
        strategies.create(name, SPACE, np.random.default_rng(0), nonsense=1)


def test_strategies_need_no_torch_and_no_other_plugin(name: str) -> None:
    program = (
        "import sys; from pipeline.search import strategy as s; s.STRATEGIES.load(sys.argv[1]);"
        "print([m for m in sys.modules if m.split('.')[0] in ('torch', 'tensorflow') or"
        " m.startswith(('pipeline.search.space', 'pipeline.search.estimate'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, name],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]"
