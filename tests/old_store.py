"""A store as edgewright 0.1.0 left it, of the first schema: tests/recorded/store_schema_1."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from pipeline.store import canonical_json, step_key

RECORDED = Path(__file__).parent / "recorded" / "store_schema_1"
RECIPE = RECORDED / "small.toml"
FINISHED = ("--set", "search.finalists=1")
"""What the run `small-1` was started with."""
INTERRUPTED = ("--set", "seed=2")
"""What the run `small-2` was started with."""

KILLED = """
import os, signal, sys
from sqlalchemy import Engine, event
from pipeline.store import Store

left = int(sys.argv[2])

@event.listens_for(Engine, "before_cursor_execute")
def count(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

@event.listens_for(Engine, "commit")
def commit(connection):
    if left <= 0 and connection.in_transaction():
        os.kill(os.getpid(), signal.SIGKILL)

Store.open(sys.argv[1])
"""
"""Opens the store of its first argument, and kills itself at the statement of its second."""
AT_COMMIT = 0


def put_old_store(folder: Path, *, device_digest: str = "") -> Path:
    """Put the store into a folder and return its database.

    With `device_digest`, as if it had measured the device of that digest: the recorded one is the
    computer's on which it was made, and measurements of another device are not taken up.
    """
    for file in RECORDED.glob("?" * 64):
        place = folder / "artifacts" / file.name[:2] / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    path = folder / "store.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript((RECORDED / "store.sql").read_text())
        if device_digest:
            _move(database, device_digest)
    return path


def _move(database: sqlite3.Connection, device_digest: str) -> None:
    rows = database.execute("select key, kind, inputs from steps where parent is null").fetchall()
    for key, kind, text in rows:
        inputs = json.loads(text)
        if "device" in inputs:
            inputs["device"] = device_digest
            values = (step_key(kind, inputs), canonical_json(inputs), key)
            database.execute("update steps set key = ?, inputs = ? where key = ?", values)
