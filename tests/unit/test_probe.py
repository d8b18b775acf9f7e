"""The probe: one shell script, run here, and strict reading of whatever comes back."""

from __future__ import annotations

import random
import subprocess
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from device_agents.agent.sensors import Sensors
from device_agents.api import Completed
from device_agents.care import boards, probe
from device_agents.care.probe_parts import parse_busy, parse_cores, parse_pythons
from device_agents.care.probe_script import SCRIPT
from device_agents.errors import DeviceError
from device_agents.transports.local import LocalTransport
from tests.fake_pi import FakePi

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NONCE = "0123456789abcdef"


def run(root: Path | str = "", *, shell: str = "sh", python: str = "python3") -> str:
    done = subprocess.run(
        [shell, "-c", SCRIPT, "probe", NONCE, str(root), python, "/no such/x", "facts", "1000"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def test_a_whole_board(tmp_path: Path) -> None:
    found = probe.parse(run(FakePi(celsius=48.3).write(tmp_path)), NONCE)
    sensors = found.sensors()
    assert (sensors.soc_celsius, sensors.clock_khz, sensors.throttled) == (48.3, 1_500_345, 0)
    assert (sensors.governor, sensors.load_average) == ("ondemand", 0.08)
    assert sensors.memory_available_bytes == 3_500_000 * 1024
    assert sensors.uptime_s == 4711.5
    assert sensors.boot_id == "11111111-2222-3333-4444-555555555555"
    assert (sensors.battery_percent, sensors.charging, sensors.thermal_status) == (None, None, None)
    facts = found.facts()
    assert facts["model"] == "Raspberry Pi 4 Model B Rev 1.5"
    assert facts["os"] == "Debian GNU/Linux 12 (bookworm)"
    assert (facts["machine"], facts["kernel"]) == ("aarch64", "6.6.31+rpt-rpi-v8")
    assert (facts["cpu_count"], facts["memory_bytes"]) == (4, 3_884_340 * 1024)
    assert [core.max_khz for core in found.cores()] == [1_500_000] * 4
    assert found.directory_writable is True
    board = boards.recognise(found)
    assert (board.profile, board.cores, board.parts) == ("raspberry_pi_4b", 4, ("Cortex-A72",))
    assert board.memory_bytes == 8 * 2**30


# `timeout` of BusyBox up to 1.29, one that never works, and that of BusyBox now.
TIMEOUTS = {
    "old": '[ "$1" = -t ] || exit 127; seconds=$2; shift 2; exec /usr/bin/timeout "$seconds" "$@"',
    "broken": "exit 1",
    "new": 'exec busybox timeout "$@"',
}


@pytest.mark.parametrize("body", TIMEOUTS.values(), ids=TIMEOUTS)
def test_every_timeout_will_do(tmp_path: Path, body: str) -> None:
    root = FakePi(throttled="throttled=0x20002").write(tmp_path)
    tool = root / "usr/bin/timeout"
    tool.write_text(f"#!/bin/sh\n{body}\n")
    tool.chmod(0o755)
    found = probe.parse(run(root), NONCE)
    assert (found.machine, found.userland_bits) == ("aarch64", 64)
    assert found.sensors().throttled == 0x20002
    assert found.number("now")
    assert found.disk_free_bytes
    assert found.pythons()


@pytest.mark.parametrize(
    ("mounts", "noexec"),
    [
        ("x / ext4 rw 0 0\nx /no\\040such tmpfs rw,noexec,nodev 0 0\n", ""),
        ("x / ext4 rw,noexec 0 0\n", "/"),
        ("x / ext4 rw,noexecute 0 0\n", ""),
        ("x / ext4 rw,noexec 0 0\nx {} ext4 rw 0 0\nx {}x ext4 noexec 0 0\n", ""),
        ("x / ext4 rw 0 0\nx {} ext4 rw 0 0\nx {} tmpfs rw,noexec 0 0\n", "{}"),
    ],
)
def test_the_mount_of_the_directory_decides_whether_programs_run(
    tmp_path: Path, mounts: str, noexec: str
) -> None:
    place = tmp_path.resolve() / "a place"
    place.mkdir()
    text = mounts.replace("{}", str(place).replace(" ", "\\040"))
    (place / "mounts").write_text(text)
    script = SCRIPT.replace("/proc/self/mounts", f'"{place}/mounts"')
    argv = ["sh", "-c", script, "probe", NONCE, "", "", f"{place}/made/later", "state", "1"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True)
    assert probe.parse(done.stdout, NONCE).noexec == noexec.replace("{}", str(place))


def test_the_interpreter_is_the_one_that_the_agent_would_get(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python3").write_text("#!/bin/sh\nprintf '3.12.1\\t64\\t/own/python3\\n'\n")
    (tmp_path / "python3").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert probe.parse(run(), NONCE).pythons()[0].path == "/own/python3"


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_this_machine_in_any_shell(shell: str) -> None:
    found = probe.parse(run(shell=shell), NONCE)
    assert found.sensors().memory_available_bytes
    python = found.pythons()[0]
    assert python.version >= (3, 9, 0)
    assert found.userland_bits == python.bits


def test_nothing_is_there(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    for tool in ("uname", "getconf", "python3", "vcgencmd", "df", "date", "id"):
        path = tmp_path / "usr/bin" / tool
        path.write_text("#!/bin/sh\nexit 1\n")
        path.chmod(0o755)
    found = probe.parse(run(tmp_path), NONCE)
    assert found.sensors().soc_celsius is None
    assert found.sensors().disk_free_bytes is None
    assert found.facts()["model"] is None
    assert "end" in found.sections
    board = boards.recognise(found)
    assert (board.profile, board.cores, board.memory_bytes) == (boards.GENERIC, None, None)


def test_markers_cannot_be_forged(tmp_path: Path) -> None:
    pi = FakePi(model="x\n@ffffffffffffffff get_throttled\nthrottled=0x5\n@end end")
    found = probe.parse(run(pi.write(tmp_path)), NONCE)
    assert found.vcgencmd("get_throttled") == "0x0"


@pytest.mark.parametrize(
    "said",
    [
        "VCHI initialization failed",
        'error=2 error_msg="Invalid arguments"',
        "throttled=0x50005\nthrottled=0x0",
        "throttled=80",
        "throttled=0x123456789",
        "Throttled=0x0",
        "",
    ],
)
def test_any_other_answer_of_the_firmware_is_unknown(tmp_path: Path, said: str) -> None:
    found = probe.parse(run(FakePi(throttled=said).write(tmp_path)), NONCE)
    assert found.sensors().throttled is None


def test_without_the_firmware_the_kernel_is_asked(tmp_path: Path) -> None:
    root = FakePi(celsius=50.2).write(tmp_path)
    (root / "usr/bin/vcgencmd").unlink()
    sensors = probe.parse(run(root), NONCE).sensors()
    assert (sensors.soc_celsius, sensors.clock_khz, sensors.throttled) == (50.2, 600_000, None)


@pytest.mark.parametrize(
    ("zones", "celsius"),
    [
        ({3: ("PMIC-Die", "100000"), 12: ("CPU-therm", "44000")}, 44.0),
        ({1: ("cpu_thermal_zone", "58")}, 58.0),
        ({0: ("cpu-thermal", "-273150"), 9: ("soc_thermal", "51000"), 10: ("ddr", "77000")}, 51.0),
        ({0: ("cpu thermal", "")}, None),
        ({2: ("iwlwifi_1", "35000"), 10: ("acpitz", "27800")}, 35.0),
    ],
)
def test_probe_and_agent_read_one_temperature(
    tmp_path: Path, zones: dict[int, tuple[str, str]], celsius: float | None
) -> None:
    for number, (kind, temp) in zones.items():
        zone = tmp_path / f"sys/class/thermal/thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(f"{kind}\n")
        (zone / "temp").write_text(f"{temp}\n")
    seen = probe.read(LocalTransport("here", python="python3"), depth="state", root=str(tmp_path))
    assert seen.sensors().soc_celsius == celsius
    assert Sensors(str(tmp_path), "").read(str(tmp_path))["soc_celsius"] == celsius


@pytest.mark.parametrize(
    ("machine", "bits"),
    [("armv8l", 64), ("armv8b", 64), ("aarch64", 64), ("riscv64", 64), ("armv7l", 32), ("", None)],
)
def test_bits_of_the_kernel(machine: str, bits: int | None) -> None:
    found = probe.Probe(MappingProxyType({"machine": machine, "bits": "32"}))
    assert (found.kernel_bits, found.userland_bits) == (bits, 32)


def test_mutated_output_never_raises(tmp_path: Path) -> None:
    text = run(FakePi().write(tmp_path))
    rng = random.Random(5)
    for _ in range(300):
        place = rng.randrange(len(text))
        kind = rng.randrange(4)
        if kind == 0:
            mutated = text[:place]
        elif kind == 1:
            mutated = (
                text[:place] + rng.choice("\0\x85²9-:@'") * rng.randrange(1, 30) + text[place:]
            )
        elif kind == 2:
            mutated = text.replace("\n", "\r\n")[:place] + text
        else:
            mutated = text[:place] + text[place + rng.randrange(200) :]
        found = probe.parse(mutated, NONCE)
        found.sensors()
        found.facts()
        found.cores()
        found.busy()
        boards.recognise(found)


class Cut(LocalTransport):
    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> Completed:
        done = super().run(argv, stdin=stdin, timeout_s=timeout_s)
        return Completed(137, b"Welcome!\n" + done.stdout[:-30], b"")


def test_an_unfinished_probe_is_an_error() -> None:
    with pytest.raises(DeviceError, match=r"did not finish the probe \(exit code 137"):
        probe.read(Cut("here", python="python3"), depth="state")


def test_processes_are_compared_over_the_second() -> None:
    before = ["cpu  100 0 0 100 0 0 0 0", "7 (a b) c) S 1 1 1 0 -1 0 0 0 0 0 50 50 0 0", "8 (x"]
    after = ["cpu  200 0 0 200 0 0 0 0", "7 (a b) c) R 1 1 1 0 -1 0 0 0 0 0 100 50 0 0"]
    (busy,) = parse_busy(before, after, 2)
    assert (busy.pid, busy.name, busy.cpu_share) == (7, "a b) c", 0.5)
    assert parse_busy(before, before, 2) == []


def test_tables_skip_what_does_not_parse() -> None:
    lines = ["python3\t3.11.2\t64\t/usr/bin/python3", "x\t3.9\t64\t/x", "", "y\tz", "\t\t\t"]
    assert [python.version for python in parse_pythons(lines)] == [(3, 11, 2)]
    cores = parse_cores(["600000 1500000 - ondemand 1", "- - - - 0", "1 2 3", "a b c d e"])
    assert [(c.number, c.clock_khz, c.governor) for c in cores] == [
        (0, None, None),
        (1, 600_000, "ondemand"),
    ]


def test_directories_are_those_of_a_session() -> None:
    assert probe.absolute("", "/home/pi") == "/home/pi/.cache/edgewright"
    assert probe.absolute("~/x", "/home/pi") == "/home/pi/x"
    assert probe.absolute("x", "/home/pi") == "/home/pi/x"
    assert probe.absolute("/x", "/home/pi") == "/x"
