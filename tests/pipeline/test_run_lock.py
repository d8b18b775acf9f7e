"""One process at a time on a run: on one computer by a file, in a shared database by a row."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from device_agents.errors import StoreError
from pipeline.store import Store
from pipeline.store.memo import Memo, StepKind
from pipeline.store.run_lock import hold_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.store import Run

TTL_S = 1.5

HOLDER = """
import sys, time
from device_agents.errors import StoreError
from pipeline.store import Store
from pipeline.store.run_lock import hold_run

with Store.open(sys.argv[1]) as store:
    try:
        with hold_run(store, store.run(sys.argv[2]), ttl_s=float(sys.argv[3])) as check:
            print("held", flush=True)
            while not sys.stdin.readline():
                pass
            for _ in range(100):
                check()
                time.sleep(0.05)
            print("still held", flush=True)
    except StoreError as error:
        print(error, flush=True)
"""


@contextmanager
def holder(url: str, run: Run, place: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold a run in another process, as another host would."""
    place.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, url, run.id, str(TTL_S)],
        cwd=place,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait(30)
        process.stdin.close()
        process.stdout.close()


@pytest.fixture
def store(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.chdir(tmp_path)
    with Store.open(server) as opened:
        yield opened


@pytest.fixture
def run(store: Store) -> Run:
    return store.new_run("locked", recipe={}, digest="d", device="local", version="0")


def test_a_run_that_another_host_works_on_is_refused(
    store: Store, run: Run, tmp_path: Path
) -> None:
    other = store.new_run("locked", recipe={}, digest="d", device="local", version="0")
    with holder(store.location, run, tmp_path / "elsewhere") as process:
        refusal = rf"run {run.id} is being worked on by another process \(.*process {process.pid}\)"
        for _ in range(2):
            with pytest.raises(StoreError, match=refusal), hold_run(store, run, ttl_s=TTL_S):
                pass
        with hold_run(store, other, ttl_s=TTL_S):
            pass
    # Let go of by the end of the block, for the next to have it at once.
    other_ttl_s = 3600.0
    for _ in range(2):
        with hold_run(store, other, ttl_s=other_ttl_s) as check:
            check()


def test_a_run_whose_process_was_killed_goes_on_within_the_time(
    store: Store, run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with holder(store.location, run, tmp_path / "elsewhere") as process:
        process.kill()
        process.wait(30)
        with hold_run(store, run, ttl_s=TTL_S) as check:
            check()
            time.sleep(2 * TTL_S)  # renewed beside the work
            check()
    assert f"run {run.id} was being worked on by" in caplog.text


def test_who_was_stopped_for_too_long_works_no_more(store: Store, run: Run, tmp_path: Path) -> None:
    with holder(store.location, run, tmp_path / "elsewhere") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.send_signal(signal.SIGSTOP)
        with hold_run(store, run, ttl_s=TTL_S):
            process.send_signal(signal.SIGCONT)
            process.stdin.write("\n")
            process.stdin.flush()
            said = process.stdout.readline()
    assert said.startswith(f"run {run.id} was taken up by another process (")
    assert f"process {os.getpid()}) while this one was suspended or cut off" in said


def test_nothing_is_begun_once_another_has_followed(store: Store) -> None:
    def check() -> None:
        raise StoreError("run locked-1 was taken up by another process")

    memo = Memo(store, check=check)
    kind = StepKind("test-of-locks")
    with pytest.raises(StoreError, match="was taken up"):
        memo.once(kind, {}, lambda: pytest.fail("it was begun"))
    assert not memo.remembers(kind, {})


def test_on_one_computer_a_killed_process_lets_go_at_once(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store:
        run = store.new_run("locked", recipe={}, digest="d", device="local", version="0")
        with holder(str(tmp_path / "store"), run, tmp_path) as process:
            words = "run locked-1 is being worked on by another process; wait for it, or start"
            with pytest.raises(StoreError, match=words), hold_run(store, run):
                pass
            process.kill()
            process.wait(30)
            with hold_run(store, run) as check:
                check()
