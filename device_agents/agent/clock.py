"""The device's clock, in one replaceable place: a fake device runs this code in virtual time.

It is a context variable and no argument, since everything from the agent to the innermost timing
loop reads it; fake devices in several threads of one host do not see each other's.
"""

import contextlib
import os
import signal
import time
from contextvars import ContextVar
from typing import Callable, Iterator


class Clock:
    """The real clock, and the end that code under way may come to."""

    # No method: between two readings stands only what is timed.
    now_ns: Callable[[], int] = staticmethod(time.perf_counter_ns)

    def spend(self, duration_ns: int) -> None:
        """Keep the CPU busy for this long."""
        end = self.now_ns() + duration_ns
        while self.now_ns() < end:
            pass

    def die(self) -> None:
        """End this process as a fault in C code does."""
        os.kill(os.getpid(), signal.SIGSEGV)

    def work(self, job: Callable[[], None], typical_ns: int) -> None:
        """Do a job; where none is really done, it takes what is typical for it."""
        del typical_ns
        job()

    def sleep(self, seconds: float) -> None:
        """Leave the CPU alone for this long."""
        time.sleep(seconds)


_REAL = Clock()
_current: "ContextVar[Clock]" = ContextVar("clock", default=_REAL)


def current() -> Clock:
    """Return the clock of this context."""
    return _current.get()


@contextlib.contextmanager
def used(clock: Clock) -> Iterator[None]:
    """Let `clock` be the current one in a `with` block."""
    token = _current.set(clock)
    try:
        yield
    finally:
        _current.reset(token)
