"""Leases: never two holders, the right one next, nobody passed over; mostly in virtual time."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from device_agents.api import Leases as LeasesProtocol
from device_agents.errors import DeadlineExceeded, LeaseLost, StoreError
from pipeline.cli.main import main
from pipeline.store import Store
from pipeline.store.engines import lease_engine
from pipeline.store.lease_book import HEAD_START_S, Claim, LeaseBook
from pipeline.store.leases import Leases, open_leases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TTL_S = 15.0


class VirtualClock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def book(tmp_path: Path, clock: VirtualClock) -> Iterator[LeaseBook]:
    made = new_book(tmp_path, clock)
    yield made
    made.close()


def new_book(
    folder: Path, clock: Callable[[], float], busy_timeout_s: float = 5.0, ttl_s: float = TTL_S
) -> LeaseBook:
    path = folder / "leases.db"
    engine = lease_engine(f"sqlite:///{path}", busy_timeout_s=busy_timeout_s)
    return LeaseBook(engine, str(path), clock=clock, ttl_s=ttl_s)


def leases(book: LeaseBook, clock: VirtualClock, who: str = "ann", **more: Any) -> Leases:
    """Return leases whose pauses advance the clock."""
    return Leases(book, holder=who, clock=clock, **{"pause": clock.advance, **more})


def ask(book: LeaseBook, who: str, priority: int = 0, device: str = "pi") -> Claim:
    return book.ask(device, name=device, holder=who, purpose="", priority=priority)


# The order


def test_first_come_first_served_within_a_priority(book: LeaseBook, clock: VirtualClock) -> None:
    held = ask(book, "holder")
    waiting = []
    for who, priority in [("a", 0), ("b", 0), ("c", 1), ("d", 0), ("e", 2), ("f", 1)]:
        clock.advance(1.0)
        waiting.append(ask(book, who, priority))
    served = []
    while waiting:
        assert book.release(held)
        visited = [book.visit(claim) for claim in waiting]
        (held,) = [claim for claim in visited if claim.fence is not None]
        served.append(held.holder)
        waiting = [claim for claim in visited if claim.fence is None]
    assert served == ["e", "c", "f", "a", "b", "d"]


def test_a_low_priority_is_served_although_higher_ones_keep_coming(
    book: LeaseBook, clock: VirtualClock
) -> None:
    held, low, began_s = ask(book, "high"), ask(book, "low"), clock()
    while low.fence is None:
        clock.advance(1.0)
        rival = ask(book, "high", priority=3)
        assert book.release(held)
        low, rival = book.visit(low), book.visit(rival)
        if low.fence is None:
            held = rival
            assert held.fence is not None
    assert 3 * HEAD_START_S <= clock() - began_s <= 3 * HEAD_START_S + 2.0


@pytest.mark.parametrize("seed", range(12))
def test_never_two_holders_whatever_happens(
    book: LeaseBook, clock: VirtualClock, seed: int
) -> None:
    """Claimants come, wait, renew, fall silent, come back late and leave, in any order."""
    rng = random.Random(seed)
    claims: list[Claim] = []
    given: list[Claim] = []

    def kept(claim: Claim, before: Claim | None) -> Claim:
        if claim.fence is not None and (before is None or before.fence is None):
            living = [other for other in book.queue("pi")[0] if other.token != claim.token]
            assert all(other.fence is None for other in living), "two hold the device"
            assert all(claim.turn[1:] < other.turn[1:] for other in living), "not the next"
            assert not given or claim.fence > given[-1].fence  # type: ignore[operator]
            given.append(claim)
        return claim

    refused = 0
    for _ in range(150):
        clock.advance(rng.choice([0.0, 0.1, 1.0, 6.0, TTL_S + 1.0]))
        move = rng.random()
        if move < 0.35 or not claims:
            claims.append(kept(ask(book, "x", rng.randrange(3)), None))
            continue
        index = rng.randrange(len(claims))
        claim = claims[index]
        if move < 0.65 and claim.fence is None:
            claims[index] = kept(book.visit(claim), claim)
        elif move < 0.8:
            book.renew(claim)
        else:
            del claims[index]
            released = book.release(claim)
            if claim.fence is not None:
                # Its work counts only if nobody was given the device after it.
                assert not released or given[-1].token == claim.token
                refused += not released
    assert len(given) > 10
    assert refused > 0


def test_each_device_has_a_queue_of_its_own(book: LeaseBook) -> None:
    assert ask(book, "a", device="one").fence == 1
    assert ask(book, "b", device="two").fence == 1
    assert ask(book, "c", device="one").fence is None


def test_only_the_token_gives_a_lease_back(book: LeaseBook) -> None:
    held = ask(book, "a")
    assert not book.release(replace(held, token="0" * 32))
    assert ask(book, "b").fence is None


@pytest.mark.parametrize("jump_s", [-1e6, 1e6], ids=["reboot", "long ago"])
def test_what_another_boot_left_is_dead(
    book: LeaseBook, clock: VirtualClock, jump_s: float
) -> None:
    ask(book, "before")
    clock.advance(jump_s)
    assert ask(book, "after").fence == 2
    assert [claim.holder for claim in book.queue()[0]] == ["after"]


# Holding


def test_leases_are_what_the_runner_asks_for(book: LeaseBook, clock: VirtualClock) -> None:
    assert isinstance(leases(book, clock), LeasesProtocol)


def test_who_gives_up_is_told_who_holds_it(book: LeaseBook, clock: VirtualClock) -> None:
    ann = leases(book, clock, "ann@desk, process 7", purpose="run digits")
    bob = leases(book, clock, "bob@lab, process 9")
    with ann.hold("serial-1", timeout_s=0.0, name="pi 4"):
        other = ask(book, "eve", device="serial-1")
        with pytest.raises(DeadlineExceeded) as said, bob.hold("serial-1", timeout_s=12, name="pi"):
            pass
    assert str(said.value) == (
        "device 'pi' is held by ann@desk, process 7 (run digits) for 12 s; "
        "1 more wait before this; gave up after 12 s; `edgewright device status` shows the queue"
    )
    assert [claim.token for claim in book.queue()[0]] == [other.token]


def test_who_waits_is_told_once_what_for(
    book: LeaseBook, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    ask(book, "ann")
    bob = leases(book, clock, "bob")
    for _ in range(2):
        with pytest.raises(DeadlineExceeded), bob.hold("pi", timeout_s=5.0):
            pass
    assert caplog.messages == ["waiting: device 'pi' is held by ann for 3 s"]


def test_a_waiting_claim_lives_while_it_waits(book: LeaseBook, clock: VirtualClock) -> None:
    held = ask(book, "holder")
    seen: list[int] = []

    def pause(seconds: float) -> None:
        clock.advance(seconds)
        assert book.renew(held)
        seen.append(len(book.queue()[0]))

    with pytest.raises(DeadlineExceeded), leases(book, clock, pause=pause).hold("pi", timeout_s=60):
        pass
    assert set(seen) == {2}
    assert len(seen) <= 1 + 60 / 0.05


def test_a_dead_holders_device_goes_to_who_waits(book: LeaseBook, clock: VirtualClock) -> None:
    ask(book, "killed")
    began_s = clock()
    with leases(book, clock).hold("pi", timeout_s=60) as claim:
        assert claim.fence == 2
    assert TTL_S < clock() - began_s < TTL_S + 0.2


def test_a_holder_that_was_away_too_long_is_refused(book: LeaseBook, clock: VirtualClock) -> None:
    ann = leases(book, clock)

    def away() -> None:
        with ann.hold("pi", timeout_s=0.0):
            clock.advance(TTL_S + 1.0)
            assert ask(book, "bob").fence == 2

    with pytest.raises(LeaseLost, match=r"'pi' ended before .* refused; measure again"):
        away()
    assert [claim.holder for claim in book.queue()[0]] == ["bob"]


def test_a_holder_that_was_away_is_not_refused_when_nobody_came(
    book: LeaseBook, clock: VirtualClock
) -> None:
    with leases(book, clock).hold("pi", timeout_s=0.0):
        clock.advance(TTL_S + 1.0)
    assert book.queue()[0] == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_gives_the_device_back_and_is_not_hidden(
    book: LeaseBook, clock: VirtualClock, error: type[BaseException]
) -> None:
    ann = leases(book, clock)
    with pytest.raises(error), ann.hold("pi", timeout_s=0.0):
        raise error
    with ann.hold("pi", timeout_s=0.0) as claim:
        assert claim.fence == 2


def test_who_is_interrupted_while_waiting_leaves_the_queue(
    book: LeaseBook, clock: VirtualClock
) -> None:
    def pause(_: float) -> None:
        raise KeyboardInterrupt

    held = ask(book, "holder")
    with pytest.raises(KeyboardInterrupt), leases(book, clock, pause=pause).hold("pi", timeout_s=9):
        pass
    assert [claim.token for claim in book.queue()[0]] == [held.token]


def test_a_lease_is_renewed_while_it_is_held(
    tmp_path: Path, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    renewals = threading.Semaphore(0)

    class Busy(LeaseBook):
        failures = 2

        def renew(self, claim: Claim) -> bool:
            renewals.release()
            if self.failures:
                self.failures -= 1
                raise StoreError("the store is busy")
            clock.advance(0.02)
            return super().renew(claim)

    engine = lease_engine(f"sqlite:///{tmp_path / 'leases.db'}", busy_timeout_s=5)
    busy = Busy(engine, "there", clock=clock, ttl_s=TTL_S / 500)
    with leases(busy, clock).hold("pi", timeout_s=0.0) as held:
        for _ in range(6):
            assert renewals.acquire(timeout=30)
        (still,), now_s = busy.queue()
        assert still == held.claim
        assert now_s - held.claim.asked_s > 2 * busy.ttl_s
    busy.close()
    assert "is not renewed: the store is busy" in caplog.text


def test_a_lost_lease_is_noticed_while_it_is_held(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, clock: VirtualClock
) -> None:
    book = new_book(tmp_path, clock, ttl_s=0.03)
    with suppress(LeaseLost), leases(book, clock).hold("pi", timeout_s=0.0) as held:
        assert book.release(held.claim)
        (renewing,) = [t for t in threading.enumerate() if t.name == "the lease on pi"]
        renewing.join(timeout=30)
        assert not renewing.is_alive()
    book.close()
    assert "the lease on pi has expired; its measurement is refused" in caplog.text


def test_threads_hold_it_one_after_the_other() -> None:
    fences: list[int | None] = []
    inside: list[int] = []

    def work() -> None:
        for _ in range(4):
            with shared.hold("pi", timeout_s=60) as claim:
                fences.append(claim.fence)
                inside.append(1)
                # Reading the database lets the other threads run.
                assert [row.fence for row in shared.status()][:2] in (
                    [claim.fence],
                    [claim.fence, None],
                )
                assert sum(inside) == 1
                inside.append(-1)

    with open_leases() as shared, ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(work) for _ in range(6)]:
            done.result(timeout=60)
        assert shared.status() == []
    assert fences == list(range(1, 25))


# Where they lie


def test_stores_in_two_folders_share_the_users_leases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with open_leases(str(tmp_path / "a")) as one, open_leases(str(tmp_path / "b")) as two:
        assert one.place == two.place == str(tmp_path / "state" / "edgewright" / "leases.db")
    monkeypatch.setenv("EDGEWRIGHT_LEASES", str(tmp_path / "lab"))
    with open_leases() as there:
        assert there.place == str(tmp_path / "lab" / "leases.db")
    assert not (tmp_path / "a").exists()


def test_a_home_folder_is_the_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    with open_leases() as found:
        assert found.place == f"{tmp_path}/.local/state/edgewright/leases.db"


@pytest.mark.parametrize("variable", ["EDGEWRIGHT_STORE", "EDGEWRIGHT_LEASES"])
def test_a_url_is_asked_and_its_password_not_shown(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setenv(variable, "postgresql://ann:secret@127.0.0.1:1/lab")
    with pytest.raises(StoreError, match=r"ann:\*\*\*@127.0.0.1:1/lab") as said:
        open_leases()
    assert "secret" not in str(said.value)


# What can go wrong


def test_a_full_disk_says_so(tmp_path: Path, clock: VirtualClock) -> None:
    made = new_book(tmp_path, clock)

    def narrow(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA max_page_count = 1").close()

    event.listen(made._engine, "connect", narrow)
    made._engine.dispose()
    with pytest.raises(StoreError, match=r"leases.db cannot grow because the disk is full"):
        made.ask("pi", name="pi" * 10_000, holder="a", purpose="", priority=0)
    made.close()


def test_a_locked_database_says_so(tmp_path: Path, clock: VirtualClock) -> None:
    made = new_book(tmp_path, clock, busy_timeout_s=0.1)
    other = sqlite3.connect(tmp_path / "leases.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match=r"leases.db is locked by another process"):
        ask(made, "a")
    other.close()
    assert ask(made, "a").fence == 1
    made.close()


def locked(path: Path) -> sqlite3.Connection:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    return other


def test_who_waits_outlasts_a_locked_database(
    tmp_path: Path, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    made = new_book(tmp_path, clock, busy_timeout_s=0.01)
    made.prepare()
    other, pauses = locked(tmp_path / "leases.db"), []

    def pause(seconds: float) -> None:
        clock.advance(seconds)
        pauses.append(seconds)
        if len(pauses) == 100:
            other.close()

    with leases(made, clock, pause=pause).hold("pi", timeout_s=3600.0) as held:
        assert held.fence == 1
        assert sum(pauses) > 40
    made.close()
    assert "waiting, for 3600 s at most: the store" in caplog.text
    assert caplog.text.count("waiting") == 1


def test_who_waits_for_a_locked_database_gives_up_when_it_said(
    tmp_path: Path, clock: VirtualClock
) -> None:
    made = new_book(tmp_path, clock, busy_timeout_s=0.01)
    made.prepare()
    other, began_s = locked(tmp_path / "leases.db"), clock()
    with (
        pytest.raises(StoreError, match=r"leases.db is locked by another process"),
        leases(made, clock).hold("pi", timeout_s=30.0),
    ):
        pass
    assert 29.0 < clock() - began_s < 32.0
    other.close()
    made.close()


def test_work_is_not_lost_to_a_database_locked_at_its_end(
    tmp_path: Path, clock: VirtualClock
) -> None:
    made = new_book(tmp_path, clock, busy_timeout_s=0.01)
    others: list[sqlite3.Connection] = []

    def pause(seconds: float) -> None:
        clock.advance(seconds)
        others.pop().close()

    with leases(made, clock, pause=pause).hold("pi", timeout_s=30.0):
        others.append(locked(tmp_path / "leases.db"))
    assert made.queue()[0] == []
    made.close()


def test_leases_are_opened_while_their_database_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.store.leases._BUSY_TIMEOUT_S", 0.01)
    monkeypatch.setenv("EDGEWRIGHT_LEASES", str(tmp_path))
    other = locked(tmp_path / "leases.db")
    with open_leases() as opened:
        with pytest.raises(StoreError, match="is locked by another process"):
            opened.status()
        opened._pause = lambda _: other.close()
        with opened.hold("pi", timeout_s=60.0) as held:
            assert held.fence == 1


def test_a_holder_asks_again_before_it_uses_the_device(
    book: LeaseBook, clock: VirtualClock
) -> None:
    with suppress(LeaseLost), leases(book, clock).hold("tab", timeout_s=0.0) as held:
        assert book.release(held.claim)  # as of a process stopped before its first check
        with pytest.raises(LeaseLost):
            held.check()
    with leases(book, clock).hold("pi", timeout_s=0.0) as held:
        held.check()
        clock.advance(TTL_S - 0.1)  # nobody came: it is still the holder's
        held.check()
        clock.advance(0.1)
        assert ask(book, "bob").fence is None
    with suppress(LeaseLost), leases(book, clock).hold("pad", timeout_s=0.0) as held:
        clock.advance(TTL_S + 0.1)
        assert ask(book, "bob", device="pad").fence == 2
        with pytest.raises(LeaseLost, match="ended before the measurement did"):
            held.check()


def test_a_folder_that_cannot_be_made_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGEWRIGHT_LEASES", str(tmp_path / "file" / "inner"))
    with pytest.raises(StoreError, match=r"leases.db cannot be written: Not a directory"):
        open_leases()


def test_what_is_no_database_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leases.db").write_text("no database at all, but long enough to be read" * 50)
    monkeypatch.setenv("EDGEWRIGHT_LEASES", str(tmp_path))
    with pytest.raises(StoreError, match=r"choose another with [$]EDGEWRIGHT_LEASES"):
        open_leases()


def test_a_store_takes_no_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of a store's own folder: two files, neither of which is foreign to the other."""
    monkeypatch.setenv("EDGEWRIGHT_LEASES", str(tmp_path))
    with (
        Store.open(tmp_path) as store,
        open_leases(str(tmp_path)) as found,
        found.hold("pi", timeout_s=0.0),
    ):
        assert store.runs() == []
    with Store.open(tmp_path, create=False) as store:
        assert store.runs() == []


# edgewright device status


def test_status_says_who_holds_and_who_waits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["device", "status"]) == 0
    assert "no device is held" in capsys.readouterr().out
    with (
        open_leases(purpose="run digits") as ann,
        open_leases(purpose="bench", priority=2) as bob,
        ann.hold("serial-1", timeout_s=0.0, name="pi 4"),
    ):
        waiting = bob._book.ask("serial-1", name="pi", holder="bob", purpose="bench", priority=2)
        assert main(["device", "status"]) == 0
        head, first, second = capsys.readouterr().out.splitlines()
        assert main(["device", "status", "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)
        bob._book.release(waiting)
    assert head.split()[:3] == ["device", "state", "holder"]
    assert first.startswith("pi 4")
    assert "held" in first
    assert "run digits" in first
    assert "waits" in second
    assert "priority 2" in second
    assert [(row["device"], row["state"], row["fence"]) for row in rows] == [
        ("pi 4", "held", 1),
        ("pi", "waits", None),
    ]
    assert all(row["since"].endswith("+00:00") for row in rows)
