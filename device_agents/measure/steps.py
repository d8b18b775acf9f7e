"""Says how far a measurement is: how much of a file is sent, which process begins, of how many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_agents.api import BenchProtocol


@dataclass(frozen=True, slots=True)
class Step:
    """A process that begins.

    Attributes:
        number: from 1; most: how many there are at most, fewer where the figure is precise sooner.
        left_s: how long they take at most, by the longest so far; None: the first.
    """

    number: int
    most: int
    left_s: float | None

    def __str__(self) -> str:
        left = "" if self.left_s is None else f", {self.left_s:.0f} s more at most"
        return f"process {self.number} of at most {self.most}{left}"


@dataclass(frozen=True, slots=True)
class Sent:
    """A part of a file that is on its way to the device."""

    sent_bytes: int
    of_bytes: int

    def __str__(self) -> str:
        unit, scale, digits = ("MB", 1e6, 1) if self.of_bytes >= 1e6 else ("kB", 1e3, 0)
        whole = f"{self.of_bytes / scale:.{digits}f} {unit} sent"
        if self.sent_bytes >= self.of_bytes:
            return whole
        return f"{self.sent_bytes / scale:.{digits}f} of {whole}"


class Steps:
    """Counts the processes of one measurement and tells each before it begins."""

    def __init__(
        self,
        protocol: BenchProtocol,
        clock: Callable[[], float],
        tell: Callable[[Step], object],
    ) -> None:
        self._protocol, self._clock, self._tell = protocol, clock, tell
        self._begun_s = self._last_s = clock()
        self._longest_s = 0.0
        self._number = 0

    @property
    def late(self) -> bool:
        """Whether the budget is spent, so that no further process begins."""
        return self._clock() > self._begun_s + self._protocol.budget_s

    def next(self) -> None:
        """Tell that another process begins, which ends the one before."""
        now_s = self._clock()
        left_s = None
        if self._number:
            self._longest_s = max(self._longest_s, now_s - self._last_s)
            # The last one may begin when the budget is all but spent.
            budget_s = self._begun_s + self._protocol.budget_s - now_s + self._longest_s
            left_s = min(budget_s, (self._protocol.max_processes - self._number) * self._longest_s)
        self._number, self._last_s = self._number + 1, now_s
        self._tell(Step(self._number, self._protocol.max_processes, left_s))


def silent(step: Step | Sent) -> None:
    """Tell nobody."""
    del step
