"""A measurement outlives its link: real processes, over an SSH server that is cut and restarted."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from device_agents.agent import children
from device_agents.agent.answers import Answers
from device_agents.api import BenchProtocol, Measurement
from device_agents.errors import AgentError, LinkLost, Unreachable
from device_agents.rejoin import call_rejoining, push_rejoining, repeat
from device_agents.runner import Device
from device_agents.session import Session
from tests import lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BENCH: dict[str, Any] = {
    "runtime": "null",
    "warmup_min_ms": 1.0,
    "warmup_max_ms": 5.0,
    "max_s": 0.01,
    "min_samples": 3,
    "max_samples": 100,
    "block_ms": 1.0,
    "target_half_width": 0.1,
    "seed": 1,
    "deadline_s": 60.0,
}


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[lab.LoopbackSsh]:
    folder = tmp_path / "sshd"
    folder.mkdir()
    with lab.loopback_ssh(folder) as running:
        yield running


@pytest.fixture
def opened(
    own_server: lab.LoopbackSsh, open_session: Callable[..., Session], tmp_path: Path
) -> Callable[..., Session]:
    return lambda *flags: open_session(own_server.profile(tmp_path / "device"), *flags)


def null_model(path: Path, **values: Any) -> Path:
    path.write_text(json.dumps({"edgewright_null": 1, **values}))
    return path


def running(directory: Path) -> tuple[str, int]:
    """Return id and process group of the job that runs; ("", 0) without one."""
    try:
        job_id, target = (directory / "jobs" / "running").read_text().split()
    except (OSError, ValueError):
        return "", 0
    alive = target != "0" and Path(f"/proc/{abs(int(target))}").is_dir()
    return (job_id, -int(target)) if alive else ("", 0)


def answers(directory: Path) -> set[str]:
    return {path.name.removesuffix(".json") for path in (directory / "jobs").glob("*.json")}


def start_ns(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]


@pytest.mark.parametrize("flags", [(), ("--no-fork",)])
@pytest.mark.parametrize("back", ["while it runs", "after its end"])
def test_cut_measurement_is_joined_again(
    opened: Callable[..., Session],
    own_server: lab.LoopbackSsh,
    tmp_path: Path,
    flags: tuple[str, ...],
    back: str,
) -> None:
    session, directory = opened(*flags), tmp_path / "device"
    # 3 invokes of warm-up and 3 timed ones: about 1.2 s.
    sha256 = session.push(null_model(tmp_path / "m.json", latency_ms=200.0))
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(
            call_rejoining, session, "bench", timeout_s=60, rejoin_s=30, sha256=sha256, **BENCH
        )
        job_id, pid = lab.poll(lambda: (found := running(directory))[1] and found)
        begun = start_ns(pid)
        child = lab.poll(lambda: lab.children(pid))[0]
        own_server.cut()
        assert start_ns(pid) == begun, "the job ended with its link"
        if back == "after its end":
            lab.poll(lambda: running(directory) == ("", 0))
            assert answers(directory) == {job_id}
        own_server.start()
        found = result.result(timeout=30)
    assert session.connections >= 2
    assert sum(len(samples) for _, samples in found["blocks"]) == 3
    assert min(ns for _, samples in found["blocks"] for ns in samples) >= 200e6
    # The agent that answers is another process than the one that started the job, and no other
    # job was started: `running` still names the first.
    assert (directory / "jobs" / "running").read_text().split() == [job_id, str(-pid)]
    assert not Path(f"/proc/{child}").is_dir()
    # Delivered answers go with the next call, or the end of the session.
    assert answers(directory) == {job_id}
    session.close()
    assert answers(directory) == set()


def test_whole_measurement_survives_a_cut(own_server: lab.LoopbackSsh, tmp_path: Path) -> None:
    profile = own_server.profile(tmp_path / "device", runtime="null")
    model = null_model(tmp_path / "m.json", latency_ms=60.0)
    with Device.open(profile) as device, ThreadPoolExecutor(1) as pool:
        result = pool.submit(device.measure, model, BenchProtocol.quick())
        lab.poll(lambda: running(tmp_path / "device")[1])
        own_server.cut()
        own_server.start()
        found = result.result(timeout=60)
    assert isinstance(found, Measurement), found
    assert len(found.process_medians_ms) >= 3
    assert found.median_ms == pytest.approx(60.0, rel=0.2)


def test_lost_job_is_started_anew(
    opened: Callable[..., Session], own_server: lab.LoopbackSsh, tmp_path: Path
) -> None:
    session, directory = opened(), tmp_path / "device"
    sha256 = session.push(null_model(tmp_path / "m.json", latency_ms=100.0))
    with ThreadPoolExecutor(1) as pool:
        # Long enough to be at work still when it is killed, on a busy computer too.
        long = {**BENCH, "min_samples": 20}
        result = pool.submit(
            call_rejoining, session, "bench", timeout_s=60, rejoin_s=30, sha256=sha256, **long
        )
        job_id, pid = lab.poll(lambda: (found := running(directory))[1] and found)
        own_server.cut()
        # As a reboot: the job, its child and what they held are gone, no answer is there.
        os.killpg(pid, signal.SIGKILL)
        own_server.start()
        assert result.result(timeout=30)["blocks"]
    assert (directory / "jobs" / "running").read_text().split()[0] == job_id
    assert (directory / "jobs" / "running").read_text().split()[1] != str(-pid)


def test_another_job_ends_an_orphan_and_waits_for_one_that_is_attached(
    opened: Callable[..., Session], own_server: lab.LoopbackSsh, tmp_path: Path
) -> None:
    first, second, directory = opened(), opened(), tmp_path / "device"
    endless = {**BENCH, "min_samples": 10**9, "max_samples": 10**9, "max_s": 1e6}
    slow = first.push(null_model(tmp_path / "slow.json", latency_ms=100.0))
    quick = first.push(null_model(tmp_path / "quick.json", latency_ms=1.0))
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(
            first.call, "bench", timeout_s=60, sha256=slow, id="a" * 32, rejoin_s=60.0, **endless
        )
        pid = lab.poll(lambda: running(directory)[1])
        busy = {**BENCH, "deadline_s": 0.5}
        with pytest.raises(AgentError, match=r"another measurement kept the device") as caught:
            call_rejoining(second, "bench", timeout_s=20, rejoin_s=5, sha256=quick, **busy)
        assert (caught.value.kind, caught.value.retryable) == ("busy", True)
        assert running(directory)[1] == pid
        own_server.cut()
        with pytest.raises(LinkLost):
            lost.result(timeout=20)
        assert running(directory)[1] == pid
        own_server.start()
        found = call_rejoining(second, "bench", timeout_s=20, rejoin_s=20, sha256=quick, **BENCH)
    assert found["blocks"]
    lab.poll(lambda: not Path(f"/proc/{pid}").is_dir())
    # Its host comes back all the same: the job is gone, so it would start anew.
    assert "a" * 32 not in answers(directory)


@pytest.mark.parametrize("rejoin_s", [0.0, 0.6])
def test_job_that_nobody_comes_back_for_ends(
    opened: Callable[..., Session],
    own_server: lab.LoopbackSsh,
    tmp_path: Path,
    rejoin_s: float,
) -> None:
    session, directory = opened(), tmp_path / "device"
    sha256 = session.push(null_model(tmp_path / "m.json", hang_at=2))
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(
            session.call,
            "bench",
            timeout_s=60,
            sha256=sha256,
            id="b" * 32,
            rejoin_s=rejoin_s,
            **BENCH,
        )
        target = lab.poll(lambda: running(directory)[1])
        own_server.cut()
        with pytest.raises(LinkLost):
            lost.result(timeout=20)
    lab.poll(lambda: running(directory) == ("", 0))
    assert abs(target) > 1
    assert answers(directory) == set()


def test_giving_up_ends_a_detached_job(opened: Callable[..., Session], tmp_path: Path) -> None:
    session, directory = opened(), tmp_path / "device"
    sha256 = session.push(null_model(tmp_path / "m.json", hang_at=2))
    with ThreadPoolExecutor(1) as pool:
        lost = pool.submit(
            call_rejoining, session, "bench", timeout_s=60, rejoin_s=600, sha256=sha256, **BENCH
        )
        lab.poll(lambda: running(directory)[1])
        begin = time.monotonic()
        session.abort()
        with pytest.raises(LinkLost, match="aborted"):
            lost.result(timeout=10)
        assert time.monotonic() - begin < 3.0
    lab.poll(lambda: running(directory) == ("", 0))


@pytest.mark.parametrize(
    ("script", "kind"), [({"crash_at": 2}, "crashed"), ({"hang_at": 2}, "timeout")]
)
def test_what_befalls_a_detached_child_is_told(
    opened: Callable[..., Session], tmp_path: Path, script: dict[str, Any], kind: str
) -> None:
    session = opened()
    sha256 = session.push(null_model(tmp_path / "m.json", **script))
    args = {**BENCH, "deadline_s": 1.0}
    with pytest.raises(AgentError, match="while warming up") as caught:
        call_rejoining(session, "bench", timeout_s=20, rejoin_s=5, sha256=sha256, **args)
    assert caught.value.kind == kind


def test_answers_that_nobody_took_are_bounded(
    opened: Callable[..., Session], tmp_path: Path
) -> None:
    session, jobs = opened(), tmp_path / "device" / "jobs"
    sha256 = session.push(null_model(tmp_path / "m.json"))
    for number in range(40):
        old = jobs / f"{number:032x}.json"
        old.write_text('{"result": {}}')
        os.utime(old, (1e9 + number, 1e9 + number))
    call_rejoining(session, "bench", timeout_s=20, rejoin_s=5, sha256=sha256, **BENCH)
    left = answers(tmp_path / "device")
    assert len(left) == 32
    assert f"{39:032x}" in left
    assert f"{0:032x}" not in left


def test_newest_answer_is_kept_when_the_clock_has_jumped_back(tmp_path: Path) -> None:
    kept = Answers(tmp_path)
    for number in range(40):
        path = kept.path(f"{number:032x}")
        path.write_text('{"result": {}}')
        os.utime(path, (4e9 + number, 4e9 + number))
    kept.write("a" * 32, {"result": {"now": 1}})
    assert kept.read("a" * 32) == {"result": {"now": 1}}
    assert len(list(tmp_path.iterdir())) == 32


def test_result_that_is_too_large_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_RESULT_LIMIT_BYTES", 10)
    said = children._Answers()
    said.feed(b'{"result": "much too long"')
    assert said.answer == {"error": ["internal", "the result is larger than 10 bytes", ""]}


def test_damaged_answer_is_none_and_a_bad_id_no_path(
    opened: Callable[..., Session], tmp_path: Path
) -> None:
    session, jobs = opened(), tmp_path / "device" / "jobs"
    sha256 = session.push(null_model(tmp_path / "m.json"))
    (jobs / ("c" * 32 + ".json")).write_text('{"result": {"blo')
    found = session.call("bench", timeout_s=20, sha256=sha256, id="c" * 32, rejoin_s=5.0, **BENCH)
    assert found["blocks"]
    with pytest.raises(AgentError, match="is not 8 to 64 hex digits"):
        session.call("bench", timeout_s=20, sha256=sha256, id="../../x", rejoin_s=5.0, **BENCH)


def test_push_is_made_again_and_the_half_sent_file_not_used(
    opened: Callable[..., Session],
    own_server: lab.LoopbackSsh,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session, path = opened(), tmp_path / "large"
    path.write_bytes(os.urandom(1_000_000))
    _ = session.hello
    transport: Any = session._transport
    put, cuts = transport.put, []

    def cut_first(local_path: str, remote_path: str, **more: Any) -> None:
        half = tmp_path / "half"
        half.write_bytes(path.read_bytes()[:1000])
        put(str(half), remote_path, **more)
        own_server.cut()
        cuts.append(remote_path)
        pool.submit(start_late)
        put(local_path, remote_path, **more)

    def start_late() -> None:
        time.sleep(0.3)  # so that the first attempts find nobody
        own_server.start()

    monkeypatch.setattr(transport, "put", cut_first)
    # The server ends with the thread that started it: this one lasts.
    with ThreadPoolExecutor(1) as pool:
        sha256 = push_rejoining(session, path, rejoin_s=20)
    assert len(cuts) == 1
    models = tmp_path / "device" / "models"
    assert [item.name for item in models.iterdir()] == [sha256]
    assert (models / sha256).read_bytes() == path.read_bytes()


class _Clock:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.pauses: list[float] = []

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now_s += seconds


def test_lost_device_is_tried_again_for_so_long_and_never_reached_not_at_all() -> None:
    clock = _Clock()
    profile_error = Unreachable("switched off")

    def connect() -> Any:
        raise profile_error

    session = Session("x", connect, clock=lambda: clock.now_s, pause=clock.pause)
    with pytest.raises(Unreachable):
        call_rejoining(session, "hello", timeout_s=1, rejoin_s=60)
    assert clock.pauses == []
    session._connections = 1
    with pytest.raises(Unreachable):
        repeat(session, connect, rejoin_s=60)
    assert clock.now_s <= 60.0
    assert clock.now_s > 57.0
    assert max(clock.pauses) == 2.0

    def flapping() -> None:
        session._connections += 1
        raise LinkLost("again")

    clock.pauses.clear()
    with suppress(LinkLost):
        repeat(session, flapping, rejoin_s=60)
    assert len(clock.pauses) == 10
