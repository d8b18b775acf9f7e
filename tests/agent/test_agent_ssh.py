"""A device over SSH: the same work as locally, and everything that goes wrong on the way."""

from __future__ import annotations

import getpass
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_agents import transports
from device_agents.api import BenchProtocol, Failure, Inference, Measurement, TensorValue
from device_agents.errors import (
    AuthenticationFailed,
    ConfigError,
    DeadlineExceeded,
    DeviceError,
    HostKeyError,
    LinkLost,
    TransferFailed,
    Unreachable,
)
from device_agents.runner import Device
from device_agents.transports import ssh
from tests import lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from device_agents.api import Transport


@pytest.fixture
def device(server: lab.LoopbackSsh, tmp_path: Path) -> Iterator[Device]:
    with Device.open(server.profile(tmp_path / "it's a $(touch x) device")) as opened:
        yield opened


def test_measure_infer_deploy(device: Device, models: Path) -> None:
    path = models / "large.tflite"
    result = device.measure(path, BenchProtocol.quick(), reference=path)
    assert isinstance(result, Measurement), result
    assert result.ratio == pytest.approx(1.0, abs=0.15)
    images = np.ones((100, 32, 32, 3), np.float32)
    value = TensorValue("float32", images.shape, images.tobytes())
    output = device.infer(path, [value])
    assert isinstance(output, Inference), output
    assert output.outputs[0].shape[0] == 100
    where = Path(device.releases.deploy(path, "net", "1", check=lab.unchecked))
    assert where.read_bytes() == path.read_bytes()
    released = device.releases.infer("net", "1", [value])
    assert isinstance(released, Inference), released
    assert released.outputs == output.outputs
    where.write_bytes(where.read_bytes()[:-1] + b"x")
    failure = device.releases.infer("net", "1", [value])
    assert isinstance(failure, Failure)
    assert failure.kind == "hash_mismatch"
    failure = device.releases.infer("net", "2", [value])
    assert isinstance(failure, Failure)
    assert "net has no release 2; have 1" in failure.reason


def test_connection_that_breaks_is_made_again(device: Device, models: Path) -> None:
    transport: Any = device._session._transport
    transport._link.sock.close()
    result = device.measure(models / "small.tflite", BenchProtocol.quick())
    assert isinstance(result, Measurement), result


def test_device_that_stays_away_is_a_retryable_failure(tmp_path: Path, models: Path) -> None:
    with lab.loopback_ssh(tmp_path) as own, Device.open(own.profile(tmp_path / "d")) as device:
        own.stop()
        transport: Any = device._session._transport
        transport._link.sock.close()
        protocol = replace(BenchProtocol.quick(), rejoin_s=1.0)
        result = device.measure(models / "small.tflite", protocol)
    assert isinstance(result, Failure)
    assert result.retryable
    assert result.kind == "link"
    assert "refuses the connection" in result.reason


def test_unknown_host_key_is_refused_with_the_command(
    server: lab.LoopbackSsh, tmp_path: Path
) -> None:
    known = tmp_path / "known hosts"
    with pytest.raises(HostKeyError) as caught:
        transports.connect(server.profile("~", known_hosts=str(known)))
    assert f"`ssh-keyscan -p {server.port} 127.0.0.1 >> '{known}'`" in str(caught.value)
    assert "SHA256:" in str(caught.value)
    assert not known.exists()


def test_changed_host_key_is_refused_with_the_command(
    server: lab.LoopbackSsh, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(lab.host_line(server.port, lab.keygen(tmp_path / "other").with_suffix(".pub")))
    with pytest.raises(HostKeyError, match="has changed") as caught:
        transports.connect(server.profile("~", known_hosts=str(known)))
    assert f"`ssh-keygen -R '[127.0.0.1]:{server.port}' -f {known}`" in str(caught.value)


@pytest.mark.parametrize("changes", [{"user": "nobody-here"}, {"identity_file": "other"}])
def test_wrong_user_or_key(
    server: lab.LoopbackSsh, tmp_path: Path, changes: dict[str, str]
) -> None:
    if "identity_file" in changes:
        changes = {"identity_file": str(lab.keygen(tmp_path / "other"))}
    user = changes.get("user", getpass.getuser())
    with pytest.raises(AuthenticationFailed, match=rf"refuses user '{user}' .*ssh-copy-id"):
        transports.connect(server.profile("~", **changes))


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"port": -1}, Unreachable, "refuses the connection"),
        ({"address": "no-such-host.invalid"}, Unreachable, "no such host"),
        ({"address": ""}, ConfigError, "has no address"),
        ({"identity_file": "/no/key"}, ConfigError, "there is no key '/no/key'"),
    ],
)
def test_wrong_address_port_and_key_path(
    server: lab.LoopbackSsh, changes: dict[str, Any], kind: type[Exception], words: str
) -> None:
    if changes.get("port") == -1:
        changes = {"port": lab.free_port()}
    with pytest.raises(kind, match=words) as caught:
        transports.connect(server.profile("~", **changes))
    assert "\n" not in str(caught.value)


def test_port_that_is_not_ssh_has_a_deadline(server: lab.LoopbackSsh) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        changes = {"port": silent.getsockname()[1], "connect_timeout_s": 0.5}
        with pytest.raises(DeviceError, match=r"no SSH connection|did not answer"):
            transports.connect(server.profile("~", **changes))


def test_key_with_a_passphrase(server: lab.LoopbackSsh, tmp_path: Path) -> None:
    key = tmp_path / "locked"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(key)]
    subprocess.run(command, check=True, timeout=30)
    with pytest.raises(AuthenticationFailed, match="needs a passphrase; run `ssh-add"):
        transports.connect(server.profile("~", identity_file=str(key)))


def test_no_python_is_one_sentence(server: lab.LoopbackSsh, tmp_path: Path) -> None:
    words = r"cannot run python9 \(.*not found\); install Python 3\.9"
    with pytest.raises(DeviceError, match=words) as caught:
        Device.open(server.profile(tmp_path / "d", python="python9"))
    assert not caught.value.retryable
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "d").exists()


NOISY = "ForceCommand /bin/sh -c 'printf Welcome; echo Warning >&2; eval \"$SSH_ORIGINAL_COMMAND\"'"
SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server")


def test_what_a_login_shell_prints_is_no_ones_output(tmp_path: Path) -> None:
    with lab.loopback_ssh(tmp_path, options=[NOISY]) as own:
        transport = transports.connect(own.profile("~"))
        stream = transport.open(["cat"])
        stream.write(b"line\n", timeout_s=20)
        assert stream.read_line(timeout_s=20, limit_bytes=100) == b"line\n"
        done = transport.run(["sh", "-c", "echo here; echo there >&2"], timeout_s=20)
        assert (done.stdout, done.stderr) == (b"here\n", b"there\n")
        assert transport.home == os.path.realpath(Path("~").expanduser())
        # sshd runs the subsystem by the same command.
        with pytest.raises(TransferFailed, match="login shell prints 'Welcome'; let its start"):
            transport.get("/dev/null", str(tmp_path / "null"))
        stream.close()
        transport.close()


@pytest.fixture
def root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: another user logs in, or a file system is mounted")


@pytest.mark.usefixtures("root")
def test_account_without_a_login_shell() -> None:
    user = next((u for u in pwd.getpwall() if u.pw_shell.endswith("/nologin")), None)
    if user is None:
        pytest.skip("no account with the shell nologin here")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # sshd reads the authorised keys as that user
        directory = folder / "device"
        directory.mkdir()
        directory.chmod(0o777)
        words = r"may not run programs there \(This account is currently not available\.\)"
        with (
            lab.loopback_ssh(folder) as own,
            pytest.raises(DeviceError, match=words) as caught,
        ):
            Device.open(own.profile(directory, user=user.pw_name))
        assert not list(directory.iterdir())
    assert not caught.value.retryable


@pytest.fixture
def disk(tmp_path: Path, root: None) -> Iterator[Path]:  # noqa: ARG001  # mounting needs it
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)]
    subprocess.run(command, check=True, timeout=30)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True, timeout=30)


def test_full_disk_is_named_and_left_as_found(
    server: lab.LoopbackSsh, tmp_path: Path, disk: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3_000_000))
    target = disk / "folder" / "model"
    target.parent.mkdir()
    target.write_bytes(b"old")
    transport = transports.connect(server.profile("~"))
    with pytest.raises(TransferFailed, match=r"disk is full: \d+ kB are free in .* 2930 kB") as e:
        transport.put(str(source), str(target))
    assert "\n" not in str(e.value)
    assert [path.name for path in target.parent.iterdir()] == ["model"]
    assert target.read_bytes() == b"old"
    source.write_bytes(b"small")
    transport.put(str(source), str(target))
    assert target.read_bytes() == b"small"
    transport.close()


def test_read_only_disk_is_named(server: lab.LoopbackSsh, tmp_path: Path, disk: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, timeout=30)
    transport = transports.connect(server.profile("~"))
    for target in (disk / "model", disk / "new" / "model"):
        with pytest.raises(TransferFailed, match=r"Read-only file system; make .* writable"):
            transport.put(str(tmp_path / "source"), str(target))
    transport.close()


ACTIONS: dict[str, Callable[[Transport, Path, Path], object]] = {
    "run": lambda transport, _source, _there: transport.run(["true"], timeout_s=5),
    "put": lambda transport, source, there: transport.put(str(source), str(there)),
    "get": lambda transport, source, there: transport.get(str(source), str(there)),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("before", ["run", "put"])  # without an SFTP channel, and with one
def test_server_that_stops_answering_has_a_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str, before: str
) -> None:
    source, there = tmp_path / "source", tmp_path / "there"
    source.write_bytes(os.urandom(9_000_000))
    with lab.loopback_ssh(tmp_path) as own:
        transport = transports.connect(own.profile("~"))
        ACTIONS[before](transport, source, tmp_path / "first")
        monkeypatch.setattr(ssh, "_CHANNEL_TIMEOUT_S", 0.3)
        monkeypatch.setattr(ssh, "_TRANSFER_STALL_S", 0.5)
        # What serves the connection is there, its kernel answers, and it does nothing.
        pids = own.sessions()
        pids += [child for pid in pids for child in lab.children(pid)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises((DeadlineExceeded, LinkLost)):
                ACTIONS[action](transport, source, there)
        finally:
            transport.close()
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
    assert not there.exists()


def test_process_that_talks_before_it_listens(server: lab.LoopbackSsh) -> None:
    code = "import sys; sys.stdout.write('o' * 9000000); print(len(sys.stdin.read()))"
    transport = transports.connect(server.profile("~"))
    done = transport.run([sys.executable, "-c", code], stdin=b"i" * 9_000_000, timeout_s=60)
    assert done.stdout.endswith(b"o9000000\n")
    transport.close()


def test_process_that_outlives_its_output_has_a_deadline(server: lab.LoopbackSsh) -> None:
    code = "import os, time; os.close(1); os.close(2); time.sleep(60)"
    transport = transports.connect(server.profile("~"))
    with pytest.raises(DeadlineExceeded, match=r"did not end within 0\.5 s"):
        transport.run([sys.executable, "-c", code], timeout_s=0.5)
    transport.close()
