"""Devices of public reports that were not reached, or read wrongly, as far as they are files."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest

from device_agents import transports
from device_agents.care import probe
from device_agents.errors import HostKeyError
from pipeline.cli.main import main
from profiles.schema import DeviceProfile
from tests import lab
from tests.fake_pi import FakePi

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"there is no {CASES}")


def test_old_busybox(tmp_path: Path) -> None:
    root = FakePi(throttled="throttled=0x50005").write(tmp_path / "root")
    shutil.copy(CASES / "06-old-busybox-timeout" / "timeout", root / "usr" / "bin")
    (root / "usr" / "bin" / "timeout").chmod(0o755)
    transport = transports.connect(DeviceProfile("here", transport="local"))
    seen = probe.read(transport, root=str(root), timeout_s=60)
    assert (seen.machine, seen.userland_bits) == ("aarch64", 64)
    assert seen.sensors().throttled == 0x50005
    assert seen.pythons()


def test_known_hosts_of_a_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with lab.loopback_ssh(tmp_path) as server:
        config = tmp_path / "config"
        text = (CASES / "09-known-hosts-dev-null" / "config").read_text()
        config.write_text(f"{text}  Port {server.port}\n  IdentityFile {server.identity}\n")
        device = DeviceProfile("pi", address="lab-pi", ssh_config=str(config))
        with pytest.raises(HostKeyError, match=r"set `known_hosts = ") as caught:
            transports.connect(device)
    assert ">> /dev/null" not in str(caught.value)


def test_phone_with_a_blank_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    adb = tmp_path / "adb"
    adb.write_bytes((CASES / "17-adb-mdns-serial" / "adb").read_bytes())
    adb.chmod(0o755)
    monkeypatch.setenv("ADB", str(adb))
    monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.1:{lab.free_port()}")
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(tmp_path))
    serial = "adb-0A1B2C3D-xYz9Qw (2)._adb-tls-connect._tcp"
    assert main(["device", "add", "pixel", f"adb:{serial}"]) == 0, capsys.readouterr().err
    values = tomllib.loads((tmp_path / "devices" / "pixel.toml").read_text())
    assert (values["transport"], values["address"]) == ("adb", serial)
