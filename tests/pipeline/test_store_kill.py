"""A store whose writers are killed again and again loses nothing that was recorded.

Two real processes write the same records and artifacts into one store and say what they are
doing, one line per move. Each round kills both after a seeded number of those lines: no clock is
involved, and since a writer does not wait for its reader, the kill lands anywhere in its work.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

from pipeline.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ROUNDS = 8
WRITERS = 2
LINES = 40

WRITER = """
import random, sys
from pipeline.store import Store

def say(text):
    sys.stdout.write(text + "\\n")
    sys.stdout.flush()

rng = random.Random(int(sys.argv[2]))
with Store.open(sys.argv[1]) as store:
    say("open")
    for index in range(int(sys.argv[3]), 100_000):
        data = random.Random(index).randbytes(1 + index % 7 * 30_000)
        sha = store.put_bytes(data)
        say(f"put {index}")
        if rng.random() < 0.3:
            state = store.put_bytes(b"state of " + sys.argv[2].encode() + data)
            store.checkpoint("work", {"index": 0}, index, result={}, artifacts={"state": state})
            say(f"checkpoint {index}")
        store.record("work", {"index": index}, {"size": len(data)}, {"data": sha})
        say(f"recorded {index}")
        if rng.random() < 0.1:
            store.drop_checkpoints("work", {"index": 0}, keep_latest=True)
            say(f"dropped {index}")
"""


def test_killed_writers_leave_a_whole_store(tmp_path: Path) -> None:
    rng = random.Random(7)
    recorded: set[int] = set()
    for _ in range(ROUNDS):
        first = max(recorded, default=-1)  # goes on where it was, like a run that is repeated
        writers = [_start(tmp_path, seed, max(first, 0)) for seed in range(WRITERS)]
        try:
            for writer in writers:
                recorded |= _read(writer, rng.randrange(1, LINES))
        finally:
            for writer in writers:
                writer.kill()
        for writer in writers:
            recorded |= _rest(writer)
        _check(tmp_path, recorded)
    assert len(recorded) > ROUNDS


def _start(folder: Path, seed: int, first: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WRITER, str(folder), str(seed), str(first)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def _read(writer: subprocess.Popen[str], lines: int) -> set[int]:
    assert writer.stdout is not None
    seen = [writer.stdout.readline() for _ in range(lines)]
    assert all(seen), "the writer ended by itself"
    return _indices(seen)


def _rest(writer: subprocess.Popen[str]) -> set[int]:
    """Return what was recorded between the last line read and the kill."""
    said, _ = writer.communicate(timeout=60)
    return _indices(line for line in said.splitlines(keepends=True) if line.endswith("\n"))


def _indices(lines: Iterable[str]) -> set[int]:
    return {int(line.split()[1]) for line in lines if line.startswith("recorded ")}


def _check(folder: Path, recorded: set[int]) -> None:
    raw = sqlite3.connect(folder / "store.db")
    try:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
        rows = raw.execute("SELECT kind, artifacts FROM steps").fetchall()
    finally:
        raw.close()
    with Store.open(folder) as store:
        for file in store.artifacts.folder.glob("??/*"):
            assert store.artifacts.why_not(file.name) is None, file  # never half a file
        for kind, artifacts in rows:
            for sha in json.loads(artifacts).values():
                assert store.artifacts.why_not(sha) is None, (kind, sha)
        for index in recorded:
            step = store.memo("work", {"index": index})
            assert step is not None, index
            assert len(store.artifacts.read_bytes(step.artifacts["data"])) == step.result["size"]
