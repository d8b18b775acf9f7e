"""Servers that are set up as hardening guides say, and small ones: few sessions, no SFTP."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from device_agents import transports
from device_agents.api import BenchProtocol, Measurement
from device_agents.care import doctor
from device_agents.errors import DeviceError, TransferFailed, Unreachable
from device_agents.runner import Device
from profiles.schema import DeviceProfile
from scripts.lab.sshd import until_listening
from tests import lab

if TYPE_CHECKING:
    from collections.abc import Iterator

HARDENED = ["MaxSessions 2", "PermitTTY no", "AllowTcpForwarding no", "AllowAgentForwarding no"]


def test_two_sessions_are_enough(tmp_path: Path, models: Path) -> None:
    with lab.loopback_ssh(tmp_path, options=HARDENED) as server:
        transport = transports.connect(server.profile("~"))
        transport.put(str(models / "small.tflite"), str(tmp_path / "there"))
        for _ in range(5):
            assert transport.run(["echo", "here"], timeout_s=20).stdout == b"here\n"
        stream = transport.open(["cat"])
        transport.get(str(tmp_path / "there"), str(tmp_path / "back"))
        # Beside the program and SFTP there is no third: why not is found out all the same.
        with pytest.raises(TransferFailed, match="says only `Failure`; look into"):
            transport.put(str(models / "small.tflite"), str(tmp_path))
        stream.close()
        transport.close()
        with Device.open(server.profile(tmp_path / "device")) as device:
            measured = device.measure(models / "small.tflite", BenchProtocol.quick())
    assert isinstance(measured, Measurement), measured


def test_one_session_is_named(tmp_path: Path) -> None:
    with lab.loopback_ssh(tmp_path, options=["MaxSessions 1"]) as server:
        transport = transports.connect(server.profile("~"))
        (tmp_path / "source").write_bytes(b"x")
        transport.put(str(tmp_path / "source"), str(tmp_path / "there"))
        assert transport.run(["echo", "here"], timeout_s=20).stdout == b"here\n"
        stream = transport.open(["cat"])
        for call in (
            lambda: transport.run(["true"], timeout_s=20),
            lambda: transport.get(str(tmp_path / "there"), str(tmp_path / "back")),
        ):
            with pytest.raises(DeviceError, match=r"set `MaxSessions 10` in its sshd_config"):
                call()
        stream.close()
        transport.close()
        transport = transports.connect(server.profile("~"))
        (found,) = doctor._transfers(server.profile("~"), transport)
        transport.close()
    assert found.status == "fail"
    assert found.advice.startswith("set `MaxSessions 10` in its sshd_config")


def test_a_server_without_sftp_is_a_finding(tmp_path: Path) -> None:
    with lab.loopback_ssh(tmp_path, options=["Subsystem sftp /nonexistent"]) as server:
        checks = doctor.examine(server.profile(tmp_path / "device")).checks
    found = {check.name: check for check in checks}
    assert found["python"].status == "ok"
    assert found["transfers"].status == "fail"
    assert "offers no SFTP, by which files are copied" in found["transfers"].found
    assert "openssh-sftp-server" in found["transfers"].advice
    assert found["runtime"].found == "not looked at: mend transfers first"


def test_a_jump_host_that_does_not_forward(server: lab.LoopbackSsh, tmp_path: Path) -> None:
    with lab.loopback_ssh(tmp_path, options=HARDENED) as gate:
        config = tmp_path / "config"
        config.write_text(
            server.config_entry("board", "ProxyJump gate") + gate.config_entry("gate")
        )
        with pytest.raises(
            Unreachable, match=r"jump host does not forward .*; set `AllowTcpForwarding"
        ):
            transports.connect(DeviceProfile("pi", address="board", ssh_config=str(config)))


def test_a_hardened_server_behind_a_jump_host(server: lab.LoopbackSsh, tmp_path: Path) -> None:
    noisy = 'ForceCommand echo Welcome; tcsh -c "$SSH_ORIGINAL_COMMAND"'
    with lab.loopback_ssh(tmp_path, options=[*HARDENED, noisy]) as board:
        config = tmp_path / "config"
        config.write_text(
            board.config_entry("board", "ProxyJump gate") + server.config_entry("gate")
        )
        transport = transports.connect(DeviceProfile("pi", address="board", ssh_config=str(config)))
        for _ in range(4):
            assert transport.run(["echo", "it's!"], timeout_s=20).stdout == b"it's!\n"
        transport.close()


@contextmanager
def dropbear(server: lab.LoopbackSsh, hidden: str = "") -> Iterator[DeviceProfile]:
    """Run dropbear for the keys of `server`, in a namespace where `hidden` is an empty file."""
    program = shutil.which("dropbear", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None or os.geteuid() != 0:
        pytest.skip("needs the package dropbear-bin, and root to hide root's own keys")
    folder, port = server.folder, lab.free_port()
    home = folder / "ssh"
    home.mkdir(mode=0o700, exist_ok=True)
    (home / "authorized_keys").write_bytes((folder / "client.pub").read_bytes())
    (home / "authorized_keys").chmod(0o600)
    (folder / "known").write_text(server.host_line().replace(str(server.port), str(port)))
    key = folder / "dropbear_key"
    convert = ["dropbearconvert", "openssh", "dropbear", f"{folder}/host_ed25519", str(key)]
    subprocess.run(convert, check=True, capture_output=True, timeout=30)
    script = (
        'mkdir -p ~/.ssh && mount --bind "$1" ~/.ssh && '
        '{ [ -z "$2" ] || mount --bind /dev/null "$2"; } && shift 2 && exec "$@"'
    )
    command = [
        program,
        "-F",
        "-E",
        "-r",
        str(key),
        "-p",
        f"127.0.0.1:{port}",
        "-P",
        str(folder / "pid"),
    ]
    with (folder / "dropbear.log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", script, "sh", str(home), hidden, *command], stderr=log
        )
    try:
        until_listening(process, "127.0.0.1", port, folder / "dropbear.log")
        yield server.profile(
            folder / "device", port=port, known_hosts=str(folder / "known"), user="root"
        )
    finally:
        process.terminate()
        process.wait(10)


SFTP_SERVER = Path("/usr/lib/openssh/sftp-server")


def test_dropbear(server: lab.LoopbackSsh, tmp_path: Path) -> None:
    with dropbear(server) as profile:
        transport = transports.connect(profile)
        code = "import sys; print(len(sys.stdin.read()), len(sys.argv[1]))"
        argv = [sys.executable, "-c", code, "!'\n" * 60]
        done = transport.run(argv, stdin=b"i" * 300_000, timeout_s=30)
        assert done.stdout == b"300000 180\n"
        (tmp_path / "source").write_bytes(b"x" * 300_000)
        transport.put(str(tmp_path / "source"), str(tmp_path / "there"))
        assert (tmp_path / "there").stat().st_size == 300_000
        transport.close()


def test_dropbear_without_an_sftp_server(server: lab.LoopbackSsh) -> None:
    with dropbear(server, hidden=str(SFTP_SERVER)) as profile:
        transport = transports.connect(profile)
        (found,) = doctor._transfers(profile, transport)
        assert transport.run(["echo", "here"], timeout_s=20).stdout == b"here\n"
        transport.close()
    assert "offers no SFTP" in found.found
