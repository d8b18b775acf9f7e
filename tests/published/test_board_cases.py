"""Boards from public reports, rebuilt as trees of files, against what a person reads in them."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import pytest

from device_agents import android
from device_agents.agent.sensors import Sensors
from device_agents.care import doctor_hardware, probe
from device_agents.transports.local import LocalTransport
from profiles.schema import DeviceProfile

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"


def case(name: str) -> Path:
    path = CASES / name
    if not path.exists():
        pytest.skip(f"{path} is not there: it holds the published cases")
    return path


@pytest.mark.parametrize(
    ("name", "celsius"),
    [
        ("13-jetson-zones/root", 34.0),
        ("14-zone-units/degrees", 65.0),
        ("14-zone-units/zero", None),
        ("14-zone-units/minus", None),
        ("14-zone-units/x86", 52.0),
        ("14-zone-units/normal", 65.0),
    ],
)
def test_temperature(name: str, celsius: float | None) -> None:
    root = str(case(name))
    seen = probe.read(LocalTransport("here", python="python3"), depth="state", root=root)
    assert seen.sensors().soc_celsius == celsius
    assert Sensors(root, "").read("/")["soc_celsius"] == celsius


def test_a_battery_set_by_hand() -> None:
    told = android.parse_battery(case("18-battery-updates-stopped/battery.txt").read_text())
    assert told == android.Battery(overridden=True)


def test_clock_of_two_kinds_of_core() -> None:
    sensors = Sensors(str(case("15-big-little-clock/root")), "")
    assert sensors.clock_khz([]) == sensors.clock_khz([4, 5, 6, 7]) == 2_400_000
    text = case("15-big-little-clock/load_little.txt").read_text()
    seen = probe.Probe(MappingProxyType({"load_cpufreq": text}))
    for nominal in (None, 2_400_000):
        device = DeviceProfile("rk", address="rk", nominal_clock_khz=nominal)
        assert doctor_hardware.clock(device, seen).status == "ok"
