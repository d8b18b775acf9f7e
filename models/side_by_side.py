"""Parts of a computation side by side, each on one thread of its own.

torch and numpy's matrix products are shared out to all cores, which wait for each other after each
of them. Of maps as small as a network's that is no gain; and where a core has other work, each op
waits for its turn: PP-OCR's recogniser took 0.11 s of a processor on one thread, 0.15 s on two, and
0.6 to 0.9 s on two of a busy computer, where it took 2 s by the clock instead of 0.34.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, TypeVar

from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_AT_ONCE = 4
"""Each holds the tensors of a network."""


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let every product take one thread while the block runs, of whichever thread asks for it."""
    torch = sys.modules.get("torch")  # who computes without it does not wait for its import
    before = 1 if torch is None else torch.get_num_threads()
    with _libraries().limit(limits=1, user_api="blas"):
        if torch is not None:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch is not None:
                torch.set_num_threads(before)


def map_side_by_side(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield what `work` gives of each item, in their order; as many at once as there are cores.

    Args:
        work: called in several threads, and numpy and torch in it with one thread each.
        items: what it is called with.
    """
    with one_thread_each(), ThreadPoolExecutor(min(_count_cores(), _MOST_AT_ONCE)) as pool:
        yield from pool.map(work, items)


def _count_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _libraries() -> ThreadpoolController:
    """Return the libraries of matrix products that are loaded: looking for them takes a while."""
    return ThreadpoolController()
