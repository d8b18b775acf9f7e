"""The store on a real PostgreSQL server, which the test starts in a temporary folder.

Skipped where PostgreSQL's programs or psycopg are not installed.
"""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.store import Store, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip(
    "psycopg", reason="psycopg is not installed: pip install 'edgewright[postgres]'"
)


# Debian keeps the server's programs off PATH.
_DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
_FOUND = shutil.which("initdb") or (str(_DEBIAN[-1]) if _DEBIAN else None)
POSTGRES_PROGRAMS = str(Path(_FOUND).parent) if _FOUND else None


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Yield the URL of an empty database on a server of our own, reached by a Unix socket."""
    programs = POSTGRES_PROGRAMS
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    user = "nobody" if os.getuid() == 0 else getpass.getuser()  # the server refuses to be root
    folder = Path(tempfile.mkdtemp(prefix="ew-pg-"))  # short: a socket's path has at most 107 bytes
    if os.getuid() == 0:
        shutil.chown(folder, user)

    def run(*command: str) -> None:
        done = subprocess.run(
            command, user=user, cwd=folder, capture_output=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr.decode()

    data, log = str(folder / "data"), str(folder / "log")
    run(f"{programs}/initdb", "-D", data, "-U", "edgewright", "-A", "trust", "-N")
    options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
    run(f"{programs}/pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "-t", "60", "start")
    try:
        yield f"postgresql://edgewright@/postgres?host={folder}"
    finally:
        run(f"{programs}/pg_ctl", "-D", data, "-w", "-t", "60", "-m", "immediate", "stop")
        shutil.rmtree(folder)


def test_the_store_works_the_same(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inputs = {"epochs": 3, "ratio": float("inf")}
    with Store.open(server) as store:
        sha = store.put_bytes(b"weights")
        step = store.record("train", inputs, {"score": float("-inf")}, {"network": sha})
        assert store.record("train", inputs, {"score": 1}, {"network": sha}) == step
        for epoch in range(3):
            state = store.put_bytes(f"state {epoch}".encode())
            store.checkpoint("train", inputs, epoch, result={}, artifacts={"state": state})
        assert store.drop_checkpoints("train", inputs, keep_latest=True) == 2
        run = store.new_run("digits", recipe={}, digest="d", device="local", version="0").id
        assert store.add_trial(run, 0, "spec", {"score": float("-inf")})
        assert not store.add_trial(run, 0, "spec", {"score": 1})
        with pytest.raises(StoreError, match="no run 'nope'"):
            store.add_trial("nope", 0, "spec", {})
    with Store.open(server) as again:
        assert again.memo("train", inputs) == step
        assert again.path(sha).read_bytes() == b"weights"
        assert [r.id for r in again.runs()] == ["digits-1"]
        latest = again.latest_checkpoint("train", inputs)
        assert latest is not None
        assert latest.inputs["position"] == 2


def test_several_that_open_and_record_at_once_share_one_record(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    start = threading.Barrier(4)
    seen: list[list[Any]] = [[] for _ in range(4)]

    def work(number: int) -> None:
        start.wait(timeout=30)
        with Store.open(server) as store:
            for index in range(10):
                seen[number].append(store.record("race", {"index": index}, {"by": number}))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(seen[0]) == 10
    assert all(steps == seen[0] for steps in seen)
