"""What the samples of real phones do not show; those are in tests/published."""

from __future__ import annotations

import pytest

from device_agents import android
from device_agents.android import AdbDevice, Battery, Temperature
from device_agents.api import Completed
from device_agents.errors import LinkLost

BATTERY = """\
Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  status: 2
  present: true
  level: 80
  scale: 100
  temperature: 291
"""
THERMAL = """\
IsStatusOverride: false
Thermal Status: 2
Cached temperatures:
\tTemperature{mValue=99.5, mType=3, mName=skin, mStatus=0}
HAL Ready: true
HAL connection:
\tThermalHAL 2.0 connected: yes
Current temperatures from HAL:
\tTemperature{mValue=66.5, mType=0, mName=CPU big, 1, mStatus=0}
\tTemperature{mValue=41.0, mType=1, mName=GPU, mStatus=0}
\tTemperature{mValue=, mType=3, mName=broken, mStatus=0}
\tTemperature{mValue=77.0, mType=3, mName=cut
\tTemperature{mValue=38.25, mType=3, mName=skin, mStatus=1}
\tTemperature{mValue=0.0, mType=3, mName=off, mStatus=0}
\tTemperature{mValue=NaN, mType=3, mName=off, mStatus=0}
\tTemperature{mValue=-274.0, mType=0, mName=off, mStatus=0}
\tTemperature{mValue=4.2, mType=6, mName=vbat, mStatus=0}
\tTemperature{mValue=88.0, mType=8, mName=soc, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=0, mType=2, mName=fan}
Temperature static thresholds from HAL:
\tTemperatureThreshold{mType=3, mName=skin, mHotThrottlingThresholds=[NaN, 39.0]}
\tTemperature{mValue=95.0, mType=3, mName=not a temperature now, mStatus=0}
"""


def test_battery() -> None:
    assert android.parse_battery(BATTERY) == Battery(80, 29.1, charging=True, powered=True)


@pytest.mark.parametrize(
    "line",
    [
        "  (UPDATES STOPPED -- use 'reset' to restart)",
        "(UPDATES STOPPED)\r",
        "  (updates stopped -- use 'reset' to restart)",
        "UPDATES STOPPED",
    ],
)
def test_a_battery_that_another_tool_has_set_by_hand_is_unknown(line: str) -> None:
    head, _, rest = BATTERY.partition("\n")
    assert android.parse_battery(f"{head}\n{line}\n{rest}") == Battery(overridden=True)
    assert android.parse_battery(BATTERY + "  note: UPDATES STOPPED once\n").percent == 80


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("  temperature: 291\n", "  temperature: 29", "celsius"),
        ("291", "9999", "celsius"),
        ("291", "29,1", "celsius"),
        ("  temperature: 291\n", "  temperature: 291\n  temperature: 300\n", "celsius"),
        ("  temperature: 291\n", "  skin temperature: 291\n", "celsius"),
        ("  scale: 100\n", "", "percent"),
        ("  scale: 100\n", "  scale: 0\n", "percent"),
        ("level: 80", "level: 101", "percent"),
        ("  level: 80\n", "  Capacity level: 80\n", "percent"),
        ("present: true", "present: false", "percent"),
        ("present: true", "present: false", "celsius"),
        ("status: 2", "status: 0", "charging"),
        ("  status: 2\n", "  Health status: 2\n", "charging"),
    ],
)
def test_what_the_battery_does_not_tell_is_none(old: str, new: str, field: str) -> None:
    assert old in BATTERY
    assert getattr(android.parse_battery(BATTERY.replace(old, new)), field) is None


def test_thermal_takes_degrees_of_the_hal_alone() -> None:
    thermal = android.parse_thermal(THERMAL)
    assert (thermal.status, thermal.hal_ready) == (2, True)
    assert thermal.temperatures == (
        Temperature("CPU big, 1", 0, 66.5, 0),
        Temperature("GPU", 1, 41.0, 0),
        Temperature("skin", 3, 38.25, 1),
    )
    assert (thermal.soc_celsius, thermal.skin_celsius) == (66.5, 38.25)


def test_thermal_without_hal_has_no_degrees() -> None:
    thermal = android.parse_thermal(THERMAL.replace("HAL Ready: true", "HAL Ready: false"))
    assert (thermal.status, thermal.hal_ready) == (2, False)
    assert thermal.temperatures == ()
    assert (thermal.soc_celsius, thermal.skin_celsius) == (None, None)
    unknown = android.parse_thermal("Can't find service: thermalservice\n")
    assert (unknown.status, unknown.hal_ready, unknown.temperatures) == (None, None, ())


def test_properties() -> None:
    text = (
        "[a]: [1]\n[empty]: []\n[lines]: [one]\ntwo]\n[brackets]: [x [y]: [z]]\n[cut]: [never\n"
        "[b]: [2]\n\n"
    )
    assert android.parse_getprop(text) == {
        "a": "1",
        "empty": "",
        "lines": "one]\ntwo",
        "brackets": "x [y]: [z]",
        "b": "2",
    }
    assert android.parse_getprop("[a]: [1]\n[b]: [2") == {"a": "1"}
    built = android.parse_build_prop("# a=0\na=1\na=2\nb = x=y\nnothing\nro.build.version.sdk=3")
    assert built == {"a": "1", "b": "x=y"}
    assert android.phone({}).sdk is None


def test_devices_in_every_state() -> None:
    text = (
        "* daemon not running; starting now at tcp:5037\n* daemon started successfully\n"
        "List of devices attached\n"
        "emulator-5554          device product:sdk model:sdk device:emu transport_id:1\n"
        "127.0.0.1:5555         unauthorized transport_id:2\n"
        "device\toffline\n"
        "a b$(c)                recovery\n"
        "x                      host\n"
        "y                      no permissions; see [http://developer.android.com]\n"
        "z                      confused by something\n\n"
    )
    found = android.parse_devices(text)
    assert [(item.serial, item.state) for item in found] == [
        ("emulator-5554", "device"),
        ("127.0.0.1:5555", "unauthorized"),
        ("device", "offline"),
        ("a b$(c)", "recovery"),
        ("x", "host"),
        ("y", "no permissions"),
        ("z", "unknown"),
    ]
    assert found[0].facts["model"] == "sdk"
    assert found[-1] == AdbDevice("z", "unknown", "confused by something")
    assert android.parse_devices("error: device offline\nx device\n") == ()


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("error: device offline\n", "offline"),
        ("adb: error: failed to get feature set: device 'x y' not found", "absent"),
        ("adb: error: failed to get feature set: no devices/emulators found", "absent"),
        ("error: more than one device/emulator", "several"),
        ("failed to authenticate to 127.0.0.1:5555", "unauthorized"),
        ("error: insufficient permissions for device: udev", "no permissions"),
        ("error: closed", None),
    ],
)
def test_refusals(text: str, state: str | None) -> None:
    assert android.refusal(text) == state


class Phone:
    """Knows the power command, and can be gone for it."""

    def __init__(self, *, answer: str = "", gone_at: int = 99) -> None:
        self.said: list[str] = []
        self._answer = answer
        self._gone_at = gone_at

    def run(self, argv: object, *, stdin: bytes = b"", timeout_s: float) -> Completed:
        assert isinstance(argv, list)
        assert argv[:3] == ["cmd", "power", "set-fixed-performance-mode-enabled"]
        assert (stdin, timeout_s) == (b"", 10.0)
        if len(self.said) >= self._gone_at:
            raise LinkLost("gone")
        self.said.append(argv[3])
        return Completed(255 if self._answer else 0, self._answer.encode(), b"")


def test_performance_mode_is_off_afterwards() -> None:
    phone = Phone()
    with android.performance_mode(phone) as on:
        assert on
        assert phone.said == ["true"]
    assert phone.said == ["true", "false"]
    phone = Phone()
    with pytest.raises(ZeroDivisionError), android.performance_mode(phone):
        raise ZeroDivisionError
    assert phone.said == ["true", "false"]


def test_performance_mode_that_is_not_there_changes_nothing() -> None:
    phone = Phone(answer="Failed to set FIXED_PERFORMANCE mode")
    with android.performance_mode(phone) as on:
        assert not on
    assert phone.said == ["true"]


def test_link_lost_in_performance_mode() -> None:
    with (
        pytest.raises(ZeroDivisionError),
        android.performance_mode(Phone(gone_at=1)),
    ):
        raise ZeroDivisionError
    with pytest.raises(LinkLost), android.performance_mode(Phone(gone_at=1)):
        pass
