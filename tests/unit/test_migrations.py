"""Stores of earlier schemas: opened, brought up to date whole or not at all, refused if later."""

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
from alembic.script import ScriptDirectory

from pipeline.store import Store, canonical_json, step_key
from pipeline.store.memo import Memo, StepKind
from pipeline.store.schema import MIGRATIONS, SCHEMA_VERSION
from pipeline.store.tables import lease_metadata, metadata
from tests.old_store import AT_COMMIT, KILLED, put_old_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Engine


def differences(engine: Engine) -> list[Any]:
    """Return how the tables of a database differ from those that the code knows."""

    def ours(_object: object, name: str | None, kind: str, *_: object) -> bool:
        return kind != "table" or name not in lease_metadata.tables

    with engine.connect() as connection:
        options = {"include_object": ours, "compare_type": True}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return list(database.iterdump())


def steps_of(path: Path) -> dict[str, int]:
    """Return how many steps of each kind a store has; checkpoints are a kind."""
    with closing(sqlite3.connect(path)) as database:
        return dict(database.execute("select kind, count(*) from steps group by kind"))


def test_the_newest_migration_makes_the_schema_that_the_code_knows() -> None:
    scripts = ScriptDirectory(str(MIGRATIONS), version_locations=[str(MIGRATIONS)])
    assert scripts.get_current_head() == str(SCHEMA_VERSION)
    assert [script.revision for script in scripts.walk_revisions()][::-1] == [
        str(number) for number in range(1, SCHEMA_VERSION + 1)
    ]


@pytest.mark.parametrize("put", [put_old_store, lambda folder: folder.mkdir()])
def test_old_and_new_stores_have_the_same_tables(
    tmp_path: Path, put: Callable[[Path], object]
) -> None:
    put(tmp_path / "store")
    with Store.open(tmp_path / "store") as store:
        assert differences(store._engine) == []


def test_what_an_old_store_holds_is_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = put_old_store(tmp_path)
    before = steps_of(path)
    with Store.open(tmp_path) as store:
        assert "was made by an earlier edgewright and is brought up to date" in caplog.text
        assert [run.id for run in store.runs()] == ["small-1", "small-2"]
        assert store.latest_run(store.run("small-2").recipe_digest, "board") == store.run("small-2")
        assert len(store.measurements()) == before["measure"] == 31
        assert store.result().run_id == "small-1"
        assert len(store.trials("small-2")) == 4
        new = store.new_run("small", recipe={}, digest="", device="board", version="2")
        assert new.id == "small-3"
        for artifact in tmp_path.glob("artifacts/??/*"):
            assert store.artifacts.why_not(artifact.name) is None
    caplog.clear()
    assert steps_of(path) == before
    after = dump(path)
    Store.open(tmp_path).close()
    assert "brought up to date" not in caplog.text
    assert dump(path) == after


def test_every_step_is_found_by_its_new_key(tmp_path: Path) -> None:
    path = put_old_store(tmp_path)
    with closing(sqlite3.connect(path)) as database:
        query = "select kind, inputs, result from steps where parent is null"
        rows = [(kind, json.loads(text), result) for kind, text, result in database.execute(query)]
    assert {kind for kind, _, _ in rows} == {
        "device-classes",
        "export",
        "measure",
        "proxy",
        "train",
    }
    with Store.open(tmp_path) as store:
        memo = Memo(store)
        for kind, inputs, result in rows:
            assert inputs.pop("edgewright") == "0.1.0"

            def work() -> Any:
                raise AssertionError("it is done already")

            step = memo.once(StepKind(kind), inputs, work)
            assert step.result == json.loads(result)
            assert step.key == step_key(kind, {**inputs, "step": 1})
            assert not memo.remembers(StepKind(kind, version=2), inputs)


def test_steps_of_others_keep_their_keys(tmp_path: Path) -> None:
    path = put_old_store(tmp_path)
    others = {"epochs": 3}, {"epochs": 3, "edgewright": "0.2.0"}
    with closing(sqlite3.connect(path)) as database, database:
        for inputs in others:
            row = (step_key("train", inputs), canonical_json(inputs))
            values = "?, 0, 'train', ?, '7', '{}', '', 0, null, null"
            database.execute(f"insert into steps values ({values})", row)  # noqa: S608
    with Store.open(tmp_path) as store:
        for inputs in others:
            found = store.memo("train", inputs)
            assert found is not None
            assert found.result == 7


def old_checkpoint(path: Path, kind: str, inputs: dict[str, Any], sha256: str) -> None:
    """Put a checkpoint as edgewright 0.1.0 did: its parent is the key of its step of then."""
    parent = step_key(kind, inputs)
    own = {"parent": parent, "position": 4}
    row = (step_key("checkpoint", own), json.dumps(own), json.dumps({"state": sha256}), parent)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "insert into steps values (?, 0, 'checkpoint', ?, '{}', ?, '', 0, ?, 4)", row
        )


@pytest.mark.parametrize("kind", ["train", "supernet", "gradient"])
@pytest.mark.parametrize("finished", [False, True])
def test_checkpoints_are_found_and_forgotten(tmp_path: Path, kind: str, *, finished: bool) -> None:
    """Of a step that was not finished, and of one whose checkpoints outlived its end."""
    path = put_old_store(tmp_path)
    others = steps_of(path)["checkpoint"]
    inputs = {"seed": 1, "table": {"edgewright": "0.1.0"}}
    old = {**inputs, "edgewright": "0.1.0"}
    sha256 = next(tmp_path.glob("artifacts/??/*")).name
    old_checkpoint(path, kind, inputs if kind == "gradient" else old, sha256)
    if finished:
        with closing(sqlite3.connect(path)) as database, database:
            row = (step_key(kind, old), kind, str(old).replace("'", '"'))
            database.execute(
                "insert into steps values (?, 0, ?, ?, '1', '{}', '', 0, null, null)", row
            )
    with Store.open(tmp_path) as store:
        memo = Memo(store)
        assert memo.remembers(StepKind(kind), inputs) == finished
        latest = memo.latest_checkpoint(StepKind(kind), inputs)
        assert latest is not None
        assert latest.inputs["position"] == 4
        assert memo.latest_checkpoint(StepKind(kind, version=2), inputs) is None
        memo.checkpoint(StepKind(kind), inputs, 5, {"state": store.put_bytes(b"later")})
        latest = memo.latest_checkpoint(StepKind(kind), inputs)
        assert latest is not None
        assert latest.inputs["position"] == 5
        memo.drop_checkpoints(StepKind(kind), inputs)
        assert memo.latest_checkpoint(StepKind(kind), inputs) is None
    assert steps_of(path)["checkpoint"] == others


def test_generations_stay_in_order(tmp_path: Path) -> None:
    path = put_old_store(tmp_path)
    with closing(sqlite3.connect(path)) as database, database:
        copied = "key, 1, kind, inputs, '\"again\"', '{}', created_at, wall_s, parent, position"
        database.execute(f"insert into steps select {copied} from steps where kind = 'train'")  # noqa: S608
    with Store.open(tmp_path) as store, closing(sqlite3.connect(path)) as database:
        rows = database.execute(
            "select key, generation, result from steps where kind = 'train' order by 1, 2"
        ).fetchall()
        assert [row[1] for row in rows] == [0, 1] * 5
        assert all(store._usable(key).result == "again" for key, _, _ in rows)  # type: ignore[union-attr]


def test_a_migration_that_is_killed_leaves_a_store_that_opens(tmp_path: Path) -> None:
    path = put_old_store(tmp_path)
    untouched = dump(path)
    for statement in (8, 12, 19, 20, 25, AT_COMMIT):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path), str(statement)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        assert dump(path) == untouched
    with Store.open(tmp_path) as store:
        assert differences(store._engine) == []
        assert store.new_run("small", recipe={}, digest="", device="", version="").id == "small-3"


def test_several_open_an_old_store_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = put_old_store(tmp_path)
    before = steps_of(path)
    start = threading.Barrier(4)
    opened: list[int] = []

    def work() -> None:
        start.wait(timeout=30)
        with Store.open(tmp_path) as store:
            opened.append(len(store.runs()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert opened == [2] * 4
    assert steps_of(path) == before
    assert caplog.text.count("is brought up to date") == 1
