"""The store on a real PostgreSQL server; skipped where none is installed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import MetaData, inspect, select, text

from device_agents.errors import StoreError
from pipeline.store import Store, step_key
from pipeline.store.engines import open_engine
from pipeline.store.leases import open_leases
from pipeline.store.migrations import schema_1
from pipeline.store.tables import lease_metadata, metadata, steps
from tests.old_store import AT_COMMIT, KILLED, RECORDED

if TYPE_CHECKING:
    from pathlib import Path


def test_leases_come_first_or_later(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_leases(server) as leases, leases.hold("board", timeout_s=0.0):
        # A store in the same database, made after the leases, by who never saw them.
        with Store.open(server) as store:
            made = store.new_run("beside", recipe={}, digest="d", device="board", version="0")
        with Store.open(server) as store:
            assert store.run(made.id) == made
        with open_leases(server) as others:
            assert [row.device for row in others.status()] == ["board"]


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
        # Other tests use the same server.
        assert [r.id for r in again.runs() if r.id.startswith("digits-")] == ["digits-1"]
        latest = again.latest_checkpoint("train", inputs)
        assert latest is not None
        assert latest.inputs["position"] == 2


def new_database(server: str, name: str) -> str:
    """Make an empty database and return its URL."""
    engine = open_engine(server, busy_timeout_s=30.0)
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.replace("/postgres?", f"/{name}?")


def old_tables(url: str) -> None:
    """Put the tables and steps of the recorded store into an empty database, as 0.1.0 did."""
    engine = open_engine(url, busy_timeout_s=30.0)
    with engine.begin() as connection:
        operations = Operations(MigrationContext.configure(connection))
        schema_1.upgrade(operations)
        tables = MetaData()
        tables.reflect(connection)
        with closing(sqlite3.connect(":memory:")) as recorded:
            recorded.executescript((RECORDED / "store.sql").read_text())
            recorded.row_factory = sqlite3.Row
            for table in tables.sorted_tables:
                if table.name.startswith("lease"):
                    continue
                rows = recorded.execute(f"select * from {table.name}").fetchall()  # noqa: S608
                connection.execute(table.insert(), [dict(row) for row in rows])
    engine.dispose()


def test_an_old_store_is_brought_up_to_date_by_one_of_several(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    url = new_database(server, "old")
    old_tables(url)
    start = threading.Barrier(3)
    found: list[list[str]] = []

    def work() -> None:
        start.wait(timeout=30)
        with Store.open(url) as store:
            found.append([run.id for run in store.runs()])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert found == [["small-1", "small-2"]] * 3
    assert caplog.text.count("is brought up to date") == 1
    with Store.open(url) as store, store._engine.connect() as connection:
        options = {"include_object": not_of_leases}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
        rows = connection.execute(select(steps).where(steps.c.parent.is_(None))).all()
        assert len(rows) == 55
        for row in rows:
            inputs = json.loads(row.inputs)
            assert inputs["step"] == 1
            assert "edgewright" not in inputs
            assert row.key == step_key(row.kind, inputs)


def test_a_migration_that_is_killed_leaves_a_store_that_opens(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = new_database(server, "killed")
    old_tables(url)
    for statement in (8, 12, 18, 22, AT_COMMIT):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, url, str(statement)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        engine = open_engine(url, busy_timeout_s=30.0)
        with engine.connect() as connection:
            assert connection.execute(text("SELECT value FROM edgewright_meta")).all() == [("1",)]
            assert inspect(connection).get_columns("runs")[-1]["name"] == "version"
        engine.dispose()
    with Store.open(url) as store:
        assert store.new_run("small", recipe={}, digest="", device="", version="").id == "small-3"


def not_of_leases(_object: object, name: str | None, kind: str, *_: object) -> bool:
    return kind != "table" or name not in lease_metadata.tables


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
