"""What every transport promises, for every file in `device_agents/transports/`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from device_agents import transports
from device_agents.errors import (
    AgentError,
    ConfigError,
    DeadlineExceeded,
    DeviceError,
    LinkLost,
    TransferFailed,
)
from device_agents.transports.adb import AdbTransport
from profiles.schema import DeviceProfile
from tests import lab, lab_adb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from device_agents.api import Transport

ODD_NAMES = ["a b", "it's", "$(touch x)", '"quoted"', "; touch x", "-n", "new\nline", "ünïcode"]
ECHO_LINES = """
import sys
for line in sys.stdin.buffer:
    sys.stdout.buffer.write(line)
    sys.stdout.flush()
"""


@pytest.fixture(autouse=True)
def _deadline() -> Iterator[None]:
    with lab.deadline(60):
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.LoopbackSsh]:
    with lab.loopback_ssh(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(scope="module")
def adb_phone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceProfile]:
    with lab_adb.phone(tmp_path_factory.mktemp("adb")) as (adb, device):
        yield adb.profile(device)


@pytest.fixture(params=transports.names())
def transport(request: pytest.FixtureRequest, server: lab.LoopbackSsh) -> Iterator[Transport]:
    profiles = {
        "local": DeviceProfile("here", transport="local"),
        "ssh": server.profile("~/unused"),
        "fake": DeviceProfile("simulated", transport="fake"),
    }
    if request.param == "adb":  # not always: it skips where there is no adb
        profiles["adb"] = request.getfixturevalue("adb_phone")
    if request.param not in profiles:
        pytest.fail(f"no stand-in for transport {request.param!r}; add one to this fixture")
    made = transports.connect(profiles[request.param])
    yield made
    made.close()
    made.close()


def test_run_returns_code_and_both_streams(transport: Transport) -> None:
    code = "import sys; print(sys.stdin.read()); print('e', file=sys.stderr); sys.exit(7)"
    done = transport.run([sys.executable, "-c", code], stdin=b"in", timeout_s=20)
    assert (done.rc, done.stdout, done.stderr) == (7, b"in\n", b"e\n")


@pytest.mark.parametrize("argument", ODD_NAMES)
def test_arguments_arrive_unchanged(transport: Transport, argument: str, tmp_path: Path) -> None:
    code = "import sys; sys.stdout.buffer.write(sys.argv[1].encode())"
    done = transport.run([sys.executable, "-c", code, argument], timeout_s=20)
    assert done.stdout.decode() == argument
    assert not list(tmp_path.iterdir())


def test_large_output_on_both_streams_does_not_block(transport: Transport) -> None:
    code = "import sys; sys.stderr.write('e' * 3000000); sys.stdout.write('o' * 3000000)"
    done = transport.run([sys.executable, "-c", code], timeout_s=30)
    assert (done.rc, len(done.stdout), len(done.stderr)) == (0, 3_000_000, 3_000_000)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_process_that_floods_is_ended(transport: Transport, stream: str) -> None:
    code = (
        "import sys; print('begun', flush=True)\n"
        f"while True: sys.{stream}.buffer.write(b'f' * 1000000)"
    )
    with pytest.raises(DeviceError, match="wrote more than 16 MiB and was ended; see what"):
        transport.run([sys.executable, "-c", code], timeout_s=55)
    assert transport.run(["echo", "here"], timeout_s=20).stdout == b"here\n"


def test_run_has_a_deadline(transport: Transport) -> None:
    with pytest.raises(DeadlineExceeded, match=r"did not end within 0\.3 s"):
        transport.run([sys.executable, "-c", "import time; time.sleep(50)"], timeout_s=0.3)


def test_deadline_holds_when_a_daemon_keeps_the_output(
    transport: Transport, tmp_path: Path
) -> None:
    code = (
        "import os, sys, time\n"
        "if not os.fork():\n"
        "    os.setsid()\n"
        "    open(sys.argv[1], 'w').write(str(os.getpid()))\n"
        "time.sleep(600)\n"
    )
    with pytest.raises(DeadlineExceeded):
        transport.run([sys.executable, "-c", code, str(tmp_path / "pid")], timeout_s=2.0)
    # The daemon has left its group and may stay; the fixture's deadline would end a wait for it.
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("name", [n for n in ODD_NAMES if n != "new\nline"])
def test_put_and_get_keep_bytes_and_names(transport: Transport, name: str, tmp_path: Path) -> None:
    source, there = tmp_path / "source", tmp_path / "made for it" / name
    source.write_bytes(os.urandom(300_000))
    transport.put(str(source), str(there))
    transport.get(str(there), str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert {path.name for path in there.parent.iterdir()} == {name}


def test_put_tells_how_much_is_sent(
    transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An adb client tells nobody but a terminal; what has arrived is asked for again and again.
    monkeypatch.setattr("device_agents.transports.adb._CHECK_EVERY_S", 1e-4)
    size, told = 700_000, []
    (tmp_path / "source").write_bytes(bytes(size))
    transport.put(
        str(tmp_path / "source"), str(tmp_path / "there"), on_sent=lambda *sent: told.append(sent)
    )
    assert told == sorted(told)
    assert {of for _, of in told} <= {size}
    if not isinstance(transport, AdbTransport):  # which may have ended before it was asked
        assert told[-1][0] == size


def test_put_replaces(transport: Transport, tmp_path: Path) -> None:
    target = tmp_path / "target"
    for content in (b"old and longer", b"new"):
        (tmp_path / "source").write_bytes(content)
        transport.put(str(tmp_path / "source"), str(target))
    assert target.read_bytes() == b"new"


def test_failed_transfers_say_what_and_leave_nothing(transport: Transport, tmp_path: Path) -> None:
    with pytest.raises(TransferFailed, match="missing"):
        transport.get(str(tmp_path / "missing"), str(tmp_path / "x"))
    with pytest.raises(TransferFailed, match="missing"):
        transport.put(str(tmp_path / "missing"), str(tmp_path / "y"))
    assert not list(tmp_path.iterdir())


def test_stream_speaks_in_lines(transport: Transport) -> None:
    stream = transport.open([sys.executable, "-u", "-c", ECHO_LINES])
    for line in (b"one\n", b"x" * 300_000 + b"\n"):
        stream.write(line, timeout_s=10)
        assert stream.read_line(timeout_s=10, limit_bytes=1 << 20) == line
    stream.close()
    stream.close()


def test_stream_has_deadline_and_line_bound(transport: Transport) -> None:
    stream = transport.open([sys.executable, "-u", "-c", ECHO_LINES])
    with pytest.raises(DeadlineExceeded, match=r"within 0\.2 s"):
        stream.read_line(timeout_s=0.2, limit_bytes=100)
    stream.write(b"y" * 200_000 + b"\n", timeout_s=10)
    with pytest.raises(AgentError, match="more than 100 bytes"):
        stream.read_line(timeout_s=10, limit_bytes=100)
    stream.close()


def test_end_of_stream_is_a_lost_link_with_the_last_words(transport: Transport) -> None:
    code = "import sys; print('last words', file=sys.stderr); print('no newline', end='')"
    stream = transport.open([sys.executable, "-c", f"{code}; sys.exit(3)"])
    with pytest.raises(LinkLost, match=r"code 3 .*last words"):
        stream.read_line(timeout_s=20, limit_bytes=100)
    assert "last words" in stream.stderr_tail()
    stream.close()


def test_abort_from_another_thread_ends_running_calls(transport: Transport) -> None:
    # Each says a line when it runs; the stopped one would answer nothing else, not even a close.
    code = "import os; print(os.getpid(), flush=True); os.kill(os.getpid(), {0})".format
    waiting = transport.open([sys.executable, "-c", "print(1, flush=True); input()"])
    stopped = transport.open([sys.executable, "-c", code(int(signal.SIGSTOP))])
    assert waiting.read_line(timeout_s=20, limit_bytes=100) == b"1\n"
    pid = int(stopped.read_line(timeout_s=20, limit_bytes=100))
    try:
        aborter = threading.Thread(target=transport.abort)
        aborter.start()
        for stream in (waiting, stopped):
            with pytest.raises(LinkLost):
                stream.read_line(timeout_s=30, limit_bytes=100)
        aborter.join(10)
        assert not aborter.is_alive()
        with pytest.raises(LinkLost):
            transport.run([sys.executable, "-c", "input()"], timeout_s=30)
        transport.abort()
        for stream in (waiting, stopped):
            stream.close()
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_much_stderr_does_not_block_the_answer(transport: Transport) -> None:
    code = "import sys; sys.stderr.write('e' * 5000000); print('answer')"
    stream = transport.open([sys.executable, "-c", code])
    assert stream.read_line(timeout_s=30, limit_bytes=100) == b"answer\n"
    stream.close()


def test_home_and_python_are_absolute_or_found(transport: Transport) -> None:
    assert transport.home.startswith("/")
    assert transport.run([transport.python, "-c", "pass"], timeout_s=20).rc == 0


def test_unknown_transport_names_the_known_ones() -> None:
    have = ", ".join(transports.names())
    with pytest.raises(ConfigError, match=rf"'pi'.*'telnet' known; have {have}"):
        transports.connect(DeviceProfile("pi", transport="telnet"))
