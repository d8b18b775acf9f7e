"""Two real processes fight for one device; the holder is killed, stopped or cut off.

Both databases: SQLite on one computer, PostgreSQL for several.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from pipeline.store.leases import open_leases
from tests.pipeline.conftest import restart_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TTL_S = 2.0
# Starting to wait is no part of it; a poll, two transactions and a loaded machine are.
SLACK_S = 1.5

CLAIMANT = """
import sys, time
from pipeline.store.leases import open_leases
from tests.pipeline.conftest import restart_server

location, ttl_s = sys.argv[1], float(sys.argv[2])

def say(*words):
    print(*words, flush=True)

with open_leases(location, ttl_s=ttl_s, purpose="fight") as leases:
    say("asks")
    try:
        with leases.hold("board", timeout_s=60, name="the board") as claim:
            say("holds", claim.fence, time.monotonic())
            sys.stdin.readline()
    except Exception as error:
        say("ends", type(error).__name__)
    else:
        say("ends well")
"""


class Claimant:
    def __init__(self, location: str) -> None:
        command = [sys.executable, "-c", CLAIMANT, location, str(TTL_S)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.line() == ["asks"]

    def line(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def finish(self) -> list[str]:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.line()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=30)


@pytest.fixture(params=["sqlite", "postgresql"])
def location(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("server"))
    monkeypatch.setenv("EDGEWRIGHT_LEASES", str(tmp_path / "lab"))
    return str(tmp_path)


@pytest.fixture
def claimants(location: str) -> Iterator[tuple[Claimant, Claimant]]:
    """Yield one who holds the board and one who waits for it."""
    first = Claimant(location)
    try:
        assert first.line()[0] == "holds"
        second = Claimant(location)
        try:
            wait_for_a_queue(location)
            yield first, second
        finally:
            second.end()
    finally:
        first.end()


def wait_for_a_queue(location: str) -> None:
    with open_leases(location) as leases:
        while len(leases.status()) < 2:
            time.sleep(0.01)


def test_the_killed_holders_device_goes_to_who_waits_within_the_lease_time(
    claimants: tuple[Claimant, Claimant], location: str
) -> None:
    first, second = claimants
    with open_leases(location) as leases:
        before = leases.status()
        first.process.send_signal(signal.SIGKILL)
        killed_s = time.monotonic()
        said = second.line()
        took_s = float(said[2]) - killed_s
        assert said[0] == "holds"
        assert 0.0 < took_s < TTL_S + SLACK_S
        assert int(said[1]) == 1 + (before[0].fence or 0)
        assert [row.fence for row in leases.status()] == [int(said[1])]
        assert second.finish() == ["ends", "well"]
        assert leases.status() == []


def test_who_gives_it_back_hands_it_over_at_once(claimants: tuple[Claimant, Claimant]) -> None:
    first, second = claimants
    assert first.finish() == ["ends", "well"]
    given_s = time.monotonic()
    said = second.line()
    assert said[0] == "holds"
    assert float(said[2]) - given_s < SLACK_S


def test_a_stopped_holder_is_refused_when_it_goes_on(
    claimants: tuple[Claimant, Claimant],
) -> None:
    first, second = claimants
    first.process.send_signal(signal.SIGSTOP)
    try:
        assert second.line()[0] == "holds"
    finally:
        first.process.send_signal(signal.SIGCONT)
    assert first.finish() == ["ends", "LeaseLost"]
    assert second.finish() == ["ends", "well"]


def test_a_restart_of_the_database_ends_nobodys_wait_and_nobodys_work(
    server: str, request: pytest.FixtureRequest
) -> None:
    first = Claimant(server)
    request.addfinalizer(first.end)
    assert first.line()[0] == "holds"
    second = Claimant(server)
    request.addfinalizer(second.end)
    wait_for_a_queue(server)
    restart_server(server)
    assert first.finish() == ["ends", "well"]
    assert second.line()[0] == "holds"
    restart_server(server)
    assert second.finish() == ["ends", "well"]


def test_a_killed_waiter_stands_in_nobodys_way(
    claimants: tuple[Claimant, Claimant], location: str
) -> None:
    first, second = claimants
    third = Claimant(location)
    try:
        second.process.send_signal(signal.SIGKILL)
        assert first.finish() == ["ends", "well"]
        assert third.line()[0] == "holds"
        assert third.finish() == ["ends", "well"]
    finally:
        third.end()
