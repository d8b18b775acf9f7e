"""The store on a real PostgreSQL server; skipped where none is installed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from device_agents.errors import StoreError
from pipeline.store import Store
from pipeline.store.leases import open_leases

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
