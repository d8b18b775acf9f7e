"""Sensors against files and a tool that stand in for a Raspberry Pi's."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from device_agents.agent import sensors as state
from device_agents.agent.facts import device_id, userland_bits
from device_agents.agent.sensors import Sensors

if TYPE_CHECKING:
    from pathlib import Path

TOOL = """#!/bin/sh
echo call >> {folder}/calls
case "$*" in
  measure_temp) cat {folder}/temp;;
  "measure_clock arm") cat {folder}/clock;;
  get_throttled) cat {folder}/throttled;;
esac
"""


@pytest.fixture
def board(tmp_path: Path) -> Path:
    files = {
        "sys/class/thermal/thermal_zone0/type": "pmic-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "30000\n",
        "sys/class/thermal/thermal_zone1/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone1/temp": "48312\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
        "sys/devices/system/cpu/cpu3/cpufreq/scaling_cur_freq": "2400000\n",
        "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0\n",
        "sys/class/thermal/cooling_device0/cur_state": "0\n",
        "sys/class/thermal/cooling_device0/max_state": "9\n",
        "sys/class/thermal/cooling_device1/type": "pwm-fan\n",
        "sys/class/thermal/cooling_device1/cur_state": "3\n",
        "sys/class/thermal/cooling_device1/max_state": "4\n",
        "proc/sys/kernel/random/boot_id": "abc\n",
        "proc/meminfo": "MemTotal: 4 kB\nMemAvailable:    2048 kB\n",
        "proc/uptime": "12.50 3.00\n",
        "temp": "temp=61.2'C\n",
        "clock": "frequency(0)=2400033792\n",
        "throttled": "throttled=0x50005\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    tool = tmp_path / "vcgencmd"
    tool.write_text(TOOL.format(folder=tmp_path))
    tool.chmod(0o755)
    return tmp_path


def read(board: Path, tool: str = "", **options: Any) -> dict[str, Any]:
    return Sensors(str(board), tool).read(str(board), **options)


def test_files_alone(board: Path) -> None:
    reading = read(board)
    assert reading["soc_celsius"] == 48.312
    assert reading["clock_khz"] == 2_400_000
    assert reading["governor"] == "ondemand"
    assert reading["throttled"] is None
    assert reading["memory_available_bytes"] == 2048 * 1024
    assert (reading["boot_id"], reading["uptime_s"]) == ("abc", 12.5)
    assert reading["fan_percent"] == 75


def test_the_boards_own_tool_goes_first(board: Path) -> None:
    reading = read(board, str(board / "vcgencmd"))
    assert reading["soc_celsius"] == 61.2
    assert reading["clock_khz"] == 2_400_033
    assert reading["throttled"] == 0x50005


@pytest.mark.parametrize(
    "text",
    [
        "VCHI initialization failed",
        'error=2 error_msg="Invalid arguments"',
        'error=1 error_msg="Command not registered"',
        "",
        "throttled=",
        "throttled=0x",
        "throttled=0x0 and more",
    ],
)
def test_any_other_answer_is_unknown_not_zero(board: Path, text: str) -> None:
    for name in ("temp", "clock", "throttled"):
        (board / name).write_text(text)
    reading = read(board, str(board / "vcgencmd"))
    assert reading["throttled"] is None
    assert (reading["soc_celsius"], reading["clock_khz"]) == (48.312, 2_400_000)


def test_tool_answers_are_cached_when_asked(board: Path) -> None:
    sensors = Sensors(str(board), str(board / "vcgencmd"))
    sensors.read(str(board), max_age_s=100.0)
    (board / "throttled").write_text("throttled=0x0\n")
    assert sensors.read(str(board), max_age_s=100.0)["throttled"] == 0x50005
    assert (board / "calls").read_text().count("call") == 3
    assert sensors.read(str(board))["throttled"] == 0


def test_board_without_anything(tmp_path: Path) -> None:
    reading = read(tmp_path, "/no/such/tool")
    unknown = ("soc_celsius", "clock_khz", "governor", "throttled", "boot_id", "uptime_s")
    assert [reading[name] for name in unknown] == [None] * 6
    assert reading["fan_percent"] is None


def test_clock_at_load_is_that_of_the_cpu_in_use(board: Path) -> None:
    sensors = Sensors(str(board), str(board / "vcgencmd"))
    assert sensors.at_load([3]) == {
        "soc_celsius": 61.2,
        "clock_khz": 2_400_000,
        "throttled": 0x50005,
    }
    assert sensors.clock_khz([0]) == 1_500_000
    assert sensors.clock_khz([2]) is None


def put(root: Path, **files: str | int) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def core(root: Path, number: int, clock_khz: int, max_khz: int) -> None:
    put(
        root / f"sys/devices/system/cpu/cpu{number}/cpufreq",
        scaling_cur_freq=clock_khz,
        cpuinfo_max_freq=max_khz,
    )


@pytest.mark.parametrize(
    ("busy", "clock_khz", "cpus", "told"),
    [
        (5, 2_208_000, [], (2_208_000, 2_208_000)),
        (5, 2_208_000, [4, 5], (2_208_000, 2_208_000)),
        (1, 1_416_000, [], (1_416_000, 1_416_000)),
        # Slowed to a half, and still the one that works: the others idle below a third.
        (1, 708_000, [], (708_000, 1_416_000)),
        (5, 1_200_000, [4, 5], (1_200_000, 2_208_000)),
    ],
)
def test_the_core_that_worked_tells_the_clock_and_its_own_maximum(
    tmp_path: Path, busy: int, clock_khz: int, cpus: list[int], told: tuple[int, int]
) -> None:
    for number in range(6):
        most = 1_416_000 if number < 4 else 2_208_000
        core(tmp_path, number, clock_khz if number == busy else 408_000, most)
    sensors = Sensors(str(tmp_path), "")
    found = sensors.busiest(cpus)
    assert found is not None
    assert (found.clock_khz, found.max_khz) == told
    assert sensors.clock_khz(cpus) == told[0]
    assert sensors.fastest_khz() == 2_208_000


def test_another_programs_busy_core_is_not_taken_for_ours(tmp_path: Path) -> None:
    core(tmp_path, 0, 900_000, 1_800_000)
    core(tmp_path, 7, 2_400_000, 2_400_000)
    assert Sensors(str(tmp_path), "").clock_khz([]) == 2_400_000
    fields = " ".join(["R", *["0"] * 35, "0", "0"])
    put(tmp_path, proc__self__task__11__stat=f"11 (a (b) c) {fields}")
    assert Sensors(str(tmp_path), "").clock_khz([]) == 900_000


def test_zone_and_fan_numbers_may_have_gaps(tmp_path: Path) -> None:
    put(tmp_path / "sys/class/thermal/thermal_zone0", type="Battery-therm", temp=31000)
    put(tmp_path / "sys/class/thermal/thermal_zone7", type="CPU-therm", temp=44500)
    put(tmp_path / "sys/class/thermal/cooling_device4", type="pwm-fan", cur_state=1, max_state=4)
    reading = read(tmp_path)
    assert (reading["soc_celsius"], reading["fan_percent"]) == (44.5, 25)


def test_a_zone_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path / "sys/class/thermal/thermal_zone0", type="cpu-thermal", temp="")
    # A read that fails, as with EAGAIN while the sensor is off.
    (tmp_path / "sys/class/thermal/thermal_zone1/temp").mkdir(parents=True)
    assert read(tmp_path)["soc_celsius"] is None
    put(tmp_path / "sys/class/thermal/thermal_zone2", type="soc-thermal", temp=39000)
    assert read(tmp_path)["soc_celsius"] == 39.0


def test_an_absurd_answer_of_the_firmware_is_no_temperature(board: Path) -> None:
    (board / "temp").write_text("temp=0.0'C\n")
    assert read(board, str(board / "vcgencmd"))["soc_celsius"] == 48.312


def test_a_job_reads_the_sensors_of_its_device(board: Path) -> None:
    simulated = Sensors(str(board), "")
    with state.use(simulated):
        assert state.current() is simulated
    assert state.current() is not simulated


def test_identity_is_the_boards_serial_before_the_cards_machine_id(tmp_path: Path) -> None:
    root = f"{tmp_path}/"
    assert device_id(root) == ""
    for name in ("etc", "proc/device-tree"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "etc/machine-id").write_text("0123456789abcdef\n")
    card = device_id(root)
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nSerial\t\t: 0000000000000000\n")
    assert device_id(root) == card
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nSerial\t\t: 10000000deadbeef\n")
    board_serial = device_id(root)
    (tmp_path / "proc/device-tree/serial-number").write_text("10000000deadbeef\0")
    assert device_id(root) == board_serial != card
    assert len(card) == len(board_serial) == 16


def test_userland_is_that_of_the_interpreter() -> None:
    assert userland_bits() == (64 if sys.maxsize > 2**32 else 32)
