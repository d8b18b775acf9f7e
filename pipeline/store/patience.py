"""Repeats what a database refuses that is locked or away, for as long as was promised."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from pipeline.store.errors import StoreBusy

if TYPE_CHECKING:
    from collections.abc import Callable

BUSY_POLL_S = 0.5
PATIENCE_S = 300.0
"""How long a server that has gone is waited for: of the database, or of the artifacts."""

_T = TypeVar("_T")


def patiently(
    act: Callable[[], _T],
    timeout_s: float,
    *,
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> _T:
    """Return what `act` returns; while it raises StoreBusy, repeat it for up to `timeout_s`.

    `act` must be such that it may be repeated when it is not known whether it was done. `tell` is
    given one sentence when the waiting begins.

    Raises:
        StoreBusy: the last one, when the time is over.
    """
    began_s, told = clock(), False
    while True:
        try:
            return act()
        except StoreBusy as error:
            left_s = began_s + timeout_s - clock()
            if left_s <= 0:
                raise
            if not told:
                told = True
                tell(f"waiting, for {left_s:.0f} s at most: {error}")
            pause(min(BUSY_POLL_S, left_s))
