"""Links that are slow, lossy or gone: real TCP over a simulated link, with a real sshd behind it.

A lost link is noticed within six seconds of the cut; a link that is merely bad is kept.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import tomllib
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from device_agents import transports
from device_agents.errors import LinkLost
from profiles.schema import DeviceProfile
from scripts.lab import link
from tests import lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from device_agents.api import Transport

NOTICED_S = 6.0
BLACKOUT_S = 3.0
ROOT = Path(__file__).resolve().parents[2]


class Linked:
    """A server, the link that leads to it, and the profile that reaches it."""

    def __init__(self, wire: link.Link, profile: DeviceProfile) -> None:
        self.wire = wire
        self.profile = profile
        self.cut_at = float("inf")

    def cut(self) -> None:
        self.wire.set(up=False)
        self.cut_at = time.monotonic()

    @contextmanager
    def connected(self, **settings: float) -> Iterator[Transport]:
        self.wire.set(**settings)
        transport = transports.connect(self.profile)
        try:
            yield transport
        finally:
            transport.close()


@pytest.fixture
def direct(tmp_path: Path) -> Iterator[Linked]:
    with lab.linked_ssh(tmp_path / "lab") as (server, wire):
        yield Linked(wire, server.profile("~", connect_timeout_s=30.0))


@pytest.fixture(params=["direct", "the jump host is cut off", "the device is cut off from it"])
def linked(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Linked]:
    with ExitStack() as stack:
        behind, wire = stack.enter_context(lab.linked_ssh(tmp_path / "lab"))
        if request.param == "direct":
            yield Linked(wire, behind.profile("~"))
            return
        (tmp_path / "other").mkdir()
        if "jump host is" in request.param:
            # Both are behind the link.
            inside = {"address": wire.device, "prefix": wire.prefix}
            gate, board = (
                behind,
                stack.enter_context(lab.loopback_ssh(tmp_path / "other", **inside)),
            )
        else:
            gate, board = stack.enter_context(lab.loopback_ssh(tmp_path / "other")), behind
        config = tmp_path / "config"
        text = board.config_entry("board", "ProxyJump gate") + gate.config_entry("gate")
        config.write_text(text)
        changes = {"address": "board", "port": 0, "known_hosts": "", "identity_file": ""}
        yield Linked(wire, board.profile("~", **changes, ssh_config=str(config)))


@contextmanager
def once(condition: Callable[[], bool], action: Callable[[], object]) -> Iterator[None]:
    """Act as soon as the condition holds, while the body of the `with` runs."""

    def watch() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if condition():
                action()
                return
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        watcher.join()


def large_file(path: Path) -> Path:
    path.write_bytes(os.urandom(1 << 20) * 40)
    return path


def under_way(folder: Path) -> Callable[[], bool]:
    """Tell whether a good part of a transfer has arrived in the folder."""
    return lambda: any(p.stat().st_size > 2 << 20 for p in folder.glob("*.part-*"))


def test_idle_link_that_is_cut(linked: Linked) -> None:
    with linked.connected() as transport:
        stream = transport.open(["sh", "-c", "echo begun; read nothing"])
        assert stream.read_line(timeout_s=20, limit_bytes=100) == b"begun\n"
        linked.cut()
        with pytest.raises(LinkLost):
            stream.read_line(timeout_s=60, limit_bytes=100)
        assert time.monotonic() - linked.cut_at <= NOTICED_S
        with pytest.raises(LinkLost):
            transport.run(["true"], timeout_s=60)


def test_command_whose_link_is_cut(direct: Linked) -> None:
    with direct.connected() as transport, once(lambda: True, direct.cut):
        with pytest.raises(LinkLost):
            transport.run(["sleep", "60"], timeout_s=60)
        assert time.monotonic() - direct.cut_at <= NOTICED_S


def test_link_that_is_cut_in_mid_put(linked: Linked, tmp_path: Path) -> None:
    source, there = large_file(tmp_path / "source"), tmp_path / "there"
    there.mkdir()
    with linked.connected(delay_ms=10) as transport, once(under_way(there), linked.cut):
        with pytest.raises(LinkLost):
            transport.put(str(source), str(there / "model"))
        assert time.monotonic() - linked.cut_at <= NOTICED_S
    assert not (there / "model").exists()


def test_link_that_is_cut_in_mid_get(linked: Linked, tmp_path: Path) -> None:
    source, here = large_file(tmp_path / "source"), tmp_path / "here"
    here.mkdir()
    with linked.connected(delay_ms=10) as transport, once(under_way(here), linked.cut):
        with pytest.raises(LinkLost):
            transport.get(str(source), str(here / "model"))
        assert time.monotonic() - linked.cut_at <= NOTICED_S
    assert not list(here.iterdir())


@pytest.mark.slow
def test_three_seconds_of_silence_in_mid_transfer_are_survived(
    direct: Linked, tmp_path: Path
) -> None:
    source, there, here = large_file(tmp_path / "source"), tmp_path / "there", tmp_path / "here"

    def black_out() -> None:
        direct.cut()
        threading.Timer(BLACKOUT_S, direct.wire.set, kwargs={"up": True}).start()

    for folder in (there, here):
        folder.mkdir()
    with direct.connected(delay_ms=10) as transport:
        with once(under_way(there), black_out):
            transport.put(str(source), str(there / "model"))
        assert time.monotonic() - direct.cut_at >= BLACKOUT_S
        with once(under_way(here), black_out):
            transport.get(str(there / "model"), str(here / "model"))
        assert time.monotonic() - direct.cut_at >= BLACKOUT_S
    assert (here / "model").read_bytes() == source.read_bytes()


@pytest.mark.slow
def test_slow_and_lossy_link_is_kept(direct: Linked, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(300_000))
    with direct.connected(delay_ms=300, loss=0.05) as transport:
        begun = time.monotonic()
        # Longer than it takes to notice that a link is gone.
        done = transport.run(["sh", "-c", "sleep 8; echo here"], timeout_s=60)
        assert done.stdout == b"here\n"
        assert time.monotonic() - begun >= 8.6
        transport.put(str(source), str(tmp_path / "there"))
        transport.get(str(tmp_path / "there"), str(tmp_path / "here"))
    assert (tmp_path / "here").read_bytes() == source.read_bytes()


def test_device_that_comes_back_is_reached_again(direct: Linked) -> None:
    with direct.connected() as transport:
        direct.cut()
        with pytest.raises(LinkLost):
            transport.run(["true"], timeout_s=60)
    direct.wire.set(up=True)
    with direct.connected() as transport:
        assert transport.run(["echo", "here"], timeout_s=20).stdout == b"here\n"


def test_nothing_is_left_of_a_link_whose_owner_was_killed(tmp_path: Path) -> None:
    if link.why_not():
        pytest.skip(link.why_not())
    code = (
        "import subprocess, sys\n"
        "from pathlib import Path\n"
        "from scripts.lab import link\n"
        "with link.running(Path(sys.argv[1])) as wire:\n"
        "    subprocess.Popen([*wire.prefix, 'setsid', 'sleep', '1000.25'])\n"
        "    print(wire.prefix[2], wire.host, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        holder, address = owner.stdout.readline().decode().split()
        assert address in addresses()
        owner.send_signal(signal.SIGKILL)
    end = time.monotonic() + 20
    while time.monotonic() < end and (address in addresses() or Path("/proc", holder).exists()):
        time.sleep(0.02)
    assert address not in addresses()
    assert not Path("/proc", holder).exists()
    sleeping = ["pgrep", "-f", "^sleep 1000.25$"]
    assert not subprocess.run(sleeping, capture_output=True, check=False, timeout=10).stdout


def addresses() -> str:
    command = ["ip", "-o", "addr"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout


def test_one_command_starts_a_link(tmp_path: Path) -> None:
    if link.why_not():
        pytest.skip(link.why_not())
    folder = tmp_path / "a link"

    def program(*words: str) -> list[str]:
        return [sys.executable, "-m", "scripts.lab.link", *words]

    def change(*words: str) -> link.Settings:
        subprocess.run(program(*words), cwd=ROOT, check=True, timeout=60)
        return link.read_settings(folder / "settings.json")

    for _ in range(2):  # again in the same folder, where keys lie
        command = program("start", str(folder))
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            said = ""
            while not said.rstrip().endswith(f"cut '{folder}'"):
                line = process.stdout.readline()
                assert line, said
                said += line
            made = transports.connect(DeviceProfile("board", **tomllib.loads(said)))
            assert made.run(["echo", "here"], timeout_s=20).stdout == b"here\n"
            changed = change("set", str(folder), "--delay-ms", "5", "--loss", "0.01")
            assert changed == link.Settings(delay_ms=5.0, loss=0.01)
            assert not change("cut", str(folder)).up
            assert change("heal", str(folder)).up
            made.close()
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
    assert b"no link runs in" in _refused(program("cut", str(folder)))
    assert b"1.5 is not between 0 and 1" in _refused(program("set", str(folder), "--loss", "1.5"))


def _refused(command: list[str]) -> bytes:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, timeout=60)
    assert done.returncode == 2
    return done.stderr


def test_the_program_says_what_it_needs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.lab.link", "cut", str(tmp_path)]
    assert b"no link runs in" in _refused(command)
