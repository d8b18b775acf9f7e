"""The store over a restart of its real PostgreSQL server, and over answers that never came."""

from __future__ import annotations

import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from device_agents.api import Measurement
from device_agents.errors import StoreError
from pipeline.store import Store, tables
from tests.pipeline.conftest import restart_server
from tests.unit.test_store import measurement, result

if TYPE_CHECKING:
    from collections.abc import Iterator

SOCKET = ".s.PGSQL.5432"


class Hangup:
    """Stands between a store and its server; hangs up when the answer to `after` has come."""

    def __init__(self, server_folder: str) -> None:
        self.folder = tempfile.mkdtemp(prefix="ew-hangup-")
        self.after = b""
        self.times = 0
        self._server = f"{server_folder}/{SOCKET}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self.folder}/{SOCKET}")
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        """Pass on what one side says and then all that the other answers."""
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._server)
            answers = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
            answers.start()
            while asked := client.recv(1 << 16):
                if self.after and self.after in asked:
                    self.after = b""
                    self.times += 1
                    # From now on nothing comes back; the server's last act is to do as asked.
                    client.shutdown(socket.SHUT_RDWR)
                    server.sendall(asked)
                    server.shutdown(socket.SHUT_WR)
                    break
                server.sendall(asked)
            answers.join(timeout=30)

    def close(self) -> None:
        self._listener.close()
        (Path(self.folder) / SOCKET).unlink()
        Path(self.folder).rmdir()


def _pass_on(server: socket.socket, client: socket.socket) -> None:
    try:
        while said := server.recv(1 << 16):
            client.sendall(said)
    except OSError:
        return


@pytest.fixture
def hangup(server: str) -> Iterator[Hangup]:
    made = Hangup(server.partition("?host=")[2])
    yield made
    made.close()


@pytest.fixture
def store(hangup: Hangup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.chdir(tmp_path)
    with Store.open(f"postgresql://edgewright@/postgres?host={hangup.folder}") as opened:
        yield opened


def new_run(store: Store) -> str:
    return store.new_run("answers", recipe={}, digest="d", device="local", version="0").id


def test_a_restart_of_the_server_ends_no_run(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    stop = threading.Event()

    def restart() -> None:
        for _ in range(2):
            restart_server(server)
            time.sleep(0.3)
        stop.set()

    with Store.open(server) as store:
        run = store.new_run("restart", recipe={}, digest="d", device="local", version="0").id
        restarts = threading.Thread(target=restart)
        restarts.start()
        count = 0
        while not stop.is_set():
            assert store.add_trial(run, count, "spec", {"count": count})
            assert len(store.trials(run)) == count + 1
            count += 1
        restarts.join(timeout=60)
        assert [trial["count"] for trial in store.trials(run)] == list(range(count))
    assert "waiting, for 300 s at most: the store postgresql" in caplog.text


def test_who_opens_it_in_the_middle_of_a_run_waits(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path(server.partition("?host=")[2])
    way, away = folder / SOCKET, folder / "away"
    way.rename(away)
    try:
        with pytest.raises(StoreError, match=r"cannot be used: connection .* failed"):
            Store.open(server)
        threading.Timer(0.7, lambda: away.rename(way)).start()
        with Store.open(server, patience_s=30.0) as store:
            assert way.exists()
            run = store.new_run("opened", recipe={}, digest="d", device="local", version="0")
            assert store.run(run.id) == run
    finally:
        if away.exists():
            away.rename(way)


def test_what_was_done_without_an_answer_is_not_done_twice(store: Store, hangup: Hangup) -> None:
    hangup.after = b"COMMIT"
    run = new_run(store)
    assert [found.id for found in store.runs() if found.id.startswith("answers-")] == [run]
    hangup.after = b"COMMIT"
    assert store.add_trial(run, 0, "spec", {"score": 1.5})
    assert not store.add_trial(run, 0, "spec", {"score": 2})
    assert store.trials(run) == [{"score": 1.5}]
    hangup.after = b"COMMIT"
    step = store.record("train", {"run": run}, {"by": 1})
    assert store.memo("train", {"run": run}) == step
    assert hangup.times == 3


def test_a_row_that_the_server_numbers_is_not_added_twice(store: Store, hangup: Hangup) -> None:
    run = new_run(store)
    for sent in (b"COMMIT", b"INSERT INTO measurements"):
        hangup.after = sent
        store.add_measurement(measurement("a" * 64), run_id=run)
    hangup.after = b"COMMIT"
    store.add_result(result(run, 1.0))
    assert hangup.times == 3
    found = store.measurements(run_id=run)
    assert [Measurement.from_json(row.data) for row in found] == 2 * [measurement("a" * 64)]
    with store._engine.connect() as connection:
        rows = select(tables.results).where(tables.results.c.run_id == run)
        assert len(connection.execute(rows).all()) == 1


def test_checkpoints_that_went_without_an_answer_take_their_artifacts_along(
    store: Store, hangup: Hangup
) -> None:
    inputs = {"run": new_run(store)}
    states = [store.put_bytes(f"{inputs} {epoch}".encode()) for epoch in range(3)]
    for epoch, state in enumerate(states):
        store.checkpoint("train", inputs, epoch, result={}, artifacts={"state": state})
    hangup.after = b"COMMIT"
    assert store.drop_checkpoints("train", inputs, keep_latest=True) == 2
    assert hangup.times == 1
    assert [store.artifacts.why_not(state) is None for state in states] == [False, False, True]
