"""The store: memo, append-only, artifacts, and everything that can be wrong with a location."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from device_agents.api import BenchProtocol, Measurement, SensorReading
from device_agents.errors import StoreError
from pipeline.store import Store, step_key
from pipeline.store.result import Comparison, RunResult
from pipeline.store.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOON = 1_750_000_000.0
INPUTS = {"spec": "32x32x1:same:conv_k3_s2_o8:fc10", "epochs": 3}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", clock=lambda: NOON) as opened:
        yield opened


def new_run(store: Store, name: str = "digits") -> str:
    made = store.new_run(name, recipe={"name": name}, digest="d", device="local", version="0.1.0")
    return made.id


def refusal(location: Path | str, **options: Any) -> str:
    with pytest.raises(StoreError) as caught:
        Store.open(location, **options).close()
    assert caught.value.exit_code == 7
    assert "\n" not in str(caught.value)
    return str(caught.value)


def temporary_files(store: Store) -> list[Path]:
    return [p for p in store.artifacts.folder.rglob("*") if p.is_file() and p.suffix == ".tmp"]


# Steps


def test_a_recorded_step_is_found_by_kind_and_inputs(store: Store, tmp_path: Path) -> None:
    assert store.memo("train", INPUTS) is None
    sha = store.put_bytes(b"weights")
    step = store.record("train", INPUTS, {"accuracy": (0.5, 1)}, {"network": sha}, 2.5)
    assert step.result == {"accuracy": [0.5, 1]}  # as it will read back: JSON has no tuples
    assert step.created_at == "2025-06-15T15:06:40.000+00:00"
    reordered = dict(reversed(list(INPUTS.items())))
    assert store.memo("train", reordered) == step
    assert store.memo("export", INPUTS) is None
    assert store.memo("train", {**INPUTS, "epochs": 4}) is None
    with Store.open(tmp_path / "store") as again:
        assert again.memo("train", INPUTS) == step
        assert again.path(step.artifacts["network"]).read_bytes() == b"weights"


def test_a_record_is_never_edited(store: Store) -> None:
    first = store.record("train", INPUTS, {"accuracy": 0.5})
    second = store.record("train", INPUTS, {"accuracy": 0.9})
    assert second == first
    assert store.memo("train", INPUTS) == first


def test_infinite_results_survive(store: Store) -> None:
    store.record("score", {"ratio": float("inf")}, {"score": float("-inf")})
    step = store.memo("score", {"ratio": float("inf")})
    assert step is not None
    assert step.result == {"score": float("-inf")}


def test_a_step_needs_its_artifacts_first(store: Store) -> None:
    with pytest.raises(StoreError, match=r"network: artifact 00.*is missing"):
        store.record("train", INPUTS, {}, {"network": "0" * 64})
    assert store.memo("train", INPUTS) is None


@pytest.mark.parametrize("harm", ["delete", "truncate", "flip"])
def test_a_lost_or_damaged_artifact_counts_as_not_done(
    store: Store, caplog: pytest.LogCaptureFixture, harm: str
) -> None:
    sha = store.put_bytes(b"weights")
    store.record("train", INPUTS, {"try": 1}, {"network": sha})
    path = store.path(sha)
    if harm == "delete":
        path.unlink()
    else:
        path.write_bytes(b"weigh" if harm == "truncate" else b"weighty")
    assert store.memo("train", INPUTS) is None
    word = "missing" if harm == "delete" else "damaged"
    assert [r.getMessage() for r in caplog.records] == [
        f"step 'train': artifact {sha[:12]}… is {word}; what made it is done again"
    ]
    # Done again with other bytes (training on another machine, say): the new record counts,
    other = store.put_bytes(b"other weights")
    assert store.record("train", INPUTS, {"try": 2}, {"network": other}).result == {"try": 2}
    again = store.memo("train", INPUTS)
    assert again is not None
    assert again.artifacts == {"network": other}
    # and putting the same bytes again heals the file.
    assert store.put_bytes(b"weights") == sha
    assert store.artifacts.read_bytes(sha) == b"weights"


# Checkpoints


def test_checkpoints_lead_to_the_furthest_and_are_dropped(store: Store) -> None:
    for epoch in range(3):
        sha = store.put_bytes(f"state {epoch}".encode())
        store.checkpoint("train", INPUTS, epoch, result={"e": epoch}, artifacts={"state": sha})
    other = {**INPUTS, "epochs": 9}
    kept = store.put_bytes(b"state 0")
    store.checkpoint("train", other, 0, result={}, artifacts={"state": kept})
    latest = store.latest_checkpoint("train", INPUTS)
    assert latest is not None
    assert latest.inputs["position"] == 2
    assert store.drop_checkpoints("train", INPUTS, keep_latest=True) == 2
    assert store.latest_checkpoint("train", INPUTS) == latest
    assert store.drop_checkpoints("train", INPUTS) == 1
    assert store.latest_checkpoint("train", INPUTS) is None
    with pytest.raises(StoreError, match=rf"artifact {latest.artifacts['state'][:12]}… is not in"):
        store.path(latest.artifacts["state"])
    assert store.path(kept).read_bytes() == b"state 0"  # another step has it still
    assert store.latest_checkpoint("train", other) is not None
    assert store.memo("train", INPUTS) is None


def test_a_damaged_checkpoint_gives_way_to_the_one_before(store: Store) -> None:
    shas = [store.put_bytes(f"state {epoch}".encode()) for epoch in range(2)]
    for epoch, sha in enumerate(shas):
        store.checkpoint("train", INPUTS, epoch, result={}, artifacts={"state": sha})
    store.path(shas[1]).write_bytes(b"")
    step = store.latest_checkpoint("train", INPUTS)
    assert step is not None
    assert step.inputs["position"] == 0


# Artifacts


@given(st.binary(max_size=5000))
def test_bytes_come_back_as_they_went_in(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    with Store.open(tmp_path_factory.getbasetemp() / "round_trip") as store:
        sha = store.put_bytes(data)
        assert store.artifacts.read_bytes(sha) == data
        assert store.path(sha).name == sha
        assert store.path(sha).parent.name == sha[:2]
        assert store.put_file(store.path(sha)) == sha
        assert not temporary_files(store)


def test_damaged_and_unknown_artifacts_are_told_apart(store: Store, tmp_path: Path) -> None:
    sha = store.put_bytes(b"model")
    store.path(sha).write_bytes(b"m0del")
    with pytest.raises(StoreError, match="is damaged"):
        store.artifacts.read_bytes(sha)
    with pytest.raises(StoreError, match="is not in"):
        store.path("0" * 64)
    with pytest.raises(StoreError, match="not an artifact's name"):
        store.path("../../etc/passwd")
    with pytest.raises(StoreError, match=r"cannot read .*nothing"):
        store.put_file(tmp_path / "nothing")


def test_old_temporary_files_are_swept_and_young_ones_left(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        folder = store.artifacts.folder
    old, young = folder / ".old.tmp", folder / ".young.tmp"
    for file, age_s in ((old, 90_000), (young, 60)):
        file.write_bytes(b"half")
        os.utime(file, (NOON - age_s, NOON - age_s))
    Store.open(tmp_path, clock=lambda: NOON).close()
    assert not old.exists()
    assert young.exists()


# Runs


def test_runs_are_numbered_by_name(store: Store) -> None:
    assert [new_run(store), new_run(store), new_run(store, "digits-2")] == [
        "digits-1",
        "digits-2",
        "digits-2-1",
    ]
    assert store.run("digits-2").recipe == {"name": "digits"}
    with pytest.raises(StoreError, match=r"no run 'digits-9' .*have digits-1, digits-2"):
        store.run("digits-9")


def test_what_a_run_costs_does_not_grow_with_the_runs_there_are(store: Store) -> None:
    """Counted in instructions of SQLite, of which every row that it reads takes several."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    def instructions() -> int:
        nonlocal counted
        counted = 0
        with store._engine.connect() as connection:
            raw = connection.connection.driver_connection
            assert raw is not None
            raw.set_progress_handler(count, 1)
        run = new_run(store)
        store.add_trial(run, 0, "spec", {})
        store.add_measurement(measurement("a" * 64), run_id=run)
        assert store.latest_run("d", "local") is not None
        with store._engine.connect() as connection:
            raw = connection.connection.driver_connection
            assert raw is not None
            raw.set_progress_handler(None, 1)
        return counted

    for _ in range(10):
        new_run(store)
    few = instructions()
    for _ in range(300):
        new_run(store)
    assert few > 50
    assert instructions() < few + 10


def test_trials_stay_as_first_told(store: Store) -> None:
    run = new_run(store)
    assert store.add_trial(run, 1, "b", {"score": float("-inf")})
    assert store.add_trial(run, 0, "a", {"score": 1})
    assert not store.add_trial(run, 1, "c", {"score": 2})
    assert store.trials(run) == [{"score": 1}, {"score": float("-inf")}]
    with pytest.raises(StoreError, match="no run 'nope'"):
        store.add_trial("nope", 0, "a", {})


def measurement(model: str, verdict: Any = "valid") -> Measurement:
    return Measurement(
        device="pi4",
        device_digest="ab12",
        model_sha256=model,
        reference_sha256=None,
        agent_sha256="0" * 64,
        runtime="tflite",
        runtime_version="2.3.0",
        threads=1,
        cpus=(3,),
        protocol=BenchProtocol.quick(),
        started_at="2025-06-15T15:06:40+00:00",
        samples_ns=(1_000_000, 1_100_000),
        reference_samples_ns=(),
        process_medians_ms=(1.0, 1.1),
        median_ms=1.05,
        ci95_ms=(1.0, 1.1),
        p90_ms=1.1,
        ratio=None,
        ratio_ci95=None,
        reference_median_ms=None,
        partitions=1,
        before=SensorReading(soc_celsius=41.0),
        after=SensorReading(soc_celsius=42.5),
        verdict=verdict,
        reasons=(),
        busy_ns=10,
        timed_ns=5,
        warmup_ns=3,
        load_ns=1,
        peak_rss_bytes=1000,
    )


def test_measurements_are_kept_with_their_verdict(store: Store) -> None:
    run = new_run(store)
    store.add_measurement(measurement("a" * 64), run_id=run)
    store.add_measurement(measurement("b" * 64, "invalid"))
    (stored,) = store.measurements(model_sha256="a" * 64)
    assert (stored.verdict, stored.protocol, stored.run_id) == ("valid", "quick", run)
    assert Measurement.from_json(stored.data) == measurement("a" * 64)
    assert [m.verdict for m in store.measurements(device="pi4")] == ["valid", "invalid"]
    assert store.measurements(run_id="other") == []
    with pytest.raises(StoreError, match="CHECK constraint failed"):
        store.add_measurement(measurement("c" * 64, "splendid"))


def result(run_id: str, winner_ms: float) -> RunResult:
    comparison = Comparison(
        "met",
        winner_ms,
        2.0,
        winner_ms / 2,
        (0.4, 0.6),
        0.5,
        0.9,
        0.9,
        0.9,
        0.9,
        10,
        sentence="",
    )
    empty: dict[str, Any] = dict.fromkeys(
        ("candidates", "front", "baseline_candidates", "finalists", "artifacts", "ops"), ()
    )
    return RunResult(
        run_id=run_id,
        recipe={},
        device={},
        started_at="",
        duration_s=1.0,
        chosen=0,
        winner_spec="",
        baseline_name="",
        baseline_spec="",
        comparison=comparison,
        deployed={},
        device_busy_s=0.0,
        device_timed_s=0.0,
        versions={},
        **empty,
    )


def test_the_newest_result_of_a_run_counts(store: Store) -> None:
    with pytest.raises(StoreError, match="holds no finished result"):
        store.result()
    first, second = new_run(store), new_run(store)
    with pytest.raises(StoreError, match="run 'digits-1' has no finished result"):
        store.result(first)
    for run, winner_ms in ((first, 1.0), (second, 1.5), (first, 1.2)):
        store.add_result(result(run, winner_ms))
    assert store.result(first) == result(first, 1.2)
    assert store.result(second).comparison.winner_ms == 1.5
    assert store.result() == result(first, 1.2)


# What can be wrong with a location


def test_location_is_the_argument_then_the_variable_then_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEWRIGHT_STORE", raising=False)
    for location, expected in ((None, ".edgewright"), ("given", "given")):
        Store.open(location).close()
        assert (tmp_path / expected / "store.db").is_file()
    monkeypatch.setenv("EDGEWRIGHT_STORE", str(tmp_path / "variable"))
    Store.open().close()
    assert (tmp_path / "variable" / "store.db").is_file()


def test_no_store_is_made_where_none_is_asked(tmp_path: Path) -> None:
    assert "there is no store in" in refusal(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()


def test_a_file_that_is_no_database_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    file.write_text("these are my holiday notes, not a database\n" * 40)
    before = file.read_bytes()
    assert "not an edgewright store" in refusal(tmp_path)
    assert file.read_bytes() == before
    assert "cannot be written" in refusal(file)  # a file where the folder should be


def test_a_database_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "store.db")
    other.execute("CREATE TABLE recipes_of_cakes (flour)")
    other.close()
    before = (tmp_path / "store.db").read_bytes()
    assert "belongs to something else (it has a table 'recipes_of_cakes')" in refusal(tmp_path)
    assert (tmp_path / "store.db").read_bytes() == before


def test_a_schema_of_a_later_version_is_refused(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    raw = sqlite3.connect(tmp_path / "store.db")
    raw.execute("UPDATE edgewright_meta SET value = '99' WHERE name = 'schema'")
    raw.commit()
    raw.close()
    expected = f"has schema 99, this edgewright reads schema {SCHEMA_VERSION}; use the edgewright"
    assert expected in refusal(tmp_path)


def test_a_locked_database_is_waited_for_and_then_named(tmp_path: Path) -> None:
    with Store.open(tmp_path, busy_timeout_s=0.05) as store:
        holder = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="is locked by another process"):
            store.record("train", INPUTS, {})
        holder.execute("COMMIT")
        holder.close()
        assert store.record("train", INPUTS, {"after": 1}).result == {"after": 1}


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        for index in range(200):
            store.record("train", {"index": index}, {"filler": "x" * 500})
    file = tmp_path / "store.db"
    size = file.stat().st_size
    with file.open("r+b") as out:
        out.seek(4096)
        out.write(os.urandom(size - 4096))
    with pytest.raises(StoreError, match="is damaged"), Store.open(tmp_path) as store:
        store.memo("train", {"index": 100})


def test_a_full_database_says_so_and_keeps_what_was_stored(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.record("train", INPUTS, {"kept": True})
        store.close()
        event.listen(
            store._engine, "connect", lambda c, _: c.execute("PRAGMA max_page_count = 1").close()
        )
        with pytest.raises(StoreError, match="because the disk is full"):
            store.record("train", {"big": True}, "x" * 10**6)
    with Store.open(tmp_path) as again:
        kept = again.memo("train", INPUTS)
        assert kept is not None
        assert kept.result == {"kept": True}
        assert again.memo("train", {"big": True}) is None


ON_A_SMALL_DISK = """
import sys
from device_agents.errors import StoreError
from pipeline.store import Store
folder = sys.argv[1]
with Store.open(folder) as store:
    store.record("train", {"small": 1}, {}, {"network": store.put_bytes(b"weights")})
    for size in (20_000_000, 19_999_999):
        try:
            store.put_bytes(bytes(size))
        except StoreError as error:
            print(error)
    big = store.artifacts.folder / "big"
    with big.open("wb", buffering=0) as out:  # leaves no room for the database either
        try:
            while out.write(bytes(4096)):
                pass
        except OSError:
            pass
    try:
        store.record("train", {"big": 1}, "x" * 1_000_000)
    except StoreError as error:
        print(error)
    big.unlink()
    assert store.memo("train", {"small": 1}), "what was stored is gone"
    assert not store.memo("train", {"big": 1})
    print("left over:", [p.name for p in store.artifacts.folder.glob(".*.tmp")])
"""


def test_a_full_disk_says_so_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    script = f'mount -t tmpfs -o size=2m tmpfs "$1" && exec "{sys.executable}" -c "$2" "$1"'
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare(1) to mount a small disk")
    command = [unshare, "--map-root-user", "--mount", "sh", "-c", script, "sh", str(tmp_path)]
    done = subprocess.run(
        [*command, ON_A_SMALL_DISK],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    *full, left_over = done.stdout.strip().splitlines()
    assert len(full) == 3, done.stdout
    assert all("disk is full" in line for line in full), full
    assert left_over == "left over: []"


def test_a_read_only_folder_says_so(tmp_path: Path) -> None:
    Store.open(tmp_path / "store").close()
    script = (
        "import sys\nfrom device_agents.errors import StoreError\n"
        "from pipeline.store import Store\n"
        "try:\n    with Store.open(sys.argv[1]) as s: s.record('train', {}, {})\n"
        "except StoreError as error: print(error)\n"
    )
    mount = f'mount --bind -o ro "$1" "$1" && exec "{sys.executable}" -c "$2" "$1"'
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare(1) to mount a folder read-only")
    command = [unshare, "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    done = subprocess.run(
        [*command, str(tmp_path / "store"), script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip(f"nothing can be mounted read-only here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "store.db is read-only here; make it writable" in done.stdout


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mysql://user:secret@host/name", "no database 'mysql'"),
        ("postgresql://user:secret@127.0.0.1:1/name", "postgres"),
    ],
)
def test_a_database_that_cannot_be_reached_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    sentence = refusal(url, busy_timeout_s=1.0)
    assert expected in sentence
    assert "secret" not in sentence


# Several at once


def test_threads_that_record_the_same_steps_share_one_record_each(store: Store) -> None:
    steps: list[list[str]] = [[] for _ in range(4)]
    start = threading.Barrier(4)

    def work(number: int) -> None:
        start.wait(timeout=30)
        for index in range(15):
            sha = store.put_bytes(f"artifact {index}".encode())
            step = store.record("train", {"index": index}, {"by": number}, {"a": sha})
            steps[number].append(json.dumps(asdict(step), sort_keys=True))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(steps[0]) == 15
    assert all(seen == steps[0] for seen in steps)


def test_keys_do_not_depend_on_order_and_differ_by_kind() -> None:
    assert step_key("a", {"x": 1, "y": 2}) == step_key("a", {"y": 2, "x": 1})
    assert step_key("a", {"x": 1}) != step_key("b", {"x": 1})
    assert step_key("a", {"x": 1}) != step_key("a", {"x": 1.5})
