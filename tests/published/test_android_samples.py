"""Outputs of real phones, read to the values that a person reads in them; whole and damaged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from device_agents import android
from device_agents.android import AdbDevice, Battery, Phone, Thermal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples"
NO_PERMISSIONS = "see [http://developer.android.com/tools/device.html]"
ARM64 = ("arm64-v8a", "armeabi-v7a", "armeabi")

EXPECTED: dict[str, Any] = {
    "adb_devices/error_unauthorized.txt": (),
    "adb_devices/no_permissions_2019.txt": (
        AdbDevice(
            "009d1cd696d5194a",
            "no permissions",
            f"(user in plugdev group; are your udev rules wrong?); {NO_PERMISSIONS}",
        ),
    ),
    "adb_devices/no_permissions_2025.txt": (
        AdbDevice(
            "<ID removed>",
            "no permissions",
            f"(missing udev rules? user is in the plugdev group); {NO_PERMISSIONS}",
        ),
    ),
    "adb_devices/stf887_ok.txt": (
        AdbDevice(
            "3300febb52d314cb",
            "device",
            "",
            {
                "usb": "338690048X",
                "product": "on7xeltedd",
                "model": "SM_G610F",
                "device": "on7xelte",
                "transport_id": "3",
            },
        ),
    ),
    "adb_devices/weird_offline.txt": (
        AdbDevice("??????", "no permissions"),
        AdbDevice("c8ee0c84", "offline"),
    ),
    "dumpsys_battery/android15_clusterfuzz4327.txt": Battery(
        80, 18.0, charging=False, powered=True
    ),
    "dumpsys_battery/pixel_c_syzkaller79.txt": Battery(19, 27.5, charging=True, powered=True),
    "dumpsys_battery/samsung_mcloud150.txt": Battery(100, 30.9, charging=False, powered=True),
    # An excerpt that ends before the temperatures of the HAL: the cached 37 degrees are not it.
    "dumpsys_thermalservice/shield_cached_vs_hal_excerpt.txt": Thermal(0, hal_ready=True),
    "getprop/galaxy-s9-us.txt": Phone(
        "samsung", "SM-G960U", "starqltesq", "sdm845", "8.0.0", 26, ARM64
    ),
    "build_prop/galaxy-s8-us.txt": Phone(
        "samsung", "SM-G950U", "dreamqltesq", "msm8998", "7.0", 24, ARM64
    ),
    "build_prop/pixel-xl.txt": Phone("Google", "Pixel XL", "marlin", "msm8996", "7.1.1", 25, ARM64),
    "build_prop/xiaomi-redmi-note-4.txt": Phone(
        "Xiaomi", "Redmi Note 4", "mido", "msm8953", "7.0", 24, ARM64
    ),
}
PARSERS: dict[str, Callable[[str], Any]] = {
    "adb_devices": android.parse_devices,
    "dumpsys_battery": android.parse_battery,
    "dumpsys_thermalservice": android.parse_thermal,
    "getprop": lambda text: android.phone(android.parse_getprop(text)),
    "build_prop": lambda text: android.phone(android.parse_build_prop(text)),
}


def sample(name: str) -> tuple[Callable[[str], Any], str]:
    path = SAMPLES / name
    if not path.is_file():
        pytest.skip(f"{path} is not there: it holds the samples")
    return PARSERS[path.parent.name], path.read_bytes().decode()


def parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Name every value in a parsed result."""
    if isinstance(value, tuple):
        for item in value:
            yield from ((f"{item.serial}.{key}", found) for key, found in parts(item))
    else:
        yield from ((key, getattr(value, key)) for key in type(value).__dataclass_fields__)


def test_every_sample_is_read() -> None:
    if not SAMPLES.is_dir():
        pytest.skip(f"{SAMPLES} is not there: it holds the samples")
    found = {f"{kind}/{path.name}" for kind in PARSERS for path in (SAMPLES / kind).iterdir()}
    assert found == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_values(name: str) -> None:
    parse, text = sample(name)
    assert parse(text) == EXPECTED[name]
    assert parse(text.replace("\n", "\r\n")) == EXPECTED[name]
    if not name.startswith("adb_devices"):  # there, twice the text is twice the phones
        assert parse(text + text) == EXPECTED[name]


def test_unauthorized_is_recognised_in_the_error() -> None:
    _, text = sample("adb_devices/error_unauthorized.txt")
    assert android.refusal(text) == "unauthorized"


def test_number_of_properties() -> None:
    _, text = sample("getprop/galaxy-s9-us.txt")
    properties = android.parse_getprop(text)
    assert len(properties) == 739 == text.count("\n")
    assert properties["wifi.interface"] == "wlan0"
    _, text = sample("build_prop/pixel-xl.txt")
    assert len(android.parse_build_prop(text)) == 142


@pytest.mark.parametrize("name", EXPECTED)
def test_cut_anywhere_is_never_a_wrong_value(name: str) -> None:
    parse, text = sample(name)
    whole = dict(parts(EXPECTED[name]))
    # Every line; and every byte of what is short enough.
    lines = [at + 1 for at, char in enumerate(text) if char == "\n"]
    for at in lines if len(text) > 2000 else range(len(text)):
        for key, value in parts(parse(text[:at])):
            if key.endswith((".detail", ".facts", ".serial", ".state")):
                continue  # a cut word is shown to a person, and decides nothing
            assert value in (whole[key], None, "", ()), (at, key)


def test_cut_device_line_is_never_ready_by_mistake() -> None:
    for name in ("no_permissions_2019", "no_permissions_2025", "weird_offline"):
        parse, text = sample(f"adb_devices/{name}.txt")
        for at in range(len(text)):
            assert all(item.state != "device" for item in parse(text[:at]))


@pytest.mark.parametrize("name", [name for name in EXPECTED if name[0] != "a" and "/g" not in name])
def test_lines_left_out_or_spoilt_are_never_a_wrong_value(name: str) -> None:
    parse, text = sample(name)
    whole = dict(parts(EXPECTED[name]))
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        for other in ("", "\0\ufffd\n", line.replace(":", "="), f"x{line}"):
            changed = "".join([*lines[:number], other, *lines[number + 1 :]])
            for key, value in parts(parse(changed)):
                assert value in (whole[key], None, "", ()), (number, other, key)
