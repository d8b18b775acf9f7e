"""One measurement at a time per device: leases that processes, and by PostgreSQL hosts, share.

A lease is held by a `with` block and renewed by a thread beside it. It ends with the block, or when
its holder has been silent for `TTL_S`: killed, suspended, cut off from the database. A holder that
comes back after that learns it before it touches the device again (`Lease.check`), at the latest at
the end of its block, as LeaseLost: what it measured is refused.

A database that is locked, or whose server is restarted, ends nobody's wait and nobody's block: it
is asked again for as long as the caller is willing to wait.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from sqlalchemy import URL

from device_agents.errors import DeadlineExceeded, StoreError
from pipeline.store.engines import lease_engine
from pipeline.store.errors import StoreBusy, file_sentence, translate_errors
from pipeline.store.heartbeat import TTL_S, keep_beating, this_process
from pipeline.store.lease import Lease
from pipeline.store.lease_book import CHOSEN_BY, LEASES_VARIABLE, Claim, LeaseBook, new_claim
from pipeline.store.location import database_url
from pipeline.store.patience import patiently
from pipeline.store.store import STORE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

POLL_S = 0.05
TELL_AFTER_S = 3.0

_LOG = logging.getLogger("edgewright.leases")
# With a renewal every TTL_S / 3, a database that is busy for a while costs nobody a lease.
_BUSY_TIMEOUT_S = 5.0


_T = TypeVar("_T")


def _since_boot() -> float:
    """Return seconds since this computer started, those in which it slept included."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True, slots=True)
class Standing:
    """One line of `Leases.status`: who holds a device, or waits for it.

    Attributes:
        key: what tells this device from all others; `device` is the claimant's name for it.
        fence: rises with every holder of the device; None for who waits.
        for_s: how long it has held the device or waited.
    """

    device: str
    key: str
    holder: str
    purpose: str
    priority: int
    fence: int | None
    for_s: float


class Leases:
    """Leases as one process asks for them; implements `device_agents.api.Leases`.

    Safe to use from several threads: they wait for each other like processes. Close it, or use
    `with`. `purpose` is shown to who waits; a claim of higher `priority` goes first.
    """

    def __init__(
        self,
        book: LeaseBook,
        *,
        holder: str,
        purpose: str = "",
        priority: int = 0,
        clock: Callable[[], float] = _since_boot,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.purpose = purpose
        self.priority = priority
        self._book = book
        self._holder = holder
        self._clock = clock
        self._pause = pause
        self._told = self._told_busy = False

    @property
    def place(self) -> str:
        """The database, as sentences name it."""
        return self._book.place

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database; may be called twice."""
        self._book.close()

    @contextmanager
    def hold(self, device: str, *, timeout_s: float, name: str = "") -> Iterator[Lease]:
        """Hold a device alone for a `with` block; waits for it up to `timeout_s`.

        Args:
            device: the key that all who share it have for it.
            timeout_s: wall time, for the device and for a database that is away; 0 asks once.
            name: the user's name for it, in sentences.

        Raises:
            DeadlineExceeded: others hold it; the sentence says who.
            LeaseLost: at the end of the block, if the lease had expired.
            StoreError: the database cannot be used.
        """
        claim = self._wait(device, name or device, timeout_s)
        lease = Lease(claim, self._book, lambda act: self._patiently(act, timeout_s), self._clock)
        try:
            with keep_beating(
                lease.keep, every_s=self._book.ttl_s / 3, what=f"the lease on {lease.name}"
            ):
                yield lease
            lease.confirm()
        finally:
            self._abandon(claim)

    def status(self) -> list[Standing]:
        """Return who holds each device and who waits, device by device, in order."""
        claims, now_s = self._book.queue()
        return [
            Standing(
                device=claim.name,
                key=claim.device,
                holder=claim.holder,
                purpose=claim.purpose,
                priority=claim.priority,
                fence=claim.fence,
                for_s=now_s - (claim.asked_s if claim.since_s is None else claim.since_s),
            )
            for claim in claims
        ]

    def _wait(self, device: str, name: str, timeout_s: float) -> Claim:
        claim = new_claim(device, name, self._holder, self.purpose, self.priority)
        try:
            return self._at_head(claim, timeout_s)
        except BaseException:
            self._abandon(claim)
            raise

    def _at_head(self, claim: Claim, timeout_s: float) -> Claim:
        """Return the claim when it has been given the device. Raises DeadlineExceeded."""
        began_s = visited_s = self._clock()
        claim = self._patiently(partial(self._book.visit, claim), timeout_s)
        while claim.fence is None:
            clock_s = self._clock()
            left_s = began_s + timeout_s - clock_s
            queue, now_s = self._patiently(partial(self._book.queue, claim.device), left_s)
            turn = not queue or queue[0].token == claim.token
            if turn or clock_s - visited_s >= self._book.ttl_s / 3:
                claim = self._patiently(partial(self._book.visit, claim), left_s)
                visited_s = clock_s
            elif left_s <= 0:
                raise DeadlineExceeded(
                    f"{_held(claim, queue, now_s)}; gave up after {timeout_s:g} s; "
                    "`edgewright device status` shows the queue"
                )
            else:
                if clock_s - began_s >= TELL_AFTER_S and not self._told:
                    # Once: two searches that take turns wait at every measurement.
                    self._told = True
                    _LOG.warning("waiting: %s", _held(claim, queue, now_s))
                self._pause(min(POLL_S, left_s))
        return claim

    def _patiently(self, act: Callable[[], _T], timeout_s: float) -> _T:
        """Do what may be repeated; a database that is locked or away is waited for."""
        return patiently(act, timeout_s, tell=self._tell_busy, clock=self._clock, pause=self._pause)

    def _tell_busy(self, sentence: str) -> None:
        if not self._told_busy:
            self._told_busy = True
            _LOG.warning("%s", sentence)

    def _abandon(self, claim: Claim) -> None:
        """Give a claim back; one that cannot be given back now expires."""
        with suppress(StoreError):
            self._book.release(claim)


def open_leases(
    store_location: str | None = None,
    *,
    purpose: str = "",
    priority: int = 0,
    ttl_s: float = TTL_S,
) -> Leases:
    """Open the leases that everyone who can reach the same devices shares.

    They lie in the store if that is a PostgreSQL database; else where $EDGEWRIGHT_LEASES says
    (a folder or a postgresql:// URL); else in the user's state folder, so that stores in several
    folders of one computer share them.

    Args:
        store_location: as for `Store.open`.
        purpose: what for; shown to who waits.
        priority: higher goes first.
        ttl_s: after this long a silent holder has lost its lease.

    Raises:
        StoreError: the database cannot be opened.
    """
    url, place = _location(store_location)
    with translate_errors(place, CHOSEN_BY):
        engine = lease_engine(url, busy_timeout_s=_BUSY_TIMEOUT_S)
    book = LeaseBook(engine, place, clock=time.monotonic, ttl_s=ttl_s)
    try:
        book.prepare()
    except StoreBusy:
        if engine.dialect.name != "sqlite":
            book.close()
            raise
        # Locked: who asks for a device has promised to wait; who asks for the state is told.
    except BaseException:
        book.close()
        raise
    return Leases(book, holder=this_process(), purpose=purpose, priority=priority)


def _location(store_location: str | None) -> tuple[URL, str]:
    """Return the database's URL, and how it is named in sentences."""
    found = database_url(str(store_location or os.environ.get(STORE_VARIABLE) or ""))
    if found is None:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        where = os.environ.get(LEASES_VARIABLE) or str(Path(state) / "edgewright")
        found = database_url(where)
    if found is not None:
        return found.url, found.shown
    path = Path(where).absolute() / "leases.db"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(file_sentence(str(path), error, CHOSEN_BY)) from error
    return URL.create("sqlite", database=str(path)), str(path)


def _held(claim: Claim, queue: list[Claim], now_s: float) -> str:
    """Say who holds the device, since when, and who waits before this claim."""
    first = queue[0]
    since_s = first.asked_s if first.since_s is None else first.since_s
    verb = "is waited for" if first.fence is None else "is held"
    what = f" ({first.purpose})" if first.purpose else ""
    before = [other for other in queue[1:] if other.turn < claim.turn]
    waiting = f"; {len(before)} more wait before this" if before else ""
    return (
        f"device {claim.name!r} {verb} by {first.holder}{what} for {now_s - since_s:.0f} s{waiting}"
    )
