"""Each virtual device as its user starts it: one command, stopped by Ctrl-C or with its starter."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import tomllib
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.lab import armhf, icount, images
from tests.device_lab import started

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

LAB = Path(__file__).parents[2] / "scripts" / "lab"


@contextmanager
def started_by_command(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a device; yield it and what it printed until it was ready. It ends with the block."""
    # The command must find the images that this process has.
    monkeypatch.setenv("XDG_CACHE_HOME", str(images.FOLDER.parents[1]))
    with subprocess.Popen([LAB / name], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = ""
        try:
            while "Ctrl-C" not in said:
                line = process.stdout.readline()
                assert line, f"{name} ended: {said}"
                said += line
            yield process, said
        finally:
            process.kill()


def descendants(pid: int) -> set[int]:
    """Return the processes below this one."""
    found = subprocess.run(
        ["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False, timeout=10
    )
    children = {int(word) for word in found.stdout.split()}
    return children.union(*(descendants(child) for child in children))


def wait_until_ended(pids: set[int]) -> None:
    """Return when all have ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            try:
                assert select.select([handle], [], [], 30.0)[0], f"{pid} still runs"
            finally:
                os.close(handle)


@pytest.fixture(scope="module")
def _images(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Start each device once, so that no command has to build an image or cannot run here."""
    for device in (armhf, icount):
        with started(device.running(tmp_path_factory.mktemp("once"))):
            pass


@pytest.mark.usefixtures("_images")
@pytest.mark.parametrize("name", ["armhf", "icount", "sshd"])
def test_a_command_starts_a_device_and_ctrl_c_ends_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started_by_command(name, monkeypatch) as (process, said):
        values = tomllib.loads("".join(re.findall(r"^ *\w+ = .+\n", said, re.MULTILINE)))
        with socket.create_connection((values["address"], values["port"]), timeout=30) as sock:
            assert sock.recv(4) == b"SSH-"
        below = descendants(process.pid)
        assert below
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    wait_until_ended(below)
    assert not Path(values["known_hosts"]).exists(), "its folder is left"


@pytest.mark.usefixtures("_images")
@pytest.mark.parametrize("name", ["armhf", "icount", "sshd"])
def test_a_device_does_not_outlive_who_started_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started_by_command(name, monkeypatch) as (process, _said):
        below = descendants(process.pid)
        assert below
        process.kill()
    wait_until_ended(below)
    assert "scratch" not in Path("/proc/mounts").read_text()


def test_what_is_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "find", lambda _program: None)
    with pytest.raises(images.LabError, match=r"^mmdebstrap, cpio not found; install .* a b$"):
        images.need("mmdebstrap", "cpio", packages="a b")


def test_a_build_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "FOLDER", tmp_path / "cache")
    made = []

    def broken(folder: Path) -> None:
        (folder / "half").touch()
        raise images.LabError("the network is down")

    def good(folder: Path) -> None:
        (folder / "whole").touch()
        made.append(folder)

    with pytest.raises(images.LabError, match="network"):
        images.built("thing", {"a": 1}, broken)
    assert [path.name for path in images.FOLDER.iterdir()] == ["thing.lock"]
    (images.FOLDER / ".thing-of-a-killed-builder").mkdir()
    first = images.built("thing", {"a": 1}, good)
    assert (first / "whole").exists()
    assert images.built("thing", {"a": 1}, good) == first
    assert images.built("thing", {"a": 2}, good) != first
    assert len(made) == 2
    assert not list(images.FOLDER.glob(".thing-*"))
