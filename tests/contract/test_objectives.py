"""What every objective promises; a new file in pipeline/search/objective is tested without a word.

An objective is a public class of the folder with a `score`; all but the one around another are
made from a target in milliseconds alone.
"""

from __future__ import annotations

import math
import pkgutil
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import pytest

from device_agents.errors import ConfigError
from pipeline.recipe.sections import SearchSection
from pipeline.search import objective as folder
from pipeline.search.api import Estimate
from pipeline.search.objective.several import DeviceTarget, metric

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.search.api import Objective

TARGET_MS = 10.0
NEVER = (0.0, -1.0, math.nan, math.inf, -math.inf)
LADDER_MS = (1e-6, 0.1, 1.0, 4.0, 9.0, 9.99, 10.0, 10.01, 11.0, 15.0, 19.9, 20.0, 25.0, 1e6)


def listed() -> Iterator[tuple[str, type[Any]]]:
    """Yield file and class of every objective."""
    for item in pkgutil.iter_modules(folder.__path__):
        if item.name.startswith("_"):
            continue
        module = import_module(f"{folder.__name__}.{item.name}")
        for name, value in vars(module).items():
            own = getattr(value, "__module__", "") == module.__name__
            if own and not name.startswith("_") and hasattr(value, "score"):
                yield item.name, value


LISTED = list(listed())


def make(cls: type[Any], target_ms: float = TARGET_MS) -> Objective:
    if cls is not folder.SeveralDevices:
        return cls(target_ms)
    targets = (DeviceTarget("here", target_ms), DeviceTarget("there", target_ms / 5))
    return cls(folder.Constrained(target_ms), targets)


def estimates(accuracy: float, latency_ms: float, stderr_ms: float = 0.0) -> dict[str, Estimate]:
    """Return what there is to be known of a candidate, in whichever form it is asked for."""
    return {
        "accuracy": Estimate(accuracy, 0.01, "trained"),
        "latency_ms": Estimate(latency_ms, stderr_ms, "measured"),
        metric("here"): Estimate(latency_ms, stderr_ms, "measured"),
        metric("there"): Estimate(latency_ms / 5, stderr_ms / 5, "measured"),
    }


@pytest.fixture(params=[cls for _, cls in LISTED], ids=lambda cls: cls.__name__)
def cls(request: pytest.FixtureRequest) -> type[Any]:
    found: type[Any] = request.param
    return found


@pytest.fixture(params=folder.OBJECTIVES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(
    params=[*(cls for _, cls in LISTED), *folder.OBJECTIVES],
    ids=lambda one: getattr(one, "__name__", one),
)
def objective(request: pytest.FixtureRequest) -> Objective:
    """Return each class and each form of it that a recipe can name."""
    if isinstance(request.param, str):
        return folder.create(request.param, TARGET_MS)
    return make(request.param)


def test_every_file_has_an_objective_that_a_recipe_can_name() -> None:
    files = {item.name for item in pkgutil.iter_modules(folder.__path__)}
    assert {file for file, _ in LISTED} == {name for name in files if not name.startswith("_")}
    named = {type(folder.create(name, TARGET_MS)) for name in folder.OBJECTIVES}
    assert named == {cls for _, cls in LISTED} - {folder.SeveralDevices}
    assert get_args(get_type_hints(SearchSection)["objective"]) == folder.OBJECTIVES


def test_more_accurate_is_better(objective: Objective) -> None:
    for latency_ms in (1.0, 9.0, 10.0):
        scores = [objective.score(estimates(accuracy, latency_ms)) for accuracy in (0.1, 0.5, 0.9)]
        assert scores == sorted(set(scores)), latency_ms


@pytest.mark.parametrize("accuracy", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("stderr_ms", [0.0, 0.5])
def test_slower_is_never_better_and_in_the_end_worse(
    objective: Objective, accuracy: float, stderr_ms: float
) -> None:
    scores = [objective.score(estimates(accuracy, ms, stderr_ms)) for ms in LADDER_MS]
    assert all(math.isfinite(score) for score in scores)
    assert scores == sorted(scores, reverse=True)
    if accuracy:
        assert objective.score(estimates(accuracy, 30.0)) < objective.score(
            estimates(accuracy, 9.0)
        )


def test_what_cannot_be_scores_minus_infinity(objective: Objective) -> None:
    impossible = [(math.nan, 5.0), *((0.5, latency_ms) for latency_ms in NEVER)]
    for accuracy, latency_ms in impossible:
        assert objective.score(estimates(accuracy, latency_ms)) == -math.inf


def test_what_it_needs_and_does_not_have_is_named(objective: Objective) -> None:
    known = estimates(0.5, 5.0)
    needed = []
    for lost in known:
        rest = {key: value for key, value in known.items() if key != lost}
        with suppress(ConfigError):
            objective.score(rest)
            continue
        needed.append(lost)
        have = ", ".join(sorted(rest))
        words = f"needs {lost!r}, but the estimators gave {have}; add an estimator of {lost} "
        with pytest.raises(ConfigError, match=words):
            objective.score(rest)
    assert "accuracy" in needed
    assert len(needed) >= 2, "accuracy alone is no trade-off"
    # What it does not need makes no difference.
    only = {key: known[key] for key in needed}
    assert objective.score(only) == objective.score({**known, "energy_mj": known["accuracy"]})


def test_a_score_is_of_the_estimates_alone(objective: Objective) -> None:
    known = estimates(0.7, 9.5, 0.2)
    before = dict(known)
    first = objective.score(known)
    objective.score(estimates(0.1, 50.0))
    assert objective.score(known) == first
    assert known == before


def test_the_target_is_what_counts_not_the_unit(cls: type[Any]) -> None:
    one, thousand = make(cls), make(cls, 1000 * TARGET_MS)
    for latency_ms in (4.0, 10.0, 13.0):
        assert one.score(estimates(0.7, latency_ms, 0.3)) == pytest.approx(
            thousand.score(estimates(0.7, 1000 * latency_ms, 300.0))
        )


@pytest.mark.parametrize("target_ms", NEVER)
def test_a_target_that_is_no_latency_is_refused(cls: type[Any], target_ms: float) -> None:
    with pytest.raises(
        ConfigError, match=rf"target_ms is {target_ms!r}; give milliseconds above 0"
    ):
        make(cls, target_ms)


def test_a_limit_and_only_a_limit_puts_whatever_exceeds_it_below_0(name: str) -> None:
    score = folder.create(name, TARGET_MS).score
    within = [score(estimates(accuracy, 9.0)) for accuracy in (0.0, 0.001, 1.0)]
    over = [
        score(estimates(accuracy, latency_ms))
        for accuracy in (0.5, 1.0)
        for latency_ms in (10.001, 11.0, 40.0)
    ]
    keeps = max(over) <= 0 <= min(within) and max(over) < within[1]
    assert keeps == (name in folder.LIMITS)
