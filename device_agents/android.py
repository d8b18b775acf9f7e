"""What Android's own tools print, as values; and the power mode in which its figures repeat.

Each parser takes the text as the tool wrote it and never fails: what is missing, cut short, said
twice with two values or out of range is None, never 0. A number without a bracket behind it counts
only on a whole line, since `temperature: 18` may be the beginning of 180. Formats differ by version
and vendor, hence patterns are anchored: `Capacity level: 3` is not `level: 3`.
"""

from __future__ import annotations

import math
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from device_agents.errors import DeviceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from device_agents.api import Completed

# Of `dumpsys battery`; 3 is discharging, 4 not charging, 5 full.
_CHARGING = 2
_STATUSES = range(1, 6)
_NUMBER = re.compile(r"\s*(level|scale|status|temperature): (-?\d{1,9})\s*$")
_FLAG = re.compile(r"\s*(present|AC powered|USB powered|Wireless powered): (true|false)\s*$")

_OVERRIDDEN = re.compile(r"^\s*\(?UPDATES STOPPED\b", re.IGNORECASE | re.MULTILINE)

_HAL_SECTION = "Current temperatures from HAL:"
_TEMPERATURE = re.compile(r"Temperature\{mValue=([^,{}]+), mType=(\d+), mName=(.*), mStatus=(\d)\}")
_THERMAL_STATUS = re.compile(r"Thermal Status: ([0-6])\s*$")
_HAL_READY = re.compile(r"HAL Ready: (true|false)\s*$")
_CPU, _GPU, _SKIN, _NPU = 0, 1, 3, 9
# 6, 7 and 8 are the battery's voltage, current and percentage limits.
_NOT_DEGREES = (6, 7, 8)

_PROPERTY = re.compile(r"\[([^\]]+)\]: \[(.*)")
_STATES = (
    "device|offline|unauthorized|authorizing|connecting|recovery|rescue|sideload|bootloader|"
    "host|no permissions|no device|unknown"
)
_DEVICE_LINE = re.compile(rf"(.+?)\s+({_STATES})(?![\w:-])(.*)")
_REFUSALS = (
    ("device unauthorized", "unauthorized"),
    ("failed to authenticate", "unauthorized"),
    ("device offline", "offline"),
    ("device still authorizing", "authorizing"),
    ("device still connecting", "connecting"),
    ("insufficient permissions", "no permissions"),
    ("more than one device", "several"),
    ("no devices/emulators found", "absent"),
)
_MODE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class AdbDevice:
    """A line of `adb devices -l`.

    Attributes:
        serial: as adb shows it; may be garbled.
        state: a known state such as `device`, `offline`, `unauthorized`, `no permissions`; or
            `unknown`.
        detail: what adb adds to the state, such as the reason for `no permissions`.
        facts: product, model, device, usb, transport_id, as far as told.
    """

    serial: str
    state: str
    detail: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Battery:
    """State of a phone's battery; `powered` is about the cable, `charging` about the current.

    Attributes:
        overridden: a tool has set values by hand (`dumpsys battery unplug`, `set`), and they stay
            until `dumpsys battery reset`: then nothing of the true state is known.
    """

    percent: int | None = None
    celsius: float | None = None
    charging: bool | None = None
    powered: bool | None = None
    overridden: bool = False


@dataclass(frozen=True, slots=True)
class Temperature:
    """One record of the thermal HAL; `kind` is Android's type, 0 CPU, 1 GPU, 3 skin."""

    name: str
    kind: int
    celsius: float
    status: int


@dataclass(frozen=True, slots=True)
class Thermal:
    """What the thermal service says now; its cached temperatures are stale and left out.

    Attributes:
        status: 0 none, 1 light, 2 moderate, 3 severe, 4 critical, 5 emergency, 6 shutdown.
        hal_ready: False where no temperature can be had.
        temperatures: of the HAL, in degrees.
    """

    status: int | None = None
    hal_ready: bool | None = None
    temperatures: tuple[Temperature, ...] = ()

    @property
    def skin_celsius(self) -> float | None:
        """The hottest of the surface sensors."""
        return self._hottest(_SKIN)

    @property
    def soc_celsius(self) -> float | None:
        """The hottest of the processors."""
        return self._hottest(_CPU, _GPU, _NPU)

    def _hottest(self, *kinds: int) -> float | None:
        found = [item.celsius for item in self.temperatures if item.kind in kinds]
        return max(found, default=None)


@dataclass(frozen=True, slots=True)
class Phone:
    """What a phone is; empty text and None: not told."""

    manufacturer: str
    model: str
    device: str
    platform: str
    release: str
    sdk: int | None
    abis: tuple[str, ...]


def parse_devices(text: str) -> tuple[AdbDevice, ...]:
    """Read `adb devices`, with or without `-l`."""
    _, header, lines = text.partition("List of devices attached")
    found = []
    for line in lines.splitlines() if header else ():
        match = _DEVICE_LINE.fullmatch(line.strip())
        if match:
            serial, state, rest = match.groups()
            facts = dict(re.findall(r"(\w+):(\S+)", rest)) if state != "no permissions" else {}
            detail = "" if facts else rest.strip()
            found.append(AdbDevice(serial, state, detail, facts))
        elif line.strip() and not line.startswith("*"):
            serial, _, rest = line.strip().partition("\t" if "\t" in line.strip() else " ")
            found.append(AdbDevice(serial, "unknown", rest.strip()))
    return tuple(found)


def refusal(text: str) -> str | None:
    """Return the state for which adb refused a command, from its error text; None: another."""
    if re.search(r"device '.*' not found", text):
        return "absent"
    return next((state for words, state in _REFUSALS if words in text), None)


def parse_battery(text: str) -> Battery:
    """Read `dumpsys battery`."""
    if _OVERRIDDEN.search(text):
        return Battery(overridden=True)
    values = _once(_NUMBER, text)
    flags = _once(_FLAG, text)
    level, scale, status, tenths = (
        None if found is None else int(found)
        for found in map(values.get, ("level", "scale", "status", "temperature"))
    )
    powered = [found for name, found in flags.items() if name != "present"]
    supplied = True if "true" in powered else False if len(powered) == 3 else None
    if flags.get("present") != "true":
        # Boards without a battery report 0 for everything, in place of nothing.
        return Battery(powered=supplied)
    percent = None
    if level is not None and scale and 0 <= level <= scale:
        percent = round(100 * level / scale)
    celsius = None if tenths is None else _degrees(tenths / 10)
    charging = status == _CHARGING if status in _STATUSES else None
    return Battery(percent, celsius, charging, supplied)


def parse_thermal(text: str) -> Thermal:
    """Read `dumpsys thermalservice`; incomplete records are skipped."""
    lines = text.splitlines()
    ready = {match[1] for line in lines if (match := _HAL_READY.match(line))}
    statuses = {int(match[1]) for line in lines if (match := _THERMAL_STATUS.match(line))}
    records = []
    section = ""
    for line in lines:
        if not line.strip():
            continue
        match = _TEMPERATURE.fullmatch(line.strip())
        if match is None:
            # A broken record is no heading: the section goes on behind it.
            section = section if "{" in line else line.strip()
        elif section == _HAL_SECTION:
            celsius = _degrees(_float(match[1]))
            if celsius is not None and int(match[2]) not in _NOT_DEGREES:
                records.append(Temperature(match[3], int(match[2]), celsius, int(match[4])))
    return Thermal(
        statuses.pop() if len(statuses) == 1 else None,
        ready == {"true"} if ready else None,
        # The same text twice is the same sensors.
        tuple(dict.fromkeys(records)) if "false" not in ready else (),
    )


def parse_getprop(text: str) -> dict[str, str]:
    """Read `getprop`: `[name]: [value]`, where a value may have several lines."""
    records: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        match = _PROPERTY.match(line)
        if match:
            records.append((match[1], [match[2]]))
        elif records:
            records[-1][1].append(line)
    found: dict[str, str] = {}
    for name, lines in records:
        value = "\n".join(lines).rstrip()
        if value.endswith("]"):  # else it was cut short
            found.setdefault(name, value[:-1])
    return found


def parse_build_prop(text: str) -> dict[str, str]:
    """Read a build.prop file: `name=value`; of two the first counts, as in Android itself."""
    found: dict[str, str] = {}
    for line in _whole(text):
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            found.setdefault(name.strip(), value.strip())
    return found


def phone(properties: Mapping[str, str]) -> Phone:
    """Return what the properties say of the phone."""
    abis = properties.get("ro.product.cpu.abilist", "")
    sdk = properties.get("ro.build.version.sdk", "")
    return Phone(
        properties.get("ro.product.manufacturer", ""),
        properties.get("ro.product.model", ""),
        properties.get("ro.product.device", ""),
        properties.get("ro.board.platform", ""),
        properties.get("ro.build.version.release", ""),
        int(sdk) if sdk.isdecimal() else None,
        tuple(abi for abi in abis.split(",") if abi),
    )


class Shell(Protocol):
    """The part of a `Transport` that runs a command."""

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float) -> Completed:
        """See `Transport.run`."""


@contextmanager
def performance_mode(shell: Shell) -> Iterator[bool]:
    """Hold the clocks at a level that the phone can keep, for a `with` block; yield whether it can.

    It cannot before Android 11, or where the power HAL lacks the mode. Android does not tell
    whether the mode was on before, so it is switched off afterwards, as it is after a boot. If the
    block raises, and the link is gone by then, it stays on until the next measurement ends.
    """
    changed = _set_mode(shell, "true")
    try:
        yield changed
    except BaseException:
        if changed:
            with suppress(DeviceError):
                _set_mode(shell, "false")
        raise
    if changed:
        _set_mode(shell, "false")


def _set_mode(shell: Shell, enabled: str) -> bool:
    argv = ["cmd", "power", "set-fixed-performance-mode-enabled", enabled]
    done = shell.run(argv, timeout_s=_MODE_TIMEOUT_S)
    # Success is silent; a refusal, or the help of a version without it, says something.
    return done.rc == 0 and not (done.stdout + done.stderr).strip()


def _whole(text: str) -> list[str]:
    """Return the lines that have their end."""
    return text[: text.rfind("\n") + 1].splitlines()


def _once(pattern: re.Pattern[str], text: str) -> dict[str, str]:
    """Return what is said once, or twice alike."""
    found: dict[str, set[str]] = {}
    for line in _whole(text):
        if match := pattern.match(line):
            found.setdefault(match[1], set()).add(match[2])
    return {name: values.pop() for name, values in found.items() if len(values) == 1}


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _degrees(celsius: float) -> float | None:
    # A sensor that is switched off says exactly 0, or something absurd.
    return celsius if -40 <= celsius <= 150 and celsius != 0 else None
