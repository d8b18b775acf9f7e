"""The device's clock, in one replaceable place: a fake device runs this code in virtual time.

It is a context variable and no argument, since everything from the agent to the innermost timing
loop reads it; fake devices in several threads of one host do not see each other's.
"""

import contextlib
import os
import signal
import time
from contextvars import ContextVar
from typing import Callable, Iterator, List, Tuple

from .wire import Refused

# How a clock's steps are looked for. A clock is fine when it moves from one reading to the next;
# else enough steps are waited for to know them, but for a bounded number of readings.
_FEW_READINGS = 64
_FEWEST_STEPS = 9
_MOST_STEPS = 100
_LONG_NS = 100_000_000
_MOST_READINGS = 2_000_000
# What a reading is taken to cost where nothing is really done.
_READING_NS = 10_000


class Clock:
    """The real clock, and the end that code under way may come to."""

    # No method: between two readings stands only what is timed.
    now_ns: Callable[[], int] = staticmethod(time.perf_counter_ns)

    def step_ns(self) -> int:
        """Return the steps in which this clock moves on; 0: finer than its readings follow.

        Raises Refused for a clock that stands still.
        """
        steps: List[Tuple[int, int]] = []  # nanoseconds, and the readings that it took
        now_ns = self.now_ns
        begin = last = now_ns()
        readings = 0
        for reading in range(1, _MOST_READINGS):
            self.work(_nothing, _READING_NS)
            now = now_ns()
            readings += 1
            if now == last:
                continue
            steps.append((now - last, readings))
            last, readings = now, 0
            long_enough = now - begin >= _LONG_NS or len(steps) >= _MOST_STEPS
            if reading <= _FEW_READINGS:
                if 2 * len(steps) > _FEW_READINGS:
                    return 0
            elif len(steps) >= _FEWEST_STEPS and long_enough:
                break
        if len(steps) < _FEWEST_STEPS:
            raise Refused(
                "invoke_failed", "the device's clock stands still; it cannot time a model"
            )
        # The first began before it was looked at.
        return _typical_step(steps[1:])

    def spend(self, duration_ns: int) -> None:
        """Keep the CPU busy for this long."""
        end = self.now_ns() + duration_ns
        while self.now_ns() < end:
            pass

    def die(self) -> None:
        """End this process as a fault in C code does."""
        os.kill(os.getpid(), signal.SIGSEGV)

    def work(self, job: Callable[[], None], typical_ns: int) -> None:
        """Do a job; a simulated device does not do it, and lets the typical time pass."""
        del typical_ns
        job()

    def sleep(self, seconds: float) -> None:
        """Leave the CPU alone for this long."""
        time.sleep(seconds)


def _nothing() -> None:
    """Pass no time but that of a call."""


def _typical_step(steps: List[Tuple[int, int]]) -> int:
    """Return the length in ns of a step of the clock, from steps (ns, readings in it).

    Nine in ten readings fall into steps that are at most so long. A step in which the process was
    paused looks longer than it is; so a step counts as no longer than its readings take, at the
    time that a reading takes where nothing paused the process.
    """
    cost = sorted(length / readings for length, readings in steps)[len(steps) // 10]
    told = sorted((min(float(length), readings * cost), readings) for length, readings in steps)
    left = 0.9 * sum(readings for _, readings in told)
    lengths = [length for length, _ in steps]
    for wanted, readings in told:
        left -= readings
        if left <= 0:
            return min(length for length in lengths if length >= 0.8 * wanted)
    return max(lengths)


_REAL = Clock()
_current: "ContextVar[Clock]" = ContextVar("clock", default=_REAL)


def current() -> Clock:
    """Return the clock of this context."""
    return _current.get()


@contextlib.contextmanager
def use(clock: Clock) -> Iterator[None]:
    """Let `clock` be the current one in a `with` block."""
    token = _current.set(clock)
    try:
        yield
    finally:
        _current.reset(token)
