"""Accounts whose login shell is not sh, prints before it does what it is told, or does nothing."""

from __future__ import annotations

import shutil
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from device_agents import transports
from device_agents.care import doctor, probe
from device_agents.care.probe_script import SCRIPT as PROBE
from device_agents.care.removal import clean
from device_agents.care.unpack_script import SCRIPT as UNPACK
from device_agents.errors import DeadlineExceeded, DeviceError, LinkLost
from device_agents.packing import launch_code
from device_agents.tools import remote_job
from device_agents.tools.remote_job import Link, run_job
from device_agents.transports._ssh_command import Command
from tests import lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from profiles.schema import DeviceProfile

SHELLS = ["tcsh", "fish", "zsh", "mksh", "busybox ash", "rbash"]
ODD = ["it's", "x\\'y", "!bang! $HOME `id`", "two\nlines\n", "*?[a]{b,c}~ # ; | & < > ()", "", "ä€"]
TALK = "import sys; print(sys.argv[1:]); print(sys.stdin.read()); print('e', file=sys.stderr)"


def behind(shell: str) -> str:
    """Return the option by which sshd runs every command as an account with that shell does."""
    program, *words = shell.split()
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"no {program} found; install it")
    return f'ForceCommand {" ".join([path, *words])} -c "$SSH_ORIGINAL_COMMAND"'


@pytest.fixture(scope="module", params=SHELLS)
def account(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DeviceProfile]:
    folder = tmp_path_factory.mktemp("shell")
    with lab.loopback_ssh(folder, options=[behind(request.param)]) as server:
        yield server.profile(folder / "it's a device")


def test_commands_and_streams(account: DeviceProfile) -> None:
    transport = transports.connect(account)
    argv = [sys.executable, "-c", TALK, *ODD]
    done = transport.run(argv, stdin=b"in", timeout_s=20)
    assert done.stdout.decode() == f"{ODD}\nin\n"
    assert (done.rc, done.stderr) == (0, b"e\n")
    stream = transport.open([sys.executable, "-c", "print(input()); print('it\\'s!')"])
    stream.write(b"line\n", timeout_s=20)
    said = [stream.read_line(timeout_s=20, limit_bytes=99) for _ in range(2)]
    assert said == [b"line\n", b"it's!\n"]
    stream.close()
    transport.close()


def test_scripts_of_many_lines(account: DeviceProfile, tmp_path: Path) -> None:
    transport = transports.connect(account)
    seen = probe.read(transport, depth="state", directory=str(tmp_path))
    assert seen.machine
    assert seen.directory_writable
    link = Link("lab", lambda: transport, threading.Event())
    argv = ["sh", "-c", 'echo "it\'s"\nexit 3']
    ended = run_job(link, str(tmp_path / "jobs"), argv, job_id="x1", deadline_s=30, rejoin_s=1)
    assert (ended.rc, ended.text) == (3, "it's\n")
    transport.close()


def test_removal_by_csh(tmp_path: Path) -> None:
    folder = tmp_path / "de'vice"
    (folder / "models").mkdir(parents=True)
    with lab.loopback_ssh(tmp_path, options=[behind("tcsh")]) as server:
        assert clean(server.profile(folder)).removed == ("models",)
    assert not folder.exists()


def test_lines_are_short_enough_for_every_server() -> None:
    # dropbear takes 9000 bytes; what is added to the scripts are names and hashes.
    for script in (PROBE, UNPACK, remote_job._START, launch_code()):
        assert len(Command(["sh", "-c", script]).line) < 8300


def examined(server: lab.LoopbackSsh, folder: Path) -> dict[str, tuple[str, str]]:
    diagnosis = doctor.examine(server.profile(folder, runtime="benchmark_model"))
    assert not diagnosis.healthy
    return {
        check.name: (check.status, f"{check.found} -> {check.advice}") for check in diagnosis.checks
    }


def test_start_files_that_print_are_a_finding_and_spoil_no_other(tmp_path: Path) -> None:
    prints = (
        "ForceCommand echo; printf 'Dear user; '; echo mesg >&2; eval \"$SSH_ORIGINAL_COMMAND\""
    )
    with lab.loopback_ssh(tmp_path, options=[prints]) as server:
        found = examined(server, tmp_path / "device")
        transport = transports.connect(server.profile("~"))
        done = transport.run(["sh", "-c", "echo own; echo wrong >&2; exit 3"], timeout_s=20)
        assert (done.rc, done.stdout, done.stderr) == (3, b"own\n", b"wrong\n")
        transport.close()
    assert found["disk"][0] != "unknown"
    status, words = found["transfers"]
    assert status == "fail"
    assert "login shell prints 'Dear user,' -> let its start files print nothing" in words


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("echo Sorry, closed; exit 4", "may not run programs there (Sorry, closed); give it"),
        ("exit 4", "may not run programs there (its shell ended with code 4 and said nothing)"),
        ("internal-sftp", "may not run programs there"),
        ("yes", "the login shell wrote more than 1 MiB and was ended"),
        ("sh -c 'yes >&2'", "more than 16 MiB and was ended"),
    ],
)
def test_accounts_that_run_nothing(tmp_path: Path, command: str, words: str) -> None:
    with lab.loopback_ssh(tmp_path, options=[f"ForceCommand {command}"]) as server:
        transport = transports.connect(server.profile("~"))
        with pytest.raises(DeviceError) as caught:
            transport.run(["true"], timeout_s=60)
        assert words in str(caught.value)
        assert not isinstance(caught.value, LinkLost)
        if "MiB" not in words:
            stream = transport.open(["cat"])
            with pytest.raises(DeviceError) as caught:
                stream.read_line(timeout_s=20, limit_bytes=99)
            assert words in str(caught.value)
            stream.close()
        transport.close()


def test_a_shell_that_asks_and_waits(tmp_path: Path) -> None:
    asks = "ForceCommand echo 'Choose 1 or 2:'; sleep 60"
    with lab.loopback_ssh(tmp_path, options=[asks]) as server:
        transport = transports.connect(server.profile("~"))
        words = r"did not end within 3 s, and the login shell has not started it: it says 'Choose 1"
        with pytest.raises(DeadlineExceeded, match=words):
            transport.run(["true"], timeout_s=3)
        transport.close()


def test_a_shell_that_floods_is_a_finding(tmp_path: Path) -> None:
    with lab.loopback_ssh(tmp_path, options=["ForceCommand yes flood"]) as server:
        found = examined(server, tmp_path / "device")
    assert "the login shell wrote more than 1 MiB" in found["shell"][1]
