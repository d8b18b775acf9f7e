"""How coarse a clock is, found by reading it; in virtual time, so that no pause spoils it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from device_agents.agent.clock import Clock, use
from device_agents.agent.jobs import canary
from device_agents.agent.wire import Refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MS = 1_000_000


class Stepping(Clock):
    """Each reading costs 10 us; `told` is what the clock shows of the true time.

    `paused` is for how long other programs run instead, and how many readings there are between.
    """

    def __init__(self, told: Callable[[int], int], paused: tuple[int, int] = (0, 1 << 40)) -> None:
        self._told, self._paused = told, paused
        self._true_ns = self._readings = 0

    def now_ns(self) -> int:
        """Return what the clock shows."""
        return self._told(self._true_ns)

    def work(self, job: Callable[[], None], typical_ns: int) -> None:
        """Take a job's time, and that of what interrupts it."""
        del job
        self._true_ns += typical_ns
        self._readings += 1
        if self._readings % self._paused[1] == 0:
            self._true_ns += self._paused[0]


def ticks(step_ns: int) -> Callable[[int], int]:
    return lambda true_ns: true_ns // step_ns * step_ns


@pytest.mark.parametrize("step_ns", [MS, 4 * MS, 10 * MS, 15_625_000])
@pytest.mark.parametrize("paused", [(0, 1 << 40), (7 * MS, 1700), (31 * MS, 3300)])
def test_ticks_are_found_whatever_interrupts(step_ns: int, paused: tuple[int, int]) -> None:
    assert Stepping(ticks(step_ns), paused).step_ns() == step_ns


def test_a_fine_clock_has_no_steps_also_when_interrupted() -> None:
    assert Stepping(lambda true_ns: true_ns).step_ns() == 0
    assert Stepping(lambda true_ns: true_ns, (20 * MS, 5)).step_ns() == 0
    assert Clock().step_ns() < MS


def test_of_steps_of_several_lengths_the_long_ones_count() -> None:
    rng = random.Random(3)
    ends = [0]
    while len(ends) < 4000:
        ends.append(ends[-1] + rng.choice([1, 1, 1, 2, 16]) * MS)
    shown = iter(ends)
    last = [next(shown), next(shown)]

    def told(true_ns: int) -> int:
        while last[1] <= true_ns:
            last[:] = [last[1], next(shown)]
        return last[0]

    assert Stepping(told).step_ns() == 16 * MS


def test_a_clock_that_stands_still_is_refused() -> None:
    with pytest.raises(Refused, match="stands still"):
        Stepping(lambda _: 5).step_ns()


def test_the_canary_sings_by_a_coarse_clock(tmp_path: Path) -> None:
    with use(Stepping(ticks(4 * MS))):
        found = canary.sing(str(tmp_path), [])
    assert found["ns"] == pytest.approx(MS, rel=0.03)
    assert found["idle_ns"] == found["ns"]
