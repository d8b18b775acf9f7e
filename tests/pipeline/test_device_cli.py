"""edgewright device add, doctor, setup and remove, as a user types them, over real SSH."""

from __future__ import annotations

import getpass
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from device_agents.care.address import Address, parse
from device_agents.errors import ConfigError
from pipeline.cli.main import main
from tests import lab
from tests.waiting_lines import Lines
from tests.wheelhouse import stub_litert

if TYPE_CHECKING:
    from collections.abc import Iterator

RECIPE = Path(__file__).parents[2] / "recipes" / "digits.toml"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.LoopbackSsh]:
    with lab.loopback_ssh(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture(autouse=True)
def devices(server: lab.LoopbackSsh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the user a home whose known_hosts has the server; return the folder of profiles."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_text(server.known_hosts.read_text())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path / "config" / "devices"


def said(capsys: pytest.CaptureFixture[str], code: int, *args: str) -> str:
    assert main(["device", *args]) == code
    captured = capsys.readouterr()
    return captured.err if code and not captured.out else captured.out


def add(server: lab.LoopbackSsh, name: str = "bench", *more: str) -> list[str]:
    address = f"{getpass.getuser()}@127.0.0.1:{server.port}"
    return ["add", name, address, "--identity-file", str(server.identity), *more]


def test_from_add_to_remove(
    server: lab.LoopbackSsh,
    devices: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    python = str(bare / "bin" / "python")
    out = said(capsys, 0, *add(server, "bench", "--python", python))
    path = devices / "bench.toml"
    assert f"wrote {path}, which extends generic_linux_ssh" in out
    assert out.splitlines()[-1] == "next: edgewright device doctor bench"
    values = tomllib.loads(path.read_text())
    assert values.pop("description")
    assert values == {
        "extends": "generic_linux_ssh",
        "transport": "ssh",
        "address": "127.0.0.1",
        "port": server.port,
        "user": getpass.getuser(),
        "identity_file": str(server.identity),
        "python": python,
    }
    # Nothing was put on the device, which has this very home.
    assert not (tmp_path / ".cache").exists()
    path.write_text(f'{path.read_text()}directory = "{tmp_path / "device"}"\n')

    found = json.loads(said(capsys, 3, "doctor", "bench", "--json"))
    by_name = {check["name"]: check for check in found["checks"]}
    assert by_name["runtime"]["status"] == "fail"
    assert by_name["runtime"]["advice"] == "run `edgewright device setup bench`"

    stub_litert(tmp_path / "wheels")
    lines = Lines(monkeypatch)
    out = said(capsys, 0, "setup", "bench", "--wheels", str(tmp_path / "wheels"))
    assert any(re.fullmatch(r"setting up bench: \d+ kB sent", line) for line in lines.shown)
    assert out.splitlines()[0] == "bench: tflite is ai_edge_litert 9.8.7"
    values = tomllib.loads(path.read_text())
    assert values["python"].startswith(f"{tmp_path / 'device'}/runtime/")
    out = said(capsys, 0, "setup", "bench")
    assert out.splitlines()[0] == "bench: tflite is ai_edge_litert 9.8.7, there already"

    out = said(capsys, 0, "doctor", "bench")
    assert "tflite: ai_edge_litert 9.8.7" in out

    out = said(capsys, 0, "remove", "bench")
    assert f"removed from {tmp_path / 'device'}: agent, models" in out
    assert not (tmp_path / "device").exists()
    assert not path.exists()


def test_a_device_that_cannot_be_reached_gets_no_profile(
    devices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = str(lab.free_port())
    sentence = said(capsys, 3, "add", "gone", "127.0.0.1", "--port", port)
    assert sentence.count("\n") == 1
    assert "127.0.0.1" in sentence
    assert not devices.exists()


def test_unknown_host_key_gets_no_profile(
    server: lab.LoopbackSsh,
    devices: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / ".ssh" / "known_hosts").write_text("")
    assert "ssh-keyscan" in said(capsys, 3, *add(server))
    assert not devices.exists()


def test_a_taken_name_is_kept_unless_replaced(
    server: lab.LoopbackSsh, devices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    devices.mkdir(parents=True)
    (devices / "bench.toml").write_text('extends = "local"\n')
    assert "is there already" in said(capsys, 2, *add(server))
    assert (devices / "bench.toml").read_text() == 'extends = "local"\n'
    said(capsys, 0, *add(server, "bench", "--replace"))
    assert "generic_linux_ssh" in (devices / "bench.toml").read_text()


def test_offline(devices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sentence = said(capsys, 2, "add", "attic", "pi.local", "--offline")
    assert "--extends" in sentence
    assert "raspberry_pi_4b" in sentence
    arguments = ("pi@pi.local", "--offline", "--extends", "raspberry_pi_4b")
    assert "next: edgewright device doctor attic" in said(capsys, 0, "add", "attic", *arguments)
    assert tomllib.loads((devices / "attic.toml").read_text()) == {
        "extends": "raspberry_pi_4b",
        "description": "Raspberry Pi 4 Model B, 64-bit system",
        "transport": "ssh",
        "address": "pi.local",
        "user": "pi",
    }
    sentence = said(capsys, 2, "add", "b", "pi.local", "--offline", "--extends", "raspberry_pi_6")
    assert "no device 'raspberry_pi_6' known (did you mean 'raspberry_pi_5" in sentence


@pytest.mark.parametrize(
    "bad", ["a b", "$(touch x)", "../up", "'", '"', "-x", "", "x" * 65, "a/b", "a\nb"]
)
def test_bad_names_and_addresses(
    bad: str, tmp_path: Path, devices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "must be letters" in said(capsys, 2, "add", "--", bad, "pi.local")
    if bad != "x" * 65:
        assert "is not user@host:port" in said(capsys, 2, "add", "--", "good", bad)
    if bad not in ("x" * 65, "a b"):
        assert "is not adb:SERIAL" in said(capsys, 2, "add", "--", "good", f"adb:{bad}")
    assert not devices.exists()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("pi4", Address("ssh", "pi4")),
        ("pi@10.0.0.7:2222", Address("ssh", "10.0.0.7", "pi", 2222)),
        ("ssh://pi@pi.local:22/", Address("ssh", "pi.local", "pi", 22)),
        ("[::1]:8022", Address("ssh", "::1", "", 8022)),
        ("fe80::1%eth0", Address("ssh", "fe80::1%eth0")),
        ("u0_a1@::1", Address("ssh", "::1", "u0_a1")),
        ("adb:R58M123", Address("adb", "R58M123")),
        ("adb:10.0.0.5:5555", Address("adb", "10.0.0.5:5555")),
        ("adb:adb-R5C-aB (2)._adb-tls-connect._tcp",) * 2,
        ("adb:Tablet of Ann",) * 2,
        ("adb:[fe80::a0:1%eth0.5]:5555",) * 2,
        ("adb:[2001:db8::7]:37123",) * 2,
        ("pi@[fe80::1%enx0011223344ff]:22", Address("ssh", "fe80::1%enx0011223344ff", "pi", 22)),
    ],
)
def test_addresses(text: str, address: Address | str) -> None:
    if isinstance(address, str):
        address = Address("adb", address.removeprefix("adb:"))
    assert parse(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "adb: a",
        "adb:a ",
        "adb:[x]:1",
        "adb:[::1]:",
        "pi:0",
        "pi:70000",
        "pi:",
        "pi:x",
        "@pi",
        "a@b@c d",
        "pi;ls",
    ],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"address '.*' is not"):
        parse(text)


def test_serial_by_transport() -> None:
    assert parse("10.0.0.5:5555", transport="adb") == Address("adb", "10.0.0.5:5555")
    with pytest.raises(ConfigError, match="address 'adb:x' is not "):
        parse("adb:x", transport="ssh")


def test_replacing_keeps_what_the_user_added(
    devices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    devices.mkdir(parents=True)
    path = devices / "attic.toml"
    written = """\
# My board; the fan is loud.
extends = "raspberry_pi_5"
address = "old.local"
user = "ann"
nominal_clock_khz = 900000
threads = 3  # one is left for the camera
cpus = [
    1, 2,
    3,
]
known_hosts = "~/.ssh/of # boards"
"""
    path.write_text(written)
    arguments = ["--offline", "--extends", "raspberry_pi_4b", "--replace"]
    out = said(capsys, 0, "add", "attic", "new.local", *arguments)
    assert "kept from before: threads, cpus, known_hosts; not kept: user, nominal_clock" in out
    text = path.read_text()
    assert text.startswith(
        "# My board; the fan is loud.\nthreads = 3  # one is left for the camera\n"
        'cpus = [\n    1, 2,\n    3,\n]\nknown_hosts = "~/.ssh/of # boards"\nextends = '
    )
    values = tomllib.loads(text)
    assert values["address"] == "new.local"
    assert values["known_hosts"] == "~/.ssh/of # boards"
    assert not {"user", "nominal_clock_khz"} & set(values)
    # At the same address its user stays, too.
    path.write_text(written)
    said(capsys, 0, "add", "attic", "old.local", *arguments)
    assert tomllib.loads(path.read_text())["user"] == "ann"
    path.write_text("threads = = 3\n")
    assert "attic.toml: cannot be read as TOML" in said(capsys, 2, "add", "attic", "x", *arguments)


def test_replacing_a_device_that_is_there(
    server: lab.LoopbackSsh, devices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    devices.mkdir(parents=True)
    (tmp_path / "elsewhere").write_text(server.known_hosts.read_text())
    (tmp_path / ".ssh" / "known_hosts").unlink()
    path = devices / "bench.toml"
    path.write_text(
        f'address = "127.0.0.1"\nport = {server.port}\nthreads = 1\ncpus = [4096]\n'
        f'python = "/gone"\nknown_hosts = "{tmp_path}/elsewhere"\n'
    )
    out = said(capsys, 0, *add(server, "bench", "--replace"))
    assert "kept from before: threads, known_hosts; not kept: cpus, python" in out
    values = tomllib.loads(path.read_text())
    assert (values["threads"], values["known_hosts"]) == (1, f"{tmp_path}/elsewhere")
    assert values.get("python") != "/gone"


def test_two_ports_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    sentence = said(capsys, 2, "add", "x", "pi.local:22", "--port", "23")
    assert "the address says port 22 and --port says 23" in sentence
    assert "'--port'" in said(capsys, 2, "add", "x", "pi.local", "--port", "-5")


def test_doctor_of_an_unreachable_device(devices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    devices.mkdir(parents=True)
    port = lab.free_port()
    (devices / "gone.toml").write_text(f'address = "127.0.0.1"\nport = {port}\n')
    out = said(capsys, 3, "doctor", "gone")
    assert out.startswith("gone: not reached\nfail    link")
    assert "->" in out
    assert "unknown temperature" in out


def test_remove_of_an_unreachable_device_needs_force(
    devices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    devices.mkdir(parents=True)
    path = devices / "gone.toml"
    path.write_text(f'address = "127.0.0.1"\nport = {lab.free_port()}\n')
    assert "--force only the profile" in said(capsys, 3, "remove", "gone")
    assert path.exists()
    assert f"removed {path}" in said(capsys, 0, "remove", "gone", "--force")
    assert not path.exists()
    assert "no device 'local' of your own; it is built in" in said(capsys, 2, "remove", "local")


def test_setup_of_a_template_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "it is built in" in said(capsys, 2, "setup", "raspberry_pi_4b")


def test_a_phone_needs_no_setup_and_has_no_agent(
    devices: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said before anything is sent to it: this one is not even there."""
    devices.mkdir(parents=True)
    (devices / "phone.toml").write_text('extends = "generic_android_adb"\naddress = "X"\n')
    assert "name your binary as `benchmark_binary`" in said(capsys, 2, "setup", "phone")
    model = tmp_path / "model.tflite"
    model.write_bytes(b"")
    deploy = ["deploy", str(model), "--device", "phone", "--name", "a", "--version", "1"]
    for command in (["run", str(RECIPE), "--device", "phone"], deploy):
        assert main(command) == 2
        sentence = capsys.readouterr().err
        assert f"`edgewright {command[0]}` needs the agent; reach the phone by Termux" in sentence
        assert sentence.count("\n") == 1
