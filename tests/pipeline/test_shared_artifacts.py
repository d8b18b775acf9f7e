"""Hosts that share a PostgreSQL database share artifacts: by SFTP from a real server, and others.

A host is a working folder of its own: what it has is in its `.edgewright`.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from device_agents.errors import StoreError
from pipeline.store import Store
from pipeline.store.engines import open_engine
from pipeline.store.remote_place import RemotePlace
from tests import lab
from tests.old_store import RECIPE
from tests.pipeline.test_run import command, device_of_its_own, done_by

if TYPE_CHECKING:
    from collections.abc import Iterator

INPUTS = {"spec": "32x32x1", "epochs": 3}
WEIGHTS = bytes(range(256)) * 4000


@pytest.fixture
def database(server: str, request: pytest.FixtureRequest) -> str:
    """Return the URL of an empty database of the test's own."""
    name = "a" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    engine = open_engine(server, busy_timeout_s=30.0)
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture
def sftp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[lab.LoopbackSsh]:
    """Yield a server that this user trusts and may log in to."""
    (tmp_path / "sshd").mkdir()
    with lab.loopback_ssh(tmp_path / "sshd") as server:
        own = tmp_path / "home" / ".ssh"
        own.mkdir(parents=True)
        shutil.copy(server.known_hosts, own / "known_hosts")
        shutil.copy(server.identity, own / "id_ed25519")
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
        yield server


def url_of(server: lab.LoopbackSsh, folder: Path) -> str:
    return f"sftp://{getpass.getuser()}@{server.address}:{server.port}{folder}"


@contextmanager
def host(
    folder: Path, database: str, artifacts: str | None = None, *, create: bool = True
) -> Iterator[Store]:
    """Open the store as another host would."""
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with Store.open(database, artifacts=artifacts, create=create) as store:
            yield store


def refusal(folder: Path, database: str, artifacts: str | None = None) -> str:
    with pytest.raises(StoreError) as caught, host(folder, database, artifacts):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def check_shared(tmp_path: Path, database: str, place: str) -> str:
    """Let one host put what the other uses; return the artifact's hash."""
    with host(tmp_path / "first", database, place) as store:
        sha = store.put_bytes(WEIGHTS)
        step = store.record("train", INPUTS, {"accuracy": 0.9}, {"network": sha})
    with host(tmp_path / "second", database) as store:
        assert store.memo("train", INPUTS) == step
        assert store.path(sha).read_bytes() == WEIGHTS
        (tmp_path / "file").write_bytes(b"of the second")
        mine = store.put_file(tmp_path / "file")
    with host(tmp_path / "first", database, place) as store:
        assert store.path(mine).read_bytes() == b"of the second"
        store.artifacts.delete(mine)
    with host(tmp_path / "third", database) as store:
        assert store.artifacts.why_not(mine) == f"artifact {mine[:12]}… is missing"
        with pytest.raises(StoreError, match="is not in "):
            store.path(mine)
    return sha


def test_two_hosts_share_by_sftp(tmp_path: Path, database: str, sftp: lab.LoopbackSsh) -> None:
    place = tmp_path / "shared" / "artifacts"
    sha = check_shared(tmp_path, database, url_of(sftp, place))
    assert sha in files(place)
    assert sha in files(tmp_path / "second" / ".edgewright" / "artifacts")
    assert not [name for name in files(tmp_path) if name.endswith(".tmp")]


def test_two_hosts_share_a_folder(tmp_path: Path, database: str) -> None:
    sha = check_shared(tmp_path, database, str(tmp_path / "shared"))
    assert sha in files(tmp_path / "shared")
    assert not files(tmp_path / "second")


def test_two_stores_share_the_memory_of_a_process(tmp_path: Path, database: str) -> None:
    check_shared(tmp_path, database, "memory://shared")


def test_where_they_lie_is_said_once(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = str(tmp_path / "one"), str(tmp_path / "two")
    with host(tmp_path, database):
        pass  # nothing was said: the place can be said later
    monkeypatch.setenv("EDGEWRIGHT_ARTIFACTS", first + "/")
    with host(tmp_path, database):
        pass
    sentence = refusal(tmp_path, database, second)
    assert (
        f"lie in {first}, not in {second}; leave --artifacts and $EDGEWRIGHT_ARTIFACTS" in sentence
    )
    monkeypatch.setenv("EDGEWRIGHT_ARTIFACTS", second)
    assert f"lie in {first}, not in {second}" in refusal(tmp_path, database)
    monkeypatch.delenv("EDGEWRIGHT_ARTIFACTS")
    with host(tmp_path, database, f"file://{first}") as store:
        assert store.artifacts.folder == Path(first)


def test_of_two_places_said_at_once_one_is_kept(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    start = threading.Barrier(4)
    said: list[str] = []

    def work(place: str) -> None:
        start.wait(timeout=30)
        try:
            with Store.open(database, artifacts=place) as store:
                said.append(store.artifacts.shown)
        except StoreError as error:
            said.append(str(error))

    places = ["memory://one", "memory://two"] * 2
    threads = [threading.Thread(target=work, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    with Store.open(database) as store:
        kept = store.artifacts.shown
    other = "memory://two" if kept == "memory://one" else "memory://one"
    assert kept in places
    assert said.count(kept) == 2
    assert sum(f"lie in {kept}, not in {other}" in words for words in said) == 2


def test_who_only_reads_settles_nothing(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_ARTIFACTS", "memory://read")
    with host(tmp_path, database, create=False):
        pass
    monkeypatch.delenv("EDGEWRIGHT_ARTIFACTS")
    with host(tmp_path, database, "memory://written") as store:
        assert store.artifacts.shown == "memory://written"


def test_a_store_in_a_folder_keeps_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEWRIGHT_ARTIFACTS", "memory://unused")
    with Store.open(tmp_path / "store") as store:
        assert store.artifacts.folder == tmp_path / "store" / "artifacts"
    with pytest.raises(StoreError, match="leave --artifacts away"):
        Store.open(tmp_path / "store", artifacts="memory://unused")


def test_a_place_that_cannot_be_is_refused_and_not_kept(
    tmp_path: Path, database: str, sftp: lab.LoopbackSsh
) -> None:
    secret = refusal(tmp_path, database, "sftp://me:secret@host/artifacts")
    assert "holds a password" in secret
    assert "secret@" not in secret
    unknown = refusal(tmp_path, database, "gopher://host/artifacts")
    assert "artifacts cannot lie at gopher://host/artifacts: Protocol not known" in unknown
    assert "give a folder that all hosts have, sftp://" in unknown
    closed = refusal(tmp_path, database, f"sftp://127.0.0.1:{lab.free_port()}/artifacts")
    assert "cannot be used: " in closed
    assert "Unable to connect" in closed
    forbidden = refusal(tmp_path, database, url_of(sftp, Path("/proc/artifacts")))
    assert "the place of the artifacts, sftp://" in forbidden
    (tmp_path / "home" / ".ssh" / "known_hosts").write_text("")
    assert "is not in ~/.ssh/known_hosts" in refusal(tmp_path, database, url_of(sftp, tmp_path))
    other = lab.keygen(tmp_path / "other").with_suffix(".pub")
    line = lab.host_line(sftp.port, other)
    (tmp_path / "home" / ".ssh" / "known_hosts").write_text(line)
    assert "does not match" in refusal(tmp_path, database, url_of(sftp, tmp_path))
    shutil.copy(sftp.known_hosts, tmp_path / "home" / ".ssh" / "known_hosts")
    lab.keygen(tmp_path / "home" / ".ssh" / "id_ed25519")
    assert "Authentication failed" in refusal(tmp_path, database, url_of(sftp, tmp_path))
    with host(tmp_path, database) as store:
        assert store.artifacts.folder == Path(".edgewright/artifacts")


def test_a_host_that_cannot_reach_the_place_is_told_so(
    tmp_path: Path, database: str, sftp: lab.LoopbackSsh
) -> None:
    with host(tmp_path / "first", database, url_of(sftp, tmp_path / "shared")):
        pass
    sftp.cut()
    assert f"the place of the artifacts, {url_of(sftp, tmp_path / 'shared')}, cannot be used" in (
        refusal(tmp_path / "second", database)
    )
    # Who only reads records needs no artifacts, and is told at once when it does.
    with host(tmp_path / "second", database, create=False) as store:
        assert store.runs() == []
        with pytest.raises(StoreError, match="cannot be used"):
            store.path("0" * 64)


def test_a_place_that_is_not_the_hosts_is_told_and_not_made(
    tmp_path: Path, database: str, sftp: lab.LoopbackSsh
) -> None:
    shared = tmp_path / "shared"
    with host(tmp_path / "first", database, url_of(sftp, shared)):
        pass
    shared.rename(tmp_path / "away")
    words = "where this host finds none; mount the folder"
    assert words in refusal(tmp_path / "second", database)
    assert not shared.exists()


def test_a_folder_that_is_not_mounted_is_told_and_not_made(tmp_path: Path, database: str) -> None:
    shared = tmp_path / "shared"
    with host(tmp_path / "first", database, str(shared)):
        pass
    shared.rename(tmp_path / "away")
    words = "where this host finds none; mount the folder"
    assert words in refusal(tmp_path / "second", database)
    assert not shared.exists()


def test_a_server_that_is_away_for_a_while_ends_no_run(
    tmp_path: Path, database: str, sftp: lab.LoopbackSsh, caplog: pytest.LogCaptureFixture
) -> None:
    with host(tmp_path / "first", database, url_of(sftp, tmp_path / "shared")) as store:
        sftp.cut()
        put: list[str] = []
        putting = threading.Thread(target=lambda: put.append(store.put_bytes(WEIGHTS)))
        putting.start()
        time.sleep(0.7)
        sftp.start()
        putting.join(timeout=60)
    (sha,) = put
    assert "waiting, for 300 s at most: the place of the artifacts" in caplog.text
    assert sha in files(tmp_path / "shared")


def test_damage_there_is_found_and_mended(tmp_path: Path, database: str) -> None:
    remote = RemotePlace("memory://damaged")
    place = "memory://damaged"
    with host(tmp_path / "first", database, place) as store:
        sha = store.put_bytes(WEIGHTS)
        store.record("train", INPUTS, {}, {"network": sha})
        bad = tmp_path / "bad"
        bad.write_bytes(WEIGHTS[::-1])
        remote.remove(f"{sha[:2]}/{sha}")
        remote.send(bad, f"{sha[:2]}/{sha}")
    with host(tmp_path / "second", database) as store:
        assert store.memo("train", INPUTS) is None
        again = store.record("train", INPUTS, {"again": 1}, {"network": store.put_bytes(WEIGHTS)})
    with host(tmp_path / "third", database) as store:
        assert store.memo("train", INPUTS) == again
        assert store.path(sha).read_bytes() == WEIGHTS


PUT = """
import sys
from pipeline.store import Store
with Store.open(sys.argv[1]) as store:
    store.put_bytes(bytes(100_000_000))
"""


def test_a_put_that_is_killed_leaves_nothing_of_that_name(
    tmp_path: Path, database: str, sftp: lab.LoopbackSsh
) -> None:
    place = tmp_path / "shared"
    with host(tmp_path / "first", database, url_of(sftp, place)):
        pass
    whole = files(place)
    process = subprocess.Popen(
        [sys.executable, "-c", PUT, database],
        cwd=tmp_path / "first",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        while not (half := [path for path in place.glob(".*.tmp") if path.stat().st_size]):
            assert process.poll() is None
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert [name for name in files(place) if not name.endswith(".tmp")] == whole
    with host(tmp_path / "second", database) as store:
        for path in half:
            os.utime(path, (1, 1))
        store.artifacts.sweep(time.time())
    assert not list(place.glob(".*.tmp"))


@pytest.mark.slow
def test_a_run_goes_on_from_one_host_to_another(
    tmp_path: Path, database: str, sftp: lab.LoopbackSsh
) -> None:
    """The second host refuses while the first is at work, and then trains nothing again."""
    hosts = tmp_path / "first", tmp_path / "second"
    for folder in hosts:
        folder.mkdir()

    def asked(*args: str) -> list[str]:
        words = command(tmp_path, "--verbose", *args, recipe=RECIPE)
        words[words.index("--store") + 1] = database
        return words

    with device_of_its_own(tmp_path):
        place = url_of(sftp, tmp_path / "shared")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        first = subprocess.Popen(
            asked("--until", "train", "--artifacts", place),
            cwd=hosts[0], env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        assert first.stderr is not None
        try:
            assert "run small-1 on board" in first.stderr.readline()
            refused = subprocess.run(
                asked(), cwd=hosts[1], env=environment, capture_output=True, text=True, timeout=300,
                check=False,
            )  # fmt: skip
            said = first.stderr.read()
            assert first.wait(600) == 0, said
        finally:
            first.kill()
            first.wait(60)
            first.stderr.close()
        assert refused.returncode == 7
        assert "run small-1 is being worked on by another process (" in refused.stderr
        finalists = re.search(r"train (\d) finalists?: ", said)
        assert finalists is not None, said
        assert done_by(said)["train"] == int(finalists[1]) + 1  # and the baseline
        second = subprocess.run(
            asked(), cwd=hosts[1], env=environment, capture_output=True, text=True, timeout=600,
            check=False,
        )  # fmt: skip
    assert second.returncode == 0, second.stderr
    done = done_by(second.stderr)
    assert done["train"] == done["proxy"] == 0
    assert (hosts[1] / ".edgewright" / "runs" / "small-1" / "report.html").is_file()
