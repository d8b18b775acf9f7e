"""A device over SSH: the same work as locally, and everything that goes wrong on the way."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from device_agents import transports
from device_agents.api import BenchProtocol, Failure, Inference, Measurement, TensorValue
from device_agents.errors import (
    AuthenticationFailed,
    ConfigError,
    DeviceError,
    HostKeyError,
    Unreachable,
)
from device_agents.runner import Device
from tests import lab

if TYPE_CHECKING:
    from collections.abc import Iterator


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
    where = Path(device.deploy(path, "net", "1"))
    assert where.read_bytes() == path.read_bytes()
    released = device.infer_release("net", "1", [value])
    assert isinstance(released, Inference), released
    assert released.outputs == output.outputs
    where.write_bytes(where.read_bytes()[:-1] + b"x")
    failure = device.infer_release("net", "1", [value])
    assert isinstance(failure, Failure)
    assert failure.kind == "hash_mismatch"
    failure = device.infer_release("net", "2", [value])
    assert isinstance(failure, Failure)
    assert "net has no release 2; have 1" in failure.reason


def test_connection_that_breaks_is_made_again(device: Device, models: Path) -> None:
    transport: Any = device._session._transport
    transport._client.get_transport().sock.close()
    result = device.measure(models / "small.tflite", BenchProtocol.quick())
    assert isinstance(result, Measurement), result


def test_device_that_stays_away_is_a_retryable_failure(tmp_path: Path, models: Path) -> None:
    with lab.loopback_ssh(tmp_path) as own, Device.open(own.profile(tmp_path / "d")) as device:
        own.stop()
        transport: Any = device._session._transport
        transport._client.get_transport().sock.close()
        result = device.measure(models / "small.tflite", BenchProtocol.quick())
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
        ({"port": 0}, Unreachable, "refuses the connection"),
        ({"address": "no-such-host.invalid"}, Unreachable, "no such host"),
        ({"address": ""}, ConfigError, "has no address"),
        ({"identity_file": "/no/key"}, ConfigError, "there is no key '/no/key'"),
    ],
)
def test_wrong_address_port_and_key_path(
    server: lab.LoopbackSsh, changes: dict[str, Any], kind: type[Exception], words: str
) -> None:
    if changes.get("port") == 0:
        changes = {"port": lab.free_port()}
    with pytest.raises(kind, match=words) as caught:
        transports.connect(server.profile("~", **changes))
    assert "\n" not in str(caught.value)


def test_port_that_is_not_ssh_has_a_deadline(server: lab.LoopbackSsh) -> None:
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        changes = {"port": silent.getsockname()[1], "connect_timeout_s": 0.5}
        with pytest.raises(DeviceError, match=r"no SSH connection|did not answer"):
            transports.connect(server.profile("~", **changes))


def test_key_with_a_passphrase(server: lab.LoopbackSsh, tmp_path: Path) -> None:
    import subprocess

    key = tmp_path / "locked"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(key)]
    subprocess.run(command, check=True, timeout=30)
    with pytest.raises(AuthenticationFailed, match="needs a passphrase; run `ssh-add"):
        transports.connect(server.profile("~", identity_file=str(key)))
