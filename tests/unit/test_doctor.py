"""The doctor's judgements from what a probe read; tests/agent runs the whole doctor over SSH."""

from __future__ import annotations

import re
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from device_agents.care import doctor
from device_agents.care import doctor_checks as checks
from device_agents.care import doctor_hardware as hardware
from device_agents.care.diagnosis import Check
from device_agents.care.probe import Probe
from device_agents.care.removal import clean
from device_agents.errors import DeadlineExceeded
from profiles.schema import DeviceProfile
from tests import lab
from tests.fake_pi import FakePi

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from device_agents.care.diagnosis import Status

PI = DeviceProfile(
    "pi",
    address="pi.local",
    thermal_limit_celsius=75.0,
    cool_celsius=55.0,
    nominal_clock_khz=1_500_000,
)
CPUINFO = "processor : 0\nprocessor : 1\nRevision : d03115"


def probe(**sections: str) -> Probe:
    return Probe(MappingProxyType({"cpuinfo": CPUINFO, **sections}))


def flags(value: str, celsius: float) -> Probe:
    return probe(get_throttled=f"throttled={value}", measure_temp=f"temp={celsius}'C")


def both(value: str, celsius: float) -> tuple[Check, Check]:
    found = flags(value, celsius)
    return hardware.power_supply(found), hardware.throttling(found)


def test_a_weak_supply_is_not_taken_for_heat() -> None:
    supply, throttled = both("0x50005", 39.7)
    assert (supply.status, throttled.status) == ("fail", "fail")
    assert "under-voltage now (flags 0x50005)" in supply.found
    assert "change the power supply or its cable" in supply.advice
    assert "throttled now at 39.7 °C" in throttled.found
    assert "this comes from the power supply, not from heat" in throttled.advice


def test_heat_is_not_taken_for_a_weak_supply() -> None:
    supply, throttled = both("0x60002", 80.6)
    assert supply.status == "ok"
    assert throttled.status == "fail"
    assert "clock capped now at 80.6 °C (flags 0x60002)" in throttled.found
    assert throttled.advice.startswith("cool it")


def test_both_at_once_are_both_named() -> None:
    _, throttled = both("0x50005", 82.5)
    assert "change the power supply" in throttled.advice
    assert "it is hot as well: cool it" in throttled.advice
    assert "not from heat" not in throttled.advice


def test_sticky_flags_only_warn() -> None:
    supply, throttled = both("0x50000", 45.0)
    assert (supply.status, throttled.status) == ("warn", "warn")
    assert "since boot" in supply.found
    assert "a reboot clears" in supply.advice
    assert "a reboot clears" in throttled.advice
    assert [check.status for check in both("0x0", 45.0)] == ["ok", "ok"]


def test_capped_and_cool_with_a_good_supply_is_a_setting() -> None:
    _, throttled = both("0x20002", 45.0)
    assert "this is not heat" in throttled.advice
    assert "config.txt" in throttled.advice


def test_flags_that_appear_at_load_count() -> None:
    found = probe(get_throttled="throttled=0x0", load_throttled="throttled=0x10001")
    assert hardware.power_supply(found).status == "fail"


@pytest.mark.parametrize(
    ("said", "advice"),
    [("VCHI initialization failed", "usermod -aG video"), ("", "by its own package manager")],
)
def test_a_silent_firmware_is_unknown(said: str, advice: str) -> None:
    check = hardware.power_supply(probe(get_throttled=said))
    assert check.status == "unknown"
    assert advice in check.advice


def test_other_boards_have_no_flags() -> None:
    check = hardware.throttling(probe(cpuinfo="processor : 0"))
    assert (check.status, check.advice) == ("unknown", "")


@pytest.mark.parametrize(
    ("celsius", "status"), [(41.0, "ok"), (55.0, "ok"), (60.0, "warn"), (75.0, "fail")]
)
def test_temperature(celsius: float, status: str) -> None:
    check = hardware.temperature(PI, flags("0x0", celsius))
    assert check.status == status
    assert bool(check.advice) == (status != "ok")


@pytest.mark.parametrize(
    ("clock_hz", "status"),
    [(1_500_345_728, "ok"), (1_470_000_000, "ok"), (1_141_118_000, "fail"), (0, "unknown")],
)
def test_clock_at_load(clock_hz: int, status: str) -> None:
    assert hardware.clock(PI, probe(load_clock=f"frequency(0)={clock_hz}")).status == status


def test_a_sensor_that_cannot_be_right_is_shown_and_not_believed() -> None:
    check = hardware.temperature(PI, probe(zones="-273150 cpu-thermal\t-\t0\n417 ddr\t-\t1"))
    assert (check.status, check.found) == (
        "unknown",
        "no zone tells a possible one: cpu-thermal -273150, ddr 417",
    )
    assert hardware.temperature(PI, probe()).found == "no sensor"


def test_clock_of_a_board_without_nominal_clock_only_warns() -> None:
    found = probe(load_cpufreq="600000 1800000 600000 schedutil 0")
    generic = DeviceProfile("g", address="g")
    check = hardware.clock(generic, found)
    assert (check.status, check.found) == ("warn", "600 MHz at load instead of 1800 MHz")


@pytest.mark.parametrize(
    ("busy", "nominal", "status", "found"),
    [
        ("1 1416000 1416000", None, "ok", "1416 MHz at load of 1416 MHz"),
        ("1 1416000 1416000", 2_208_000, "ok", "1416 MHz at load of 1416 MHz"),
        ("1 816000 1416000", None, "warn", "816 MHz at load instead of 1416 MHz"),
        ("4 2208000 2208000", 2_208_000, "ok", "2208 MHz at load of 2208 MHz"),
        ("4 1200000 2208000", 2_208_000, "fail", "1200 MHz at load instead of 2208 MHz"),
        # No core of this board reaches what its profile says: that is no little core.
        ("4 2208000 2208000", 2_400_000, "fail", "2208 MHz at load instead of 2400 MHz"),
    ],
)
def test_each_core_is_compared_with_its_own_clock(
    busy: str, nominal: int | None, status: str, found: str
) -> None:
    lines = [f"408000 {1416000 if n < 4 else 2208000} 408000 schedutil {n}" for n in range(6)]
    number, clock, most = busy.split()
    lines[int(number)] = f"{clock} {most} 408000 schedutil {number}"
    device = DeviceProfile("rk", address="rk", nominal_clock_khz=nominal)
    check = hardware.clock(device, probe(load_cpufreq="\n".join(lines)))
    assert (check.status, check.found) == (status, found)


@pytest.mark.parametrize(
    ("governor", "status"), [("ondemand", "ok"), ("performance", "ok"), ("powersave", "warn")]
)
def test_governor(governor: str, status: str) -> None:
    check = hardware.governor(probe(cpufreq=f"600000 1500000 600000 {governor} 0"))
    assert check.status == status
    assert ("scaling_governor`" in check.advice) == (status == "warn")


@pytest.mark.parametrize(
    ("pythons", "status", "words"),
    [
        ("python3\t3.11.2\t64\t/usr/bin/python3", "ok", "3.11.2, 64-bit"),
        ("python3\t3.7.3\t32\t/p", "fail", "3.7 is too old"),
        ("", "fail", "install python3 on the device"),
        ("python3\t3.7.3\t64\t/p\npython3.11\t3.11.0\t64\t/q", "fail", 'python = "python3.11"'),
    ],
)
def test_python(pythons: str, status: str, words: str) -> None:
    check = checks.python(PI, probe(pythons=pythons))
    assert check.status == status
    assert words in f"{check.found} {check.advice}"


def test_benchmark_model_needs_no_python() -> None:
    device = DeviceProfile("phone", transport="adb", address="x", runtime="benchmark_model")
    assert checks.python(device, probe()).status == "ok"


def test_32_bit_system() -> None:
    found = probe(machine="aarch64", bits="32")
    check = checks.system(PI, found)
    assert check.status == "warn"
    assert "32-bit userland on a 64-bit kernel" in check.found
    assert "edgewright device setup pi --runtime tflite" in check.advice
    onnx = DeviceProfile("pi", address="x", runtime="onnx")
    assert checks.system(onnx, found).status == "fail"


@pytest.mark.parametrize(
    ("writable", "free_kb", "status", "words"),
    [
        ("yes", 20_000_000, "ok", ""),
        ("yes", 200_000, "warn", "free some space"),
        ("yes", 0, "fail", "free some space"),
        ("no", 20_000_000, "fail", "mount -o remount,rw /home/pi"),
    ],
)
def test_disk(writable: str, free_kb: int, status: str, words: str) -> None:
    found = probe(
        directory=f"/home/pi\n{writable}",
        disk="Filesystem 1024-blocks Used Available Capacity Mounted on\n"
        f"/dev/root 30000000 9000000 {free_kb} 30% /",
    )
    check = checks.disk(PI, found, "/home/pi/.cache/edgewright")
    assert check.status == status
    assert words in check.advice


@pytest.mark.parametrize(
    ("mount", "runtime", "status"),
    [
        ("/home\nrw,noexec", "benchmark_model", "fail"),
        ("/home\nrw,noexec", "fail", "fail"),
        ("/home\nrw,noexec", "ok", "warn"),
        ("/home\nrw,nosuid", "benchmark_model", ""),
        ("", "benchmark_model", ""),
    ],
)
def test_programs(mount: str, runtime: str, status: Status) -> None:
    tool = runtime == "benchmark_model"
    device = DeviceProfile("pi", address="x", runtime=runtime if tool else "tflite")
    told = Check("runtime", "ok" if tool or runtime == "ok" else "fail", "")
    found = checks.programs(device, probe(mount=mount), "/home/pi/edgewright", told)
    assert [check.status for check in found] == ([status] if status else [])
    assert all("/home is mounted noexec" in check.found for check in found)
    assert all("remount,exec /home" in check.advice for check in found)


@pytest.mark.parametrize(
    ("now", "status", "words"),
    [("1000", "ok", ""), ("1008", "ok", ""), ("400", "warn", "600 s behind"), ("", "unknown", "")],
)
def test_time(now: str, status: str, words: str) -> None:
    check = checks.time_of_day(probe(now=now), 1000.0)
    assert check.status == status
    assert words in check.found
    assert ("date -s @1000" in check.advice) == (status == "warn")


def test_other_load() -> None:
    assert checks.load(probe(loadavg="0.10 0 0")).status == "ok"
    assert checks.load(probe(loadavg="1.50 0 0")).status == "warn"
    before = "cpu  0 0 0 100\n9 (yes) R 1 1 1 0 -1 0 0 0 0 0 10 0 0 0"
    after = "cpu  100 0 0 200\n9 (yes) R 1 1 1 0 -1 0 0 0 0 0 110 0 0 0"
    watched = {"processes_before": before, "processes_after": after, "identity": "7\n1000"}
    check = checks.load(probe(**watched))
    assert (check.status, check.found) == ("warn", "yes (pid 9) 100% of a core")
    assert "kill" not in check.advice
    assert "`ps -fp 9`" in check.advice
    assert "somebody else's" in check.advice
    owned = "dr-xr-xr-x 9 {} pi 0 Jan 1 10:00 /proc/9\ndr-xr-xr-x 9 pi pi 0 Jan 1 10:00 /proc/7"
    other = checks.load(probe(**watched, owners=owned.format("octoprint")))
    assert other.found == "yes (pid 9, of octoprint) 100% of a core"
    assert "somebody else's" in other.advice
    mine = checks.load(probe(**watched, owners=owned.format("pi")))
    assert mine.found == "yes (pid 9, yours) 100% of a core"
    assert "somebody else's" not in mine.advice


def test_an_overridden_battery_is_not_judged() -> None:
    battery = "  (UPDATES STOPPED -- use 'reset' to restart)\n  present: true\n  status: 3\n"
    told = probe(battery=battery + "  level: 9\n  scale: 100\n", getprop="[a]: [b]")
    assert (told.sensors().battery_percent, told.sensors().charging) == (None, None)
    check = checks.power_mode(told)
    assert check is not None
    assert (check.status, check.found) == ("warn", "battery state is overridden")
    assert check.advice == "run `dumpsys battery reset` in its shell"


@pytest.mark.parametrize(
    ("os_release", "python", "disk"),
    [
        ("ID=debian", "`sudo apt install python3`", "`sudo apt clean`"),
        ('ID=raspbian\nID_LIKE="debian"', "`sudo apt install python3`", "`sudo apt clean`"),
        ("ID=tails\nID_LIKE='foo debian'", "`sudo apt install python3`", "`sudo apt clean`"),
        ("NAME=x\nID=alpine\nVERSION_ID=3.20", "`apk add python3`", "`apk cache clean`"),
        ("ID=openwrt", "`opkg update; opkg install python3`", ""),
        ('ID="rocky"', "`sudo dnf install python3`", "`sudo dnf clean all`"),
        ("ID=archarm\nID_LIKE=arch", "`sudo pacman -S python`", "`sudo pacman -Sc`"),
        ("ID=poky", "add python3 to the device's image", ""),
        ("ID=buildroot", "add python3 to the device's image", ""),
        ("ID=exotic", "by its own package manager", ""),
        ("", "by its own package manager", ""),
    ],
)
def test_packages_come_from_the_systems_own_manager(
    os_release: str, python: str, disk: str
) -> None:
    told = probe(os_release=os_release, disk="x 9 9 100000 1% /")
    assert python in checks.python(PI, told).advice
    advice = checks.disk(PI, told, "/d").advice
    assert disk in advice
    for told_advice in (checks.python(PI, told).advice, advice):
        assert ("apt" in told_advice) == ("apt" in python)


def test_phone_power() -> None:
    battery = "  USB powered: true\n  present: true\n  status: 2\n  level: 20\n  scale: 100\n"
    check = checks.power_mode(probe(battery=battery, low_power="1", getprop="[a]: [b]"))
    assert check is not None
    assert check.status == "warn"
    for words in ("battery saver", "charging", "battery at 20 %"):
        assert words in check.found
    assert "settings put global low_power 0" in check.advice
    assert checks.power_mode(probe()) is None


def test_leftovers() -> None:
    check = checks.leftovers(probe(leftovers="jobs/a.json\nincoming/b"), "/d")
    assert check.status == "warn"
    assert "rm -r /d/jobs /d/incoming" in check.advice


def test_a_device_that_cannot_be_reached_is_a_finding(tmp_path: Path) -> None:
    gone = DeviceProfile(
        "gone", address="127.0.0.1", port=lab.free_port(), known_hosts=str(tmp_path / "none")
    )
    diagnosis = doctor.examine(gone)
    assert not diagnosis.healthy
    link, *others = diagnosis.checks
    assert (link.name, link.status) == ("link", "fail")
    assert "127.0.0.1" in link.found
    assert link.advice
    assert {check.status for check in others} == {"unknown"}
    assert diagnosis.to_json()["healthy"] is False


class Taken:
    """Leases of a device that somebody else has; keeps the key that was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    @contextmanager
    def hold(self, device: str, *, timeout_s: float, name: str = "") -> Iterator[object]:
        self.asked.append(device)
        if timeout_s >= 0:
            raise DeadlineExceeded(f"device {name!r} is held by ann for 3 s; gave up")
        yield


def test_a_device_in_use_is_read_and_not_made_busy(tmp_path: Path) -> None:
    here = DeviceProfile("here", transport="local", directory=str(tmp_path / "device"))
    leases = Taken()
    diagnosis = doctor.examine(here, leases=leases, root=str(FakePi().write(tmp_path / "root")))
    found = {check.name: check for check in diagnosis.checks}
    assert found["load"].found == "device 'here' is held by ann for 3 s"
    assert "edgewright device status" in found["load"].advice
    for name in ("clock", "runtime"):
        assert (found[name].status, found[name].found) == (
            "unknown",
            "not looked at while it is in use",
        )
    assert found["temperature"].status == "ok"
    assert not (tmp_path / "device").exists()
    # The key that measurements have for it.
    assert len(leases.asked) == 1
    assert re.fullmatch("[0-9a-f]{16}", leases.asked[0])


def test_a_device_in_use_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "device" / "models").mkdir(parents=True)
    here = DeviceProfile("here", transport="local", directory=str(tmp_path / "device"))
    with pytest.raises(DeadlineExceeded, match="held by ann"):
        clean(here, leases=Taken())
    assert (tmp_path / "device" / "models").is_dir()
