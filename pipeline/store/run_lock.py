"""One process at a time works on a run.

A store in a folder is one computer's: there the lock is on a file, and the system takes it from who
is killed. Hosts that share a database have no file in common: there the lock is a row, renewed by a
thread beside the work, and who was silent for `TTL_S` may be followed by another.
"""

from __future__ import annotations

import fcntl
import logging
import time
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from device_agents.errors import StoreError
from pipeline.store.errors import file_sentence
from pipeline.store.heartbeat import TTL_S, keep_beating, this_process
from pipeline.store.run_folder import run_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.store.records import Run
    from pipeline.store.runs import RunHolder
    from pipeline.store.store import Store

POLL_S = 0.5

_LOG = logging.getLogger("edgewright.store")


@contextmanager
def hold_run(store: Store, run: Run, *, ttl_s: float = TTL_S) -> Iterator[Callable[[], None]]:
    """Hold a run for this process; yields what raises once another process has followed it.

    Args:
        store: where the run is recorded.
        run: the run.
        ttl_s: in a shared database, after this long a silent holder may be followed.

    Raises:
        StoreError: another process is at work on the run, or the store cannot be written.
    """
    if not store.shared:
        with _file_locked(store, run):
            yield lambda: None
        return
    held = _HeldRun(store, run.id, ttl_s)
    held.take()
    try:
        with keep_beating(held.keep, every_s=ttl_s / 3, what=f"the lock on run {run.id}"):
            yield held.check
        held.check()
    finally:
        with suppress(StoreError):  # a row that cannot be deleted now is too old soon
            store.release_run(run.id, held.token)


@contextmanager
def _file_locked(store: Store, run: Run) -> Iterator[None]:
    path = run_folder(store, run) / ".lock"
    try:
        opened = path.open("w")
    except OSError as error:
        raise StoreError(file_sentence(str(path), error)) from error
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _worked_on(run.id, "another process") from error
        yield


class _HeldRun:
    """A run's row in a shared database, with this process's token in it."""

    def __init__(self, store: Store, run_id: str, ttl_s: float) -> None:
        self.token = uuid.uuid4().hex
        self._store = store
        self._run_id = run_id
        self._ttl_s = ttl_s
        self._follower = ""

    def take(self) -> None:
        """Take the run, at the latest when its holder has been silent for too long.

        Raises:
            StoreError: the holder lives.
        """
        began_s, first, told = time.monotonic(), self._ask(), False
        found = first
        while found.token != self.token:
            if (found.token, found.seen_s) != (first.token, first.seen_s):
                raise _worked_on(self._run_id, f"another process ({found.holder})")
            if not told and time.monotonic() - began_s > self._ttl_s / 2:
                told = True
                _LOG.warning(
                    "run %s was being worked on by %s, which has not been heard of for a while; "
                    "waiting for at most %.0f s",
                    self._run_id,
                    found.holder,
                    self._ttl_s / 2,
                )
            time.sleep(min(POLL_S, self._ttl_s / 10))
            found = self._ask()

    def check(self) -> None:
        """Raise StoreError if another process has followed this one."""
        if self._follower:
            raise StoreError(
                f"run {self._run_id} was taken up by another process ({self._follower}) while this "
                f"one was suspended or cut off from {self._store.place} for more than "
                f"{self._ttl_s:g} s; what was finished is stored, the same command goes on later"
            )

    def keep(self) -> bool:
        """Say that this process lives; False if another has followed it. Raises StoreError."""
        found = self._ask()
        if found.token != self.token:
            self._follower = found.holder
        return not self._follower

    def _ask(self) -> RunHolder:
        return self._store.take_run(self._run_id, self.token, this_process(), self._ttl_s)


def _worked_on(run_id: str, who: str) -> StoreError:
    return StoreError(
        f"run {run_id} is being worked on by {who}; wait for it, or start another run with --fresh"
    )
