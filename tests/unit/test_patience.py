"""How long a database that is away is asked again, in virtual time."""

from __future__ import annotations

import pytest

from pipeline.store.errors import StoreBusy
from pipeline.store.patience import BUSY_POLL_S, patiently


class Away:
    """A database that is back at `back_s`; counts what was asked, told and waited."""

    def __init__(self, back_s: float) -> None:
        self.back_s = back_s
        self.now_s = 100.0
        self.asked = 0
        self.told: list[str] = []

    def pause(self, seconds: float) -> None:
        assert 0 < seconds <= BUSY_POLL_S
        self.now_s += seconds

    def answer(self) -> int:
        self.asked += 1
        if self.now_s < self.back_s:
            raise StoreBusy("the store lab is away")
        return self.asked

    def ask(self, timeout_s: float) -> int:
        return patiently(
            self.answer,
            timeout_s,
            tell=self.told.append,
            clock=lambda: self.now_s,
            pause=self.pause,
        )


def test_it_is_asked_until_it_is_back_and_that_is_told_once() -> None:
    lab = Away(back_s=107.0)
    assert lab.ask(60.0) == 15
    assert lab.told == ["waiting, for 60 s at most: the store lab is away"]


def test_the_wait_ends_when_it_was_said_to() -> None:
    lab = Away(back_s=1e9)
    with pytest.raises(StoreBusy, match="the store lab is away"):
        lab.ask(7.2)
    assert lab.now_s == pytest.approx(107.2)


def test_without_patience_it_is_asked_once() -> None:
    lab = Away(back_s=101.0)
    with pytest.raises(StoreBusy):
        lab.ask(0.0)
    assert (lab.asked, lab.told) == (1, [])
