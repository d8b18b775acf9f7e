"""A phone over the real adb client and server: the same work, and all that goes wrong there."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from device_agents import android, transports
from device_agents.api import BenchProtocol, Measurement
from device_agents.care import probe
from device_agents.errors import (
    AuthenticationFailed,
    ConfigError,
    DeadlineExceeded,
    DeviceError,
    EdgewrightError,
    LinkLost,
    TransferFailed,
    Unreachable,
)
from device_agents.runner import Device
from device_agents.transports import _adb_client
from scripts.lab.adb_device import AdbDevice, Looks, adb_device
from tests import lab, lab_adb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from device_agents.api import Transport
    from tests.lab_adb import AdbServer

HOME = "/data/local/tmp"
LAB = Path(__file__).resolve().parents[2] / "scripts" / "lab"
NOTICED_S = 6.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdbServer]:
    with lab_adb.adb_server(tmp_path_factory.mktemp("adb")) as running:
        yield running


@pytest.fixture
def phone(server: AdbServer, tmp_path: Path) -> Iterator[AdbDevice]:
    with adb_device(tmp_path / "phone") as running:
        yield running
        server.adb("disconnect", running.serial)


@pytest.fixture
def transport(server: AdbServer, phone: AdbDevice) -> Iterator[Transport]:
    with closing(transports.connect(server.profile(phone))) as made:
        yield made


def until(condition: Any) -> None:
    """Wait for a state of another process."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def files(phone: AdbDevice) -> dict[str, int]:
    folder = phone.sandbox.root / "data/local/tmp"
    return {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def test_measure_through_the_agent(server: AdbServer, phone: AdbDevice, models: Path) -> None:
    profile = server.profile(phone, directory=f"{HOME}/it's a $(touch x) phone")
    with Device.open(profile) as device:
        result = device.measure(models / "small.tflite", BenchProtocol.quick())
        assert isinstance(result, Measurement), result
        assert result.median_ms > 0
        phone.vanish()
        phone.come_back()
        again = device.measure(models / "small.tflite", BenchProtocol.quick())
        assert isinstance(again, Measurement), again
    folder = phone.sandbox.root / "data/local/tmp"
    assert [path.name for path in folder.iterdir()] == ["it's a $(touch x) phone"]


def test_measurement_goes_on_without_the_link(
    server: AdbServer, phone: AdbDevice, models: Path
) -> None:
    running = phone.sandbox.root / "data/local/tmp/edgewright/jobs/running"
    done = threading.Event()
    cut_in: list[str] = []
    seen: set[str] = set()

    def watch() -> None:
        while not done.wait(0.005):
            job = running.read_text().strip() if running.exists() else ""
            if re.fullmatch(r"[0-9a-f]+ -\d+", job):
                seen.add(job)
                if not cut_in:
                    phone.vanish()
                    phone.come_back()
                    cut_in.append(job)

    thread = threading.Thread(target=watch)
    with Device.open(server.profile(phone)) as device:
        thread.start()
        result = device.measure(models / "large.tflite", BenchProtocol(max_s=0.5))
        done.set()
        thread.join()
    assert isinstance(result, Measurement), result
    assert cut_in
    # Each job was done by one process: none began again.
    assert len({job.split()[0] for job in seen}) == len(seen) >= 3


def test_device_that_stays_away_is_unreachable(server: AdbServer, phone: AdbDevice) -> None:
    profile = server.profile(phone)
    transport = transports.connect(profile)
    phone.vanish()
    with pytest.raises(LinkLost, match="offline"):
        transport.run(["true"], timeout_s=20)
    with pytest.raises(Unreachable) as caught:
        transports.connect(profile)
    assert caught.value.retryable
    phone.come_back()
    assert transports.connect(profile).run(["echo", "here"], timeout_s=20).stdout == b"here\n"


@pytest.mark.parametrize(
    ("state", "kind", "words"),
    [
        ("unauthorized", AuthenticationFailed, "does not trust this computer; unlock it and acc"),
        ("offline", Unreachable, "is offline for adb; plug it in again"),
        ("recovery", Unreachable, "runs its recovery system; choose `Reboot system now`"),
    ],
)
@pytest.mark.slow  # the adb client waits ten seconds for an offline phone
def test_states(
    server: AdbServer, tmp_path: Path, state: str, kind: type[DeviceError], words: str
) -> None:
    with adb_device(tmp_path / "phone", looks=Looks(state=state)) as phone:
        profile = server.profile(phone, connect_timeout_s=15.0)
        with pytest.raises(kind) as caught:
            transports.connect(profile)
        server.adb("disconnect", phone.serial)
    assert str(caught.value).startswith(f"device 'phone': {phone.serial} {words}")


def test_every_state_has_its_sentence() -> None:
    for state in ("no permissions", "bootloader", "sideload", "host", "unknown"):
        error = _adb_client.refusal("p", "0123", state, "why")
        assert str(error).startswith("device 'p': 0123 ")
        assert "`" in str(error)
        assert str(error).endswith("(adb says: why)")
    assert isinstance(_adb_client.refusal("p", "0123", "no permissions"), AuthenticationFailed)


def test_no_phone_wrong_phone_several_phones(tmp_path: Path) -> None:
    with lab_adb.adb_server(tmp_path) as server:
        with pytest.raises(Unreachable, match="adb knows no phone; plug one in"):
            transports.connect(server.profile())
        with adb_device(tmp_path / "one") as one, adb_device(tmp_path / "two") as two:
            server.adb("connect", one.serial)
            assert transports.connect(server.profile()).home == HOME
            with pytest.raises(Unreachable) as lost:
                transports.connect(server.profile(address="it's $(touch x)"))
            known = f"{one.serial} (device)"
            assert f'adb knows no "it\'s $(touch x)"; it has {known};' in str(lost.value)
            server.adb("connect", two.serial)
            with pytest.raises(ConfigError, match="several phones") as several:
                transports.connect(server.profile())
            assert one.serial in str(several.value)
            assert two.serial in str(several.value)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:{port}", "Connection refused; is it on this network"),
        ("no such $(host):5555", "failed to resolve host"),
    ],
)
def test_addresses_that_lead_nowhere(server: AdbServer, address: str, words: str) -> None:
    where = address.format(port=lab.free_port())
    with pytest.raises(Unreachable) as caught:
        transports.connect(server.profile(address=where))
    assert words in str(caught.value)


@pytest.mark.parametrize("value", ["5037", ":5037", "here:", "here:0", "here:99999", "here:x"])
def test_bad_server_address(server: AdbServer, value: str) -> None:
    with pytest.raises(ConfigError, match=f"`adb_server` in the profile is '{value}', which is"):
        transports.connect(server.profile(adb_server=value))


def test_no_adb_program(server: AdbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADB", "/nowhere/adb")
    with pytest.raises(ConfigError, match="'/nowhere/adb', which is not there; install it"):
        transports.connect(server.profile())


def test_server_is_started_on_this_computer_alone(
    server: AdbServer, phone: AdbDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    own = lab_adb.AdbServer(tmp_path, lab.free_port())
    with pytest.raises(Unreachable, match=r"no adb server: .*; start it there, or correct"):
        transports.connect(server.profile(phone, address="x", adb_server=f"127.0.0.2:{own.port}"))
    try:
        made = transports.connect(own.profile(phone))
        assert made.run(["true"], timeout_s=20).rc == 0
    finally:
        own.adb("kill-server")


@contextmanager
def talking_server(answers: dict[bytes, bytes]) -> Iterator[int]:
    """Run what looks like an adb server to one client after the other."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                link, _ = listening.accept()
            except OSError:
                return
            with link:
                asked = link.recv(1 << 10)[4:]
                said = answers.get(asked, b"")
                link.sendall(b"OKAY%04x%s" % (len(said), said))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(listening.getsockname()[1])
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def test_server_of_another_version_is_left_alone(server: AdbServer) -> None:
    asked = {b"host:version": b"0028"}
    with talking_server(asked) as port, pytest.raises(ConfigError) as caught:
        transports.connect(server.profile(adb_server=f"127.0.0.1:{port}"))
    assert f"the adb server at 127.0.0.1:{port} has version 40" in str(caught.value)
    assert "`adb kill-server`" in str(caught.value)


def test_phone_that_this_user_may_not_open(server: AdbServer) -> None:
    line = b"009d1cd696d5194a       no permissions (missing udev rules?); see [http://x]\n"
    asked = {b"host:version": b"0029", b"host:devices-l": line}
    with talking_server(asked) as port:
        profile = server.profile(address="009d1cd696d5194a", adb_server=f"127.0.0.1:{port}")
        with pytest.raises(AuthenticationFailed) as caught:
            transports.connect(profile)
    assert "009d1cd696d5194a may not be opened by this user; install the udev" in str(caught.value)
    assert "(adb says: (missing udev rules?); see [http://x])" in str(caught.value)


def test_android_without_exit_codes(server: AdbServer, tmp_path: Path) -> None:
    with adb_device(tmp_path / "old", looks=Looks(features="cmd")) as phone:
        made = transports.connect(server.profile(phone))
        with pytest.raises(ConfigError, match="older than 7"):
            made.run(["true"], timeout_s=20)
        server.adb("disconnect", phone.serial)


def test_vanishing_is_noticed_at_once(transport: Transport, phone: AdbDevice) -> None:
    waiting = transport.open(["sh", "-c", "echo ready; sleep 60"])
    assert waiting.read_line(timeout_s=20, limit_bytes=100) == b"ready\n"
    caught: list[Exception] = []

    def run() -> None:
        try:
            transport.run(["sh", "-c", f"echo x > {HOME}/running; sleep 60"], timeout_s=60)
        except EdgewrightError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: "running" in files(phone))
    phone.vanish()
    since = time.monotonic()
    with pytest.raises(LinkLost, match="adb says: offline"):
        waiting.read_line(timeout_s=60, limit_bytes=100)
    thread.join()
    assert time.monotonic() - since < NOTICED_S
    assert isinstance(caught[0], LinkLost)
    assert "sh ended without an exit code; adb says that 127.0.0.1" in str(caught[0])
    waiting.close()


def test_silent_phone_meets_the_deadline(transport: Transport, phone: AdbDevice) -> None:
    phone.stall()
    with pytest.raises(DeadlineExceeded, match=r"true did not end within 0\.5 s"):
        transport.run(["true"], timeout_s=0.5)
    phone.resume()
    assert transport.run(["true"], timeout_s=20).rc == 0


@pytest.mark.parametrize("direction", ["put", "get"])
@pytest.mark.parametrize("fault", ["stall", "vanish"])
@pytest.mark.slow
def test_link_that_breaks_in_mid_transfer(
    transport: Transport, phone: AdbDevice, tmp_path: Path, direction: str, fault: str
) -> None:
    # Stopped in the middle, so that the fault always comes before the end.
    phone.faults.stall_send_after = phone.faults.stall_receive_after = 1 << 20
    (tmp_path / "source").write_bytes(os.urandom(4 << 20))
    inside = phone.sandbox.root / "data/local/tmp"
    (inside / "model").write_bytes(b"old")
    (inside / "there").write_bytes(os.urandom(4 << 20))
    broken: list[float] = []

    def breaks() -> None:
        until(lambda: any(path.stat().st_size for path in folder.glob("*.part-*")))
        broken.append(time.monotonic())
        getattr(phone, fault)()

    moves = {
        "put": (str(tmp_path / "source"), f"{HOME}/model"),
        "get": (f"{HOME}/there", str(tmp_path / "model")),
    }
    folder = inside if direction == "put" else tmp_path
    thread = threading.Thread(target=breaks)
    thread.start()
    with pytest.raises(LinkLost, match="could not copy"):
        getattr(transport, direction)(*moves[direction])
    thread.join()
    assert time.monotonic() - broken[0] < NOTICED_S
    assert (inside / "model").read_bytes() == b"old"
    assert {path.name for path in tmp_path.iterdir()} == {"source", "phone"}
    phone.resume()


def test_transfer_that_is_too_slow_ends(
    transport: Transport, phone: AdbDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The phone lives and the file does not come on.
    monkeypatch.setattr("device_agents.transports.adb._COMMAND_TIMEOUT_S", 0.5)
    monkeypatch.setattr("device_agents.transports.adb._CHECK_EVERY_S", 0.05)
    phone.faults.stall_send_after = 1000
    (tmp_path / "source").write_bytes(b"x" * 5000)
    told: list[tuple[int, int]] = []
    with pytest.raises(LinkLost, match="slower than 100 kB/s"):
        transport.put(
            str(tmp_path / "source"), f"{HOME}/model", on_sent=lambda *sent: told.append(sent)
        )
    assert told
    assert all(0 <= there <= 1000 and size == 5000 for there, size in told)


@pytest.mark.parametrize(
    ("fault", "words"),
    [("full_after", "No space left on device"), ("flip_after", "it arrived damaged")],
)
def test_file_that_does_not_arrive_whole_is_never_there(
    transport: Transport, phone: AdbDevice, tmp_path: Path, fault: str, words: str
) -> None:
    target = phone.sandbox.root / "data/local/tmp" / "model"
    target.write_bytes(b"old")
    (tmp_path / "source").write_bytes(os.urandom(300_000))
    setattr(phone.faults, fault, 100_000)
    with pytest.raises(TransferFailed) as caught:
        transport.put(str(tmp_path / "source"), f"{HOME}/model")
    assert str(caught.value).endswith(words)
    assert files(phone) == {"model": 3}
    assert target.read_bytes() == b"old"


def test_reasons_of_failed_transfers(
    transport: Transport, phone: AdbDevice, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    (phone.sandbox.root / "data/local/tmp/file").write_bytes(b"x")
    (phone.sandbox.root / "data/local/tmp/folder").mkdir()
    for remote, words in (
        (f"{HOME}/file/below", "Not a directory"),
        (f"{HOME}/folder", "a folder has that name"),
    ):
        with pytest.raises(TransferFailed, match=words):
            transport.put(str(source), remote)
    for remote in (f"{HOME}/folder", f"{HOME}/missing"):
        with pytest.raises(TransferFailed, match="there is no such file"):
            transport.get(remote, str(tmp_path / "back"))
    with pytest.raises(TransferFailed, match="No such file or directory"):
        transport.get(f"{HOME}/file", str(tmp_path / "no folder" / "back"))
    assert files(phone) == {"file": 1}


def test_size_is_checked_where_nothing_hashes(
    transport: Transport, phone: AdbDevice, tmp_path: Path
) -> None:
    few = phone.sandbox.root / "few"
    few.mkdir()
    for name in ("cat", "mv", "rm", "sh", "wc"):
        (few / name).symlink_to(shutil.which(name) or name)
    phone.sandbox.path = str(few)
    (tmp_path / "source").write_bytes(b"12345")
    transport.put(str(tmp_path / "source"), f"{HOME}/model")
    transport.get(f"{HOME}/model", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == b"12345"
    phone.faults.flip_after = 0  # the same size: only a hash sees it
    transport.put(str(tmp_path / "source"), f"{HOME}/model")
    phone.faults.lose_after = 0
    with pytest.raises(TransferFailed, match="it arrived damaged"):
        transport.put(str(tmp_path / "source"), f"{HOME}/model")


def test_command_past_its_deadline_is_ended_on_the_phone(
    transport: Transport, phone: AdbDevice
) -> None:
    script = f"sleep 70 & echo $! > {HOME}/child; echo $$ > {HOME}/parent; sleep 80"
    with pytest.raises(DeadlineExceeded):
        transport.run(["sh", "-c", script], timeout_s=1.0)
    folder = phone.sandbox.root / "data/local/tmp"
    for name in ("child", "parent"):
        pid = int((folder / name).read_text())
        until(functools.partial(gone, pid))


def gone(pid: int) -> bool:
    """Whether it has ended, waited for or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_binary_input_and_output(transport: Transport) -> None:
    data = bytes(range(256)) * 500 + b"\r\n~.\n\r"
    done = transport.run(["cat"], stdin=data, timeout_s=20)
    assert (done.rc, done.stdout, done.stderr) == (0, data, b"")
    done = transport.run(["sh", "-c", "kill -9 $$"], timeout_s=20)
    assert done.rc == 137
    assert transport.run(["no such program"], timeout_s=20).rc == 127


def test_performance_mode(transport: Transport, phone: AdbDevice) -> None:
    said = phone.sandbox.root / "answers/performance"
    with android.performance_mode(transport) as on:
        assert on
        assert said.read_text() == "true\n"
    assert said.read_text() == "true\nfalse\n"
    (phone.sandbox.root / "answers/no_modes").touch()
    with android.performance_mode(transport) as on:
        assert not on
    assert said.read_text() == "true\nfalse\n"


def test_probe_of_a_phone(transport: Transport) -> None:
    found = probe.read(transport)
    sensors, facts = found.sensors(), found.facts()
    assert (sensors.soc_celsius, sensors.skin_celsius, sensors.thermal_status) == (43.0, 32.5, 0)
    assert (sensors.battery_percent, sensors.charging) == (95, False)
    assert found.is_android
    assert facts["model"] == "edgewright Lab Phone"


def test_a_port_that_is_taken_is_one_sentence(phone: AdbDevice, tmp_path: Path) -> None:
    argv = [sys.executable, str(LAB / "adb-device"), "--root", str(tmp_path / "second")]
    argv += ["--port", str(phone.port)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"adb-device: cannot listen on port {phone.port}: Address")
    assert done.stderr.count("\n") == 1


def test_one_command_starts_a_phone(server: AdbServer, tmp_path: Path) -> None:
    (tmp_path / "battery").write_text("  present: true\n  level: 7\n  scale: 100\n")
    argv = [sys.executable, str(LAB / "adb-device"), "--root", str(tmp_path / "phone")]
    argv += ["--port", "0", "--model", "Other", "--battery", str(tmp_path / "battery")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        assert words[:2] == ["adb", "connect"]
        made = transports.connect(server.profile(address=words[2]))
        told = made.run(["dumpsys", "battery"], timeout_s=20).stdout.decode()
        assert android.parse_battery(told).percent == 7
        assert "model:Other" in server.adb("devices", "-l")
        server.adb("disconnect", words[2])
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
