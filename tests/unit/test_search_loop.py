from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from device_agents.api import Failure
from device_agents.errors import DeviceError
from models.spec import ArchSpec, Block, Dense
from pipeline.search.api import Estimate, Trial
from pipeline.search.loop import MAX_ASKS_PER_CANDIDATE, Watch, search

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def net(width: int) -> ArchSpec:
    return ArchSpec((8, 8, 1), (Block("conv", 3, 1, width),), (Dense(2),))


@dataclass
class Listed:
    """Asks a fixed list of widths, over and over."""

    widths: Sequence[int]
    asked: int = 0
    told: list[list[Trial]] = field(default_factory=list)

    def ask(self, n: int) -> list[ArchSpec]:
        found = [net(self.widths[(self.asked + i) % len(self.widths)]) for i in range(n)]
        self.asked += n
        return found

    def tell(self, trials: Sequence[Trial]) -> None:
        self.told.append(list(trials))


class Ratio:
    def score(self, estimates: Mapping[str, Estimate]) -> float:
        return estimates["accuracy"].value / estimates["latency_ms"].value


@dataclass
class Counted:
    """An estimator by formula that remembers what it was asked."""

    metric: str
    failing: int = 0
    asked: list[int] = field(default_factory=list)

    def estimate(self, specs: Sequence[ArchSpec]) -> list[Estimate | Failure]:
        found: list[Estimate | Failure] = []
        for spec in specs:
            width = spec.blocks[0].out
            self.asked.append(width)
            refused = Failure(f"no {self.metric} of {width}")
            found.append(refused if width == self.failing else Estimate(width, 0.0, "counted"))
        return found


@dataclass
class Noted(Watch[ArchSpec]):
    """Remembers what it is told; `goes_on` is its answer to a lost device."""

    goes_on: bool = False
    indices: list[int] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    aborted: int = 0

    def on_trial(self, index: int, trial: Trial) -> None:
        del trial
        self.indices.append(index)

    def on_lost(self, error: DeviceError) -> bool:
        self.sentences.append(str(error))
        return self.goes_on

    def on_end(self, sentence: str) -> None:
        self.sentences.append(sentence)

    def abort(self) -> None:
        self.aborted += 1


def run(
    strategy: Listed,
    latency: Counted | None = None,
    accuracy: Counted | None = None,
    watch: Noted | None = None,
    **changes: int,
) -> list[Trial]:
    numbers = {"candidates": 6, "batch": 2, **changes}
    return search(
        strategy,
        Ratio(),
        accuracy=accuracy or Counted("accuracy"),
        latency=latency or Counted("latency_ms"),
        watch=watch or Noted(),
        **numbers,
    )


def test_trials_come_in_the_order_asked_and_are_told() -> None:
    strategy = Listed(range(1, 20))
    trials = run(strategy)
    assert [t.spec.blocks[0].out for t in trials] == [1, 2, 3, 4, 5, 6]
    assert [len(told) for told in strategy.told] == [2, 2, 2]
    assert all(t.score == 1.0 for t in trials)


def test_a_repeat_is_told_but_not_measured_again() -> None:
    latency = Counted("latency_ms")
    trials = run(Listed([1, 2, 1, 3]), latency, candidates=3)
    assert latency.asked == [1, 2, 3]
    assert [t.spec.blocks[0].out for t in trials] == [1, 2, 1, 3]


def test_a_strategy_that_repeats_itself_ends_with_a_sentence() -> None:
    latency, watch = Counted("latency_ms"), Noted()
    trials = run(Listed([1, 2]), latency, watch=watch, candidates=5)
    assert latency.asked == [1, 2]
    assert len(trials) <= MAX_ASKS_PER_CANDIDATE * 5 + 2
    (sentence,) = watch.sentences
    assert "ends after 2 different candidates instead of 5" in sentence
    assert f"the last {len(trials) - 2} of {len(trials)}" in sentence


def test_a_strategy_that_has_nothing_more_to_ask_ends() -> None:
    class Short(Listed):
        def ask(self, n: int) -> list[ArchSpec]:
            return super().ask(n) if self.asked < 4 else []

    watch = Noted()
    assert len(run(Short(range(1, 20)), watch=watch)) == 4
    (sentence,) = watch.sentences
    assert sentence.startswith("the search ends after 4 different candidates instead of 6: ")
    assert sentence.endswith(" the strategy has no more to ask for")


def test_a_full_budget_ends_without_a_word() -> None:
    watch = Noted()
    run(Listed(range(1, 20)), watch=watch)
    assert watch.sentences == []
    assert watch.indices == [0, 1, 2, 3, 4, 5]


def test_the_budget_counts_different_networks() -> None:
    latency = Counted("latency_ms")
    run(Listed(range(1, 20)), latency, candidates=5, batch=4)
    assert sorted(latency.asked) == [1, 2, 3, 4, 5]


def test_a_budget_that_ends_in_mid_batch_tells_only_the_first_few() -> None:
    strategy = Listed([1, 2, 1])
    trials = run(strategy, candidates=1, batch=3)
    assert [t.spec.blocks[0].out for t in trials] == [1]
    strategy = Listed([1, 2, 3, 1, 4, 1])  # the second batch: a repeat, one too many, a repeat
    trials = run(strategy, candidates=3, batch=3)
    assert [t.spec.blocks[0].out for t in trials] == [1, 2, 3]
    strategy = Listed([1, 2, 1, 3, 1, 4])
    run(strategy, candidates=3, batch=3)
    assert [[t.spec.blocks[0].out for t in told] for told in strategy.told] == [[1, 2, 1], [3, 1]]


def test_a_failed_candidate_is_a_trial_and_the_search_goes_on() -> None:
    trials = run(Listed(range(1, 20)), Counted("latency_ms", failing=2))
    assert len(trials) == 6
    assert trials[1].failure == Failure("no latency_ms of 2")
    assert trials[1].score == float("-inf")
    assert trials[2].score == 1.0


def test_a_training_that_came_out_as_nan_is_a_failed_candidate() -> None:
    class Diverging(Counted):
        def estimate(self, specs: Sequence[ArchSpec]) -> list[Estimate | Failure]:
            found = super().estimate(specs)
            return [Estimate(float("nan"), 0.0, "trained")] if len(self.asked) == 2 else found

    trials = run(Listed(range(1, 20)), accuracy=Diverging("accuracy"))
    assert len(trials) == 6
    assert trials[1].failure == Failure("accuracy came out as nan, which is no number")
    assert "accuracy" not in trials[1].estimates
    assert trials[2].score == 1.0


class Lost(Counted):
    """A device that goes away at width 4."""

    def estimate(self, specs: Sequence[ArchSpec]) -> list[Estimate | Failure]:
        if specs[0].blocks[0].out == 4:
            raise DeviceError("gone")
        return super().estimate(specs)


def test_a_lost_device_ends_the_search_and_what_was_found_has_been_reported() -> None:
    watch = Noted()
    with pytest.raises(DeviceError, match="gone"):
        run(Listed(range(1, 20)), Lost("latency_ms"), watch=watch)
    assert watch.indices == [0, 1, 2]
    assert watch.aborted == 1


def test_a_lost_device_may_end_the_search_with_what_it_has() -> None:
    watch = Noted(goes_on=True)
    trials = run(Listed(range(1, 20)), Lost("latency_ms"), watch=watch)
    assert [t.spec.blocks[0].out for t in trials] == [1, 2, 3]
    assert watch.sentences == ["gone"]
    assert watch.aborted == 1


def test_measuring_and_training_overlap() -> None:
    """The device is asked for the whole batch while the host still trains the first."""
    measured = threading.Semaphore(0)

    class Device(Counted):
        def estimate(self, specs: Sequence[ArchSpec]) -> list[Estimate | Failure]:
            found = super().estimate(specs)
            measured.release()
            return found

    class Host(Counted):
        def estimate(self, specs: Sequence[ArchSpec]) -> list[Estimate | Failure]:
            if specs[0].blocks[0].out == 1:
                for _ in range(3):  # would never come if the two took turns
                    assert measured.acquire(timeout=20)
            return super().estimate(specs)

    trials = search(
        Listed(range(1, 20)),
        Ratio(),
        accuracy=Host("accuracy"),
        latency=Device("latency_ms"),
        candidates=3,
        batch=3,
        watch=Watch(),
    )
    assert len(trials) == 3
