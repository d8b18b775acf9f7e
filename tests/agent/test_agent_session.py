"""The conversation with the agent: shipping, framing, cuts, deadlines."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from device_agents import transports
from device_agents.agent import runtimes, store, wire
from device_agents.errors import (
    AgentError,
    DeadlineExceeded,
    LinkLost,
    RuntimeMissing,
)
from device_agents.packing import pack_agent
from tests import lab

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_agents.session import Session
    from profiles.schema import DeviceProfile

BENCH: dict[str, Any] = {
    "runtime": "tflite",
    "warmup_min_ms": 1.0,
    "warmup_max_ms": 5.0,
    "max_s": 0.01,
    "min_samples": 3,
    "max_samples": 100,
    "block_ms": 1.0,
    "target_half_width": 0.1,
    "seed": 1,
    "deadline_s": 20.0,
}
ENDLESS = {**BENCH, "max_s": 1e6, "min_samples": 10**9, "max_samples": 10**9}


@pytest.fixture
def opened(
    local: Callable[..., DeviceProfile], open_session: Callable[..., Session]
) -> Callable[..., Session]:
    def make(flags: tuple[str, ...] = (), **changes: Any) -> Session:
        return open_session(local(**changes), *flags)

    return make


def agent_pid(session: Session) -> int:
    stream: Any = session._stream
    return int(stream._process.pid)


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_hello_tells_who_answers(opened: Callable[..., Session]) -> None:
    hello = opened().hello
    assert hello["agent_sha256"] == pack_agent().sha256
    assert hello["cpu_count"] == os.cpu_count()
    assert set(hello["runtimes"]) == {"onnx", "tflite"}


def test_agent_is_shipped_once_and_a_damaged_copy_is_replaced(
    opened: Callable[..., Session], local: Callable[..., DeviceProfile]
) -> None:
    opened().hello  # noqa: B018
    shipped = list(Path(local().directory, "agent").glob("*"))
    shipped.remove(Path(local().directory, "agent", ".mutex"))
    assert [path.name for path in shipped] == [pack_agent().file_name]
    # Still a program that starts, but other bytes: a comment at the end of the archive.
    before = shipped[0].stat().st_mtime_ns
    opened().hello  # noqa: B018
    assert shipped[0].stat().st_mtime_ns == before
    shipped[0].write_bytes(b"#!/bin/sh\n" + shipped[0].read_bytes())
    assert opened().hello["agent_sha256"] == pack_agent().sha256
    assert shipped[0].read_bytes() == pack_agent().path.read_bytes()


def test_push_transfers_once(opened: Callable[..., Session], models: Path) -> None:
    session = opened()
    sha256 = session.push(models / "small.tflite")
    folder = Path(session.hello["directory"])
    assert (folder / "models" / sha256).read_bytes() == (models / "small.tflite").read_bytes()
    assert session.push(models / "small.tflite") == sha256
    assert [path.name for path in Path(session.hello["incoming"]).iterdir()] == ["lock"]


def test_half_sent_file_is_deleted_and_refused(
    opened: Callable[..., Session], models: Path, tmp_path: Path
) -> None:
    session = opened()
    whole = (models / "small.tflite").read_bytes()
    incoming = Path(session.hello["incoming"], "x")
    incoming.write_bytes(whole[:100])
    sha256 = session._hash(models / "small.tflite")
    with pytest.raises(AgentError, match=r"arrived with 100 bytes .* send again") as caught:
        session.call("put", timeout_s=10, sha256=sha256, path=str(incoming))
    assert (caught.value.kind, caught.value.retryable) == ("hash_mismatch", True)
    assert not incoming.exists()
    assert session.call("has", timeout_s=10, sha256=sha256)["has"] is False
    outside = tmp_path / "outside"
    outside.write_bytes(whole)
    with pytest.raises(AgentError, match="is not in"):
        session.call("put", timeout_s=10, sha256=sha256, path=str(outside))
    assert outside.exists()


def test_what_is_half_sent_goes_with_its_agent(
    opened: Callable[..., Session], local: Callable[..., DeviceProfile], models: Path
) -> None:
    killed, alive = opened(), opened()
    # What older agents left there, with dates of a board whose clock was wrong.
    incoming = Path(local().directory, "incoming")
    for session in (killed, alive):
        Path(session.hello["incoming"], "0123.part-4567").write_bytes(b"half")
    (incoming / "0123.part-89").write_bytes(b"half")
    os.utime(incoming / "0123.part-89", (4e9, 4e9))
    os.kill(agent_pid(killed), signal.SIGKILL)
    lab.poll(lambda: not running(agent_pid(killed)))
    third = opened()
    own = {Path(session.hello["incoming"]).name for session in (alive, third)}
    assert {path.name for path in incoming.iterdir()} == {".mutex", *own}
    assert Path(alive.hello["incoming"], "0123.part-4567").exists()
    assert alive.push(models / "small.tflite")
    for session in (alive, third):
        session.close()
    assert [path.name for path in incoming.iterdir()] == [".mutex"]


def filled(session: Session, folder: Path, count: int, size: int = 1000) -> list[str]:
    """Push so many files; return their hashes."""
    paths = [folder / f"{number}.bin" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * size)
    hashes = [session.push(path) for path in paths]
    job_done(session, hashes[-1])
    return hashes


def job_done(session: Session, sha256: str) -> None:
    """End a job: what was pushed for it may make room now."""
    how = {"runtime": "null", "invokes": 1, "deadline_s": 20.0}
    with pytest.raises(AgentError):
        session.call("memory", timeout_s=20, sha256=sha256, **how)


def here(session: Session) -> set[str]:
    return {path.name for path in Path(session.hello["directory"], "models").iterdir()}


def test_models_least_recently_used_make_room(
    opened: Callable[..., Session], tmp_path: Path
) -> None:
    session = opened()
    session._keep_bytes = 6000
    hashes = filled(session, tmp_path, 6)
    assert here(session) == set(hashes)
    # The oldest is used again, so it stays.
    assert session.call("has", timeout_s=10, sha256=hashes[0])["has"]
    (tmp_path / "one more").write_bytes(b"x" * 1000)
    last = session.push(tmp_path / "one more")
    assert here(session) == {last, *hashes} - {hashes[1]}
    job_done(session, last)
    with pytest.raises(AgentError, match="push it first") as caught:
        session.call("bench", timeout_s=20, sha256=hashes[1], **BENCH)
    assert caught.value.kind == "no_model"
    # Whatever the bound: what has been pushed for the next measurement stays.
    session._keep_bytes = 0
    for name in ("model", "reference"):
        (tmp_path / name).write_text(name)
    newest = {session.push(tmp_path / name) for name in ("model", "reference")}
    assert here(session) == newest


def test_a_clock_that_went_back_does_not_evict_what_was_pushed_last(
    opened: Callable[..., Session], tmp_path: Path
) -> None:
    session = opened()
    session._keep_bytes = 6000
    hashes = filled(session, tmp_path, 6)
    # All were used while the clock was right; now the board has started without a battery.
    for path in Path(session.hello["directory"], "models").iterdir():
        os.utime(path, (4e9, 4e9))
    (tmp_path / "one more").write_bytes(b"x" * 1000)
    os.utime(tmp_path / "one more", (0, 0))
    last = session.push(tmp_path / "one more")
    assert last in here(session)
    assert len(here(session)) == 6
    assert session.call("has", timeout_s=10, sha256=last)["has"]
    for number in range(3):
        (tmp_path / f"later {number}").write_bytes(bytes([100 + number]) * 1000)
        job_done(session, session.push(tmp_path / f"later {number}"))
    assert last in here(session)
    assert len(here(session) & set(hashes)) == 2


def test_models_take_a_share_of_the_disk_at_most(
    opened: Callable[..., Session], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = opened()
    filled(session, tmp_path, 6)
    told = session.call("usage", timeout_s=10, keep_bytes=1 << 60)
    assert (told["models"], told["bytes"]) == (6, 6000)
    free = shutil.disk_usage(tmp_path).free
    assert told["bound_bytes"] == pytest.approx(free / 4, rel=0.2)
    kept = store.ModelStore(str(tmp_path / "small disk"))
    usage = type(shutil.disk_usage(tmp_path))(10_000, 0, 10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert kept.bound_bytes(1 << 30) == 2500
    assert kept.bound_bytes(100) == 100
    kept.close()


@pytest.mark.parametrize(
    ("op", "args", "words"),
    [
        ("format_disk", {}, "no op 'format_disk' known; have activate, bench, .*sensors"),
        ("has", {}, "argument sha256 is missing"),
        ("has", {"sha256": "../../etc/passwd"}, "is not a SHA-256"),
        ("has", {"sha256": 5}, "sha256 = 5 is not a text"),
        ("prepare", {"runtime": "caffe"}, f"'caffe' known; have {', '.join(runtimes.names())}"),
        ("rollback", {"name": "../x"}, "must be letters"),
    ],
)
def test_bad_calls_are_refused_in_words(
    opened: Callable[..., Session], op: str, args: dict[str, Any], words: str
) -> None:
    session = opened()
    with pytest.raises(AgentError, match=words) as caught:
        session.call(op, timeout_s=10, **args)
    assert caught.value.kind == "bad_request"
    assert session.call("sensors", timeout_s=10)["boot_id"]


@pytest.mark.parametrize(
    "before",
    [
        "echo Welcome; echo WARNING: linker: unsupported flags",
        "printf 'pi@raspberrypi:~$ '",
        'printf "\\000\\377\\n{\\"id\\": 1}\\n"',
    ],
)
def test_other_text_on_stdout_is_skipped(
    opened: Callable[..., Session], tmp_path: Path, before: str
) -> None:
    python = lab.wrapped_python(tmp_path / "python", before)
    assert opened(python=str(python)).hello["protocol"] == 1


def test_endless_other_text_is_given_up(opened: Callable[..., Session], tmp_path: Path) -> None:
    python = lab.wrapped_python(tmp_path / "python", "yes motd | head -n 5000")
    with pytest.raises(LinkLost, match=r"lines that are not the agent's.*motd"):
        opened(python=str(python)).hello  # noqa: B018


@pytest.mark.parametrize("length", [0, 5, 100, 400])
def test_answer_cut_anywhere_is_a_lost_link(
    opened: Callable[..., Session], tmp_path: Path, length: int
) -> None:
    opened().hello  # noqa: B018  # now the agent is there: its own answer is what is cut
    python = lab.cut_python(tmp_path / "python", length)
    with pytest.raises(LinkLost):
        opened(python=str(python)).hello  # noqa: B018


def test_program_that_is_no_python_is_one_sentence(opened: Callable[..., Session]) -> None:
    with pytest.raises(LinkLost, match="correct `python` in its profile"):
        opened(python="/no/such/python").hello  # noqa: B018
    with pytest.raises(LinkLost, match=r"ended with code .*Python 3\.9 or newer"):
        opened(python="/bin/false").hello  # noqa: B018


def test_python_without_the_runtime_names_the_command(
    opened: Callable[..., Session], tmp_path: Path
) -> None:
    python = tmp_path / "bare"
    lab.wrapped_python(python, 'set -- -S -E "$@"')
    session = opened(python=str(python))
    assert session.hello["runtimes"] == {}
    with pytest.raises(RuntimeMissing, match=r"'here': .*python.* -m pip install ai-edge-litert"):
        session.call("prepare", timeout_s=20, runtime="tflite")


def test_missed_deadline_then_a_fresh_start(opened: Callable[..., Session], models: Path) -> None:
    session = opened()
    sha256 = session.push(models / "small.tflite")
    pid = agent_pid(session)
    with pytest.raises(DeadlineExceeded, match=r"within 0\.3 s"):
        session.call("bench", timeout_s=0.3, sha256=sha256, **ENDLESS)
    assert session.push(models / "small.tflite") == sha256
    assert agent_pid(session) != pid


@pytest.mark.parametrize("flags", [(), ("--no-fork",)])
def test_hanging_child_is_killed_at_its_deadline(
    opened: Callable[..., Session], models: Path, flags: tuple[str, ...]
) -> None:
    session = opened(flags)
    sha256 = session.push(models / "small.tflite")
    args = {**ENDLESS, "deadline_s": 2.0}
    with pytest.raises(AgentError, match="killed at its deadline while timing") as caught:
        session.call("bench", timeout_s=20, sha256=sha256, **args)
    assert caught.value.kind == "timeout"
    assert lab.children(agent_pid(session)) == []
    assert session.call("bench", timeout_s=20, sha256=sha256, **BENCH)["blocks"]


def test_crash_costs_only_the_child(opened: Callable[..., Session], models: Path) -> None:
    session = opened()
    sha256 = session.push(models / "small.tflite")
    session.call("prepare", timeout_s=30, runtime="tflite")
    pid = agent_pid(session)

    def crash() -> None:
        os.kill(lab.poll(lambda: lab.children(pid))[0], signal.SIGSEGV)

    thread = threading.Thread(target=crash)
    thread.start()
    with pytest.raises(AgentError, match="died with SIGSEGV while") as caught:
        session.call("bench", timeout_s=20, sha256=sha256, **ENDLESS)
    thread.join()
    assert caught.value.kind == "crashed"
    assert session.call("bench", timeout_s=20, sha256=sha256, **BENCH)["blocks"]
    assert agent_pid(session) == pid


def test_agent_and_child_end_when_the_host_goes(
    opened: Callable[..., Session], models: Path
) -> None:
    session = opened()
    sha256 = session.push(models / "small.tflite")
    pid = agent_pid(session)
    stream: Any = session._stream
    seen: list[int] = []

    def leave() -> None:
        seen.extend(lab.poll(lambda: lab.children(pid)))
        stream._stdin.close()

    thread = threading.Thread(target=leave)
    thread.start()
    with pytest.raises(LinkLost):
        session.call("bench", timeout_s=20, sha256=sha256, **ENDLESS)
    thread.join()
    assert seen
    lab.poll(lambda: not any(map(running, [pid, *seen])))


def test_child_dies_with_a_killed_agent(opened: Callable[..., Session], models: Path) -> None:
    session = opened()
    sha256 = session.push(models / "small.tflite")
    pid = agent_pid(session)
    seen: list[int] = []

    def kill() -> None:
        seen.extend(lab.poll(lambda: lab.children(pid)))
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(LinkLost):
        session.call("bench", timeout_s=20, sha256=sha256, **ENDLESS)
    thread.join()
    lab.poll(lambda: not any(map(running, seen)))


# Answers each call in turn with the lines that `answers` says, from what it was asked.
ANSWERING = """
import json, random, sys
MARK = b"\\x1eew1 "
def say(number, text):
    line = json.dumps({{"id": number, "part": text, "end": True}}).encode()
    sys.stdout.buffer.write(MARK + line + b"\\n")
for call in sys.stdin.buffer:
    number = json.loads(call[len(MARK):])["id"]
    {body}
    sys.stdout.flush()
"""


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        (
            "[sys.stdout.write('x' * 1000000) for _ in range(1000)]",
            AgentError,
            r"sent a line of more than \d+ bytes",
        ),
        (
            "sys.stdout.buffer.write(random.Random(5).randbytes(3000000))",
            (AgentError, LinkLost),
            "sent a line of more|lines that are not the agent's",
        ),
        (
            "sys.stdout.buffer.write(MARK + random.Random(5).randbytes(300) + b'\\n')",
            LinkLost,
            "not a line of this protocol",
        ),
        ("say(number, '[' * 100000)", AgentError, "values nested more than 64 deep"),
        ("sys.stdout.buffer.write(MARK + b'[' * 100000 + b'\\n')", LinkLost, "not a line of this"),
        ("say(number, '[]')", LinkLost, "is not a JSON object"),
        ("say(number, '{}')", LinkLost, "the answer is not the agent's"),
        ("say(number, json.dumps(dict(busy_ns='1', result={})))", LinkLost, "not the agent's"),
        ("say(number, json.dumps(dict(busy_ns=1, error=5)))", LinkLost, "not the agent's"),
        (
            "say(number, json.dumps(dict(busy_ns=1, result=dict(protocol=99))))",
            AgentError,
            "with protocol 99 instead of",
        ),
        (
            "say(number, json.dumps(dict(busy_ns=1, error=dict(kind=[], message='no'))))",
            AgentError,
            "hello: no",
        ),
        ("say(number + 7, json.dumps(dict(busy_ns=1, result={}))); break", LinkLost, "ended with"),
    ],
)
def test_hostile_output_is_one_sentence(
    opened: Callable[..., Session],
    tmp_path: Path,
    body: str,
    error: type[Exception] | tuple[type[Exception], ...],
    words: str,
) -> None:
    program = tmp_path / "hostile.py"
    program.write_text(ANSWERING.format(body=body))
    python = lab.wrapped_python(tmp_path / "python", f"set -- {program}")
    with pytest.raises(error, match=words) as caught:
        opened(python=str(python)).hello  # noqa: B018
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"x" * 2_000_000, "line longer than"),
        (wire.MARK + b"[" * 100_000 + b"\n", "not a line of this protocol"),
        (wire.MARK + b'{"id": 1, "part": "' + b"[" * 100_000 + b'", "end": true}\n', "nested more"),
        (wire.MARK + b"\x00\xff\n", "not a line of this protocol"),
    ],
)
def test_hostile_input_ends_the_agent_in_one_sentence(
    local: Callable[..., DeviceProfile], tmp_path: Path, data: bytes, words: str
) -> None:
    transport = transports.connect(local())
    argv = [sys.executable, str(pack_agent().path), "--directory", str(tmp_path / "d")]
    done = transport.run(argv, stdin=data, timeout_s=30)
    assert done.rc == 1
    said = done.stderr.decode().strip().splitlines()
    assert len(said) == 1, said
    assert words in said[0]


def test_odd_calls_are_answered_and_noise_is_skipped(
    local: Callable[..., DeviceProfile], tmp_path: Path
) -> None:
    calls = b"".join(
        [
            b"noise \xff\x00\n",
            wire.STOP,
            wire.encode(1, {"op": ["has"], "args": {}}),
            wire.encode(2, {"op": "has", "args": [1]}),
            wire.encode(3, {"args": {}}),
            wire.encode(4, {"op": "has", "args": {"sha256": {"a": 1}}}),
            wire.encode(5, {"op": "quit", "args": {}}),
        ]
    )
    transport = transports.connect(local())
    argv = [sys.executable, str(pack_agent().path), "--directory", str(tmp_path / "d")]
    done = transport.run(argv, stdin=calls, timeout_s=30)
    decoder = wire.Decoder()
    found = [item for line in done.stdout.splitlines(keepends=True) if (item := decoder.feed(line))]
    assert [item["id"] for item in found] == [1, 2, 3, 4, 5]
    kinds = [item["message"].get("error", {}).get("kind") for item in found]
    assert kinds == ["bad_request"] * 4 + [None]
    assert (done.rc, done.stderr) == (0, b"")


def test_long_messages_both_ways(opened: Callable[..., Session]) -> None:
    session = opened()
    with pytest.raises(AgentError, match=f"has: {chr(39)}{chr(34) * 500}"):
        session.call("has", timeout_s=20, sha256='"' * 3_000_000)


def test_calls_from_threads_do_not_mix(opened: Callable[..., Session]) -> None:
    session = opened()
    wrong: list[str] = []

    def ask(number: int) -> None:
        for _ in range(20):
            try:
                session.call(f"op{number}", timeout_s=20)
            except AgentError as error:
                if f"no op 'op{number}' known" not in str(error):
                    wrong.append(str(error))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_agent_whose_folder_is_no_folder_says_so_in_one_sentence(
    opened: Callable[..., Session], local: Callable[..., DeviceProfile]
) -> None:
    Path(local().directory).mkdir()
    Path(local().directory, "jobs").write_text("")
    with pytest.raises(AgentError, match=r"jobs is no folder, where .* must be; remove it"):
        opened().hello  # noqa: B018


def test_folder_that_cannot_be_written_is_one_sentence(opened: Callable[..., Session]) -> None:
    with pytest.raises(AgentError, match=r"cannot make /proc/edgewright: "):
        opened(directory="/proc/edgewright").hello  # noqa: B018
