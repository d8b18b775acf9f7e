"""What lies on a device is not believed: planted files and links, other users, no umask."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from device_agents import transports
from device_agents.errors import AgentError, DeviceError
from device_agents.packing import launch_code, pack_agent
from device_agents.session import Session
from device_agents.transports.local import LocalTransport
from tests import lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from profiles.schema import DeviceProfile

OTHER_USER = 54321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two users")


@pytest.fixture
def hello(local: Callable[..., DeviceProfile]) -> Iterator[Callable[..., dict[str, Any]]]:
    """Connect, and return what the agent says of itself."""
    sessions = []

    def ask(**changes: Any) -> dict[str, Any]:
        profile = local(**changes)
        connect = lambda: transports.connect(profile)  # noqa: E731
        sessions.append(Session(profile.name, connect, directory=profile.directory))
        return sessions[-1].hello

    yield ask
    for session in sessions:
        session.close()


def planted(path: Path, marker: Path) -> Path:
    """Write a program that says that it is the wanted agent and leaves a mark when it runs."""
    told = {"protocol": 1, "agent_sha256": pack_agent().sha256, "directory": "/", "incoming": "/"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        line = json.dumps(
            {"id": 1, "part": json.dumps({"result": told, "busy_ns": 0}), "end": True}
        )
        code = f"open({str(marker)!r}, 'w')\nprint('\\x1eew1 ' + {line!r}, flush=True)\ninput()\n"
        archive.writestr("__main__.py", code)
        archive.writestr("edgewright_agent/__init__.py", "")
        archive.writestr("edgewright_agent/main.py", f"def main(argv):\n    {code!r}\n")
    return path


def test_a_planted_agent_never_runs(
    hello: Callable[..., dict[str, Any]], local: Callable[..., DeviceProfile], tmp_path: Path
) -> None:
    marker = tmp_path / "it ran"
    folder = Path(local().directory, "agent")
    path = planted(folder / pack_agent().file_name, marker)
    folder.chmod(0o700)
    folder.parent.chmod(0o700)
    told = hello()
    assert told["agent_sha256"] == pack_agent().sha256
    assert told["directory"] == str(folder.parent)
    assert not marker.exists()
    assert path.read_bytes() == pack_agent().path.read_bytes()


def test_an_agent_that_arrives_damaged_never_runs(
    hello: Callable[..., dict[str, Any]],
    local: Callable[..., DeviceProfile],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = LocalTransport.put

    def damage(transport: LocalTransport, source: str, target: str) -> None:
        real(transport, source, target)
        with Path(target).open("ab") as file:
            file.write(b"more")

    with monkeypatch.context() as patch:
        patch.setattr(LocalTransport, "put", damage)
        with pytest.raises(AgentError, match="the agent arrived with hash") as caught:
            hello()
    assert caught.value.kind == "hash_mismatch"
    folder = Path(local().directory, "agent")
    assert [path.name for path in folder.iterdir()] == [".mutex"]
    assert hello()["agent_sha256"] == pack_agent().sha256


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_what_is_no_file_under_the_agents_name_is_not_followed(
    hello: Callable[..., dict[str, Any]],
    local: Callable[..., DeviceProfile],
    tmp_path: Path,
    kind: str,
) -> None:
    marker = tmp_path / "it ran"
    path = Path(local().directory, "agent", pack_agent().file_name)
    path.parent.mkdir(parents=True)
    path.parent.chmod(0o700)
    path.parent.parent.chmod(0o700)
    victim = planted(tmp_path / "theirs.pyz", marker)
    before = victim.read_bytes()
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with lab.deadline(100):
        if kind == "folder":
            with pytest.raises(DeviceError, match="directory"):
                hello()
        else:
            assert hello()["agent_sha256"] == pack_agent().sha256
    assert not marker.exists()
    assert victim.read_bytes() == before


@pytest.mark.parametrize("name", ["agent", "incoming", "jobs", "models", "deployed"])
def test_folders_that_are_links_are_refused(
    hello: Callable[..., dict[str, Any]],
    local: Callable[..., DeviceProfile],
    tmp_path: Path,
    name: str,
) -> None:
    victim = tmp_path / "theirs"
    victim.mkdir()
    for file in ("diary", "0123.part-4567", "running", "deadbeef.json", "deadbeef.json.part"):
        (victim / file).write_text("theirs")
        os.utime(victim / file, (0, 0))
    directory = Path(local().directory)
    directory.mkdir(mode=0o700)
    (directory / name).symlink_to(victim)
    with pytest.raises(AgentError, match=rf"{name} is a link, where .* must be; remove") as caught:
        hello()
    assert caught.value.kind == "unsafe_directory"
    assert {path.read_text() for path in victim.iterdir()} == {"theirs"}
    assert len(list(victim.iterdir())) == 5


@pytest.mark.parametrize("name", ["jobs/running", "jobs/mutex", "incoming/.mutex", "agent/.mutex"])
def test_files_that_are_links_are_not_followed(
    hello: Callable[..., dict[str, Any]],
    local: Callable[..., DeviceProfile],
    tmp_path: Path,
    name: str,
) -> None:
    victim = tmp_path / "theirs"
    victim.write_text("theirs")
    path = Path(local().directory, name)
    path.parent.mkdir(parents=True)
    path.parent.parent.chmod(0o700)
    path.symlink_to(victim)
    with pytest.raises(DeviceError, match="Too many levels of symbolic links"):
        hello()
    assert victim.read_text() == "theirs"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
def test_a_directory_in_which_others_may_write_is_refused(
    hello: Callable[..., dict[str, Any]],
    local: Callable[..., DeviceProfile],
    tmp_path: Path,
    mode: int,
) -> None:
    marker = tmp_path / "it ran"
    directory = Path(local().directory)
    planted(directory / "agent" / pack_agent().file_name, marker)
    directory.chmod(mode)
    with pytest.raises(AgentError, match=rf"others may write in .*mode {mode:o}") as caught:
        hello()
    assert caught.value.kind == "unsafe_directory"
    assert "`chmod -R go-w` on it" in str(caught.value)
    assert not marker.exists()


def test_a_directory_that_others_may_read_is_closed(
    hello: Callable[..., dict[str, Any]], local: Callable[..., DeviceProfile]
) -> None:
    directory = Path(local().directory)
    directory.mkdir(mode=0o755)
    hello()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_ones_own_link_to_a_larger_disk_is_followed(
    hello: Callable[..., dict[str, Any]], local: Callable[..., DeviceProfile], tmp_path: Path
) -> None:
    (tmp_path / "disk").mkdir(mode=0o700)
    Path(local().directory).symlink_to(tmp_path / "disk")
    assert hello()["directory"] == str(tmp_path / "disk")


def test_no_umask_opens_nothing(hello: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    python = lab.wrapped_python(tmp_path / "python", "umask 0")
    hello(python=str(python), directory=f"{tmp_path}/new/parents/too/device")
    made = list((tmp_path / "new").rglob("*"))
    assert tmp_path / "new/parents/too/device/agent" in made
    for path in made:
        assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0, path


def test_modules_of_the_working_directory_are_not_imported(
    hello: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "it ran"
    (tmp_path / "cwd").mkdir()
    for name in ("base64", "hashlib", "json", "fcntl", "select", "stat", "shutil"):
        (tmp_path / "cwd" / f"{name}.py").write_text(f"open({str(marker)!r}, 'w')\n")
    monkeypatch.chdir(tmp_path / "cwd")
    assert hello()["agent_sha256"] == pack_agent().sha256
    assert not marker.exists()


@as_root
@pytest.mark.parametrize("what", [".", "agent", "incoming", "jobs", "models", "deployed"])
def test_folders_of_another_user_are_refused(
    hello: Callable[..., dict[str, Any]], local: Callable[..., DeviceProfile], what: str
) -> None:
    path = Path(local().directory, what)
    path.mkdir(parents=True, mode=0o700)
    path.parent.chmod(0o700)
    os.chown(path, OTHER_USER, OTHER_USER)
    with pytest.raises(AgentError, match=f"belongs to user {OTHER_USER} and not to user 0"):
        hello()


@as_root
def test_a_link_of_another_user_is_refused(
    hello: Callable[..., dict[str, Any]], local: Callable[..., DeviceProfile], tmp_path: Path
) -> None:
    (tmp_path / "own").mkdir(mode=0o700)
    Path(local().directory).symlink_to(tmp_path / "own")
    os.lchown(local().directory, OTHER_USER, OTHER_USER)
    with pytest.raises(AgentError, match="is a link of another user"):
        hello()
    assert list((tmp_path / "own").iterdir()) == []


@as_root
def test_another_user_can_neither_read_nor_plant(hello: Callable[..., dict[str, Any]]) -> None:
    """Two users on one device, the second with whatever umask the first one has."""
    before = os.umask(0)
    try:
        with tempfile.TemporaryDirectory() as name:
            Path(name).chmod(0o777)
            told = hello(directory=f"{name}/device")
            for path in (told["directory"], told["incoming"], f"{told['directory']}/agent"):
                for command in (["ls", path], ["touch", f"{path}/planted"], ["rm", "-r", path]):
                    done = subprocess.run(
                        command, user=OTHER_USER, group=OTHER_USER, capture_output=True, check=False
                    )
                    assert done.returncode != 0, command
            # A folder that the second user has made first, under the first one's name.
            theirs = Path(name, "theirs")
            subprocess.run(
                ["mkdir", "-p", "-m", "777", str(theirs), f"{theirs}/agent"],
                user=OTHER_USER,
                check=True,
            )
            with pytest.raises(AgentError, match=f"belongs to user {OTHER_USER}"):
                hello(directory=str(theirs))
    finally:
        os.umask(before)


def test_the_launcher_passes_any_login_shell() -> None:
    code = launch_code()
    assert "\n" not in code
    assert "'" not in code
    assert "!" not in code
    # dropbear takes commands of 9000 characters, of which the paths need some.
    assert len(code) < 8000
    compile(code, "launcher", "exec")
    for shell in ("sh", "bash", "dash", "tcsh", "csh", "zsh", "fish", "busybox"):
        argv = [shell, "-c"] if shell != "busybox" else ["busybox", "sh", "-c"]
        command = f"{sys.executable} -c '{code}' /nowhere/agent.pyz 00 --directory /proc/none"
        try:
            done = subprocess.run(
                [*argv, command], input=b"", capture_output=True, check=False, timeout=60
            )
        except FileNotFoundError:
            continue
        assert b"cannot make /proc/none" in done.stdout, (shell, done)


def test_a_refusal_waits_for_the_call_that_it_answers(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    path = tmp_path / "agent" / pack_agent().file_name
    argv = [sys.executable, "-u", "-c", launch_code(), str(path), pack_agent().sha256]
    with subprocess.Popen(
        [*argv, "--directory", str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        # Ended by now, it would have left a closed pipe to the host's first call.
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)
        process.stdin.write(b"a call\n")
        process.stdin.flush()
        assert b"others may write in" in process.stdout.read()
        assert process.wait(30) == 1
