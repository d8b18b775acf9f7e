"""A device profile: typed data read from one TOML file.

An unknown key is an error that names the nearest known one. A file may say `extends = "name"` and
then holds only what differs from that device.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from device_agents import bounded
from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

EXTENDS = "extends"


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """How to reach a device and what is known of it; satisfies `api.DeviceDescription`.

    Attributes:
        name: the file's name without `.toml`.
        description: one line for lists.
        transport: a file name of `device_agents/transports/`.
        address: over SSH a host name, address or alias of the SSH configuration; over adb the
            serial that `adb devices` shows, or host:port; empty for the local device and for
            templates.
        port: of the SSH server; 0 means what the SSH configuration says, else 22.
        user: login name; empty means the current user's.
        identity_file: private key; empty means the SSH agent and the usual keys.
        known_hosts: empty means ~/.ssh/known_hosts.
        ssh_config: the SSH configuration to read; empty means ~/.ssh/config.
        adb_server: host:port of the adb server; empty means adb's own default.
        python: interpreter on the device; empty means python3 there, or this one when local.
        directory: where agent and models live on the device; empty means ~/.cache/edgewright.
        runtime: default runtime, a file name of `device_agents/agent/runtimes/`.
        benchmark_binary: on this computer, the user's benchmark_model for the device's system;
            for the runtime `benchmark_model` only.
        xnnpack: False switches the XNNPACK delegate off in the tflite runtimes.
        min_delegated_share: a figure of which less than this share of the ops was run by a
            delegate is refused, 0 to 1.
        threads: default number of runtime threads.
        cpus: CPU numbers that inference is pinned to; empty means no pinning.
        channel_multiple: channel counts that the device likes are multiples of this.
        thermal_limit_celsius: a measurement that ends hotter is invalid; None means no limit.
        cool_celsius: a measurement begins no hotter than this; None means at any temperature.
        canary: False where other work runs beside a measurement and is no fault, as on the computer
            that one works on: no canary is then run (docs/measuring.md).
        nominal_clock_khz: clock at load; a measurement that ends below is invalid; None: unknown.
        connect_timeout_s: deadline of each step of connecting.
    """

    name: str
    description: str = ""
    transport: str = "ssh"
    address: str = ""
    port: int = 0
    user: str = ""
    identity_file: str = ""
    known_hosts: str = ""
    ssh_config: str = ""
    adb_server: str = ""
    python: str = ""
    directory: str = ""
    runtime: str = "tflite"
    benchmark_binary: str = ""
    xnnpack: bool = True
    min_delegated_share: float = 0.0
    threads: int = 1
    cpus: tuple[int, ...] = ()
    channel_multiple: int = 8
    thermal_limit_celsius: float | None = None
    cool_celsius: float | None = None
    canary: bool = True
    nominal_clock_khz: int | None = None
    connect_timeout_s: float = 10.0

    @property
    def is_template(self) -> bool:
        """True when an address is still missing: such a profile is there to be extended."""
        return self.transport in ("ssh", "adb") and not self.address


_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "int | None": (int,),
    "float": (int, float),
    "float | None": (int, float),
    "tuple[int, ...]": (list,),
}
_WORDS = {
    "str": "a text",
    "bool": "true or false",
    "int": "an integer",
    "int | None": "an integer",
    "tuple[int, ...]": "a list of integers",
}
_TYPES = {item.name: str(item.type) for item in fields(DeviceProfile)}
KEYS = tuple(name for name in _TYPES if name != "name")


def read_toml(path: Path) -> dict[str, Any]:
    """Return the file's checked values; raises ConfigError naming the file and the key."""
    try:
        values = bounded.toml(bounded.read_text(path, limit_bytes=bounded.TOML_BYTES))
    except bounded.Unreadable:
        raise
    except bounded.Undecodable as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error
    for key, value in values.items():
        if key not in (*KEYS, EXTENDS):
            raise ConfigError(f"{path}: unknown key {key!r}; {_nearest(key)}")
        _check(path, key, value)
    return values


def profile_from(name: str, values: Mapping[str, Any], *, source: Path) -> DeviceProfile:
    """Make the profile from checked values; raises ConfigError for values out of range."""
    values = dict(values)
    if "cpus" in values:
        values["cpus"] = tuple(values["cpus"])
    profile = DeviceProfile(name=name, **values)
    _check_ranges(profile, source)
    return profile


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key, (*KEYS, EXTENDS), n=1)
    known = f"known keys are {', '.join((EXTENDS, *KEYS))}"
    return f"did you mean {near[0]!r}? {known}" if near else known


def _check(path: Path, key: str, value: Any) -> None:
    kind = "str" if key == EXTENDS else _TYPES[key]
    good = isinstance(value, _KINDS[kind]) and isinstance(value, bool) == (kind == "bool")
    if good and kind.startswith("tuple"):
        good = all(isinstance(item, int) and not isinstance(item, bool) for item in value)
    if not good:
        wanted = _WORDS.get(kind, "a number")
        raise ConfigError(f"{path}: {key} = {value!r} is not {wanted}; correct it there")


def _check_ranges(profile: DeviceProfile, source: Path) -> None:
    rules = (
        ("port", 0 <= profile.port <= 65535, "from 1 to 65535, or 0"),
        ("min_delegated_share", 0 <= profile.min_delegated_share <= 1, "from 0 to 1"),
        ("threads", profile.threads >= 1, "1 or more"),
        ("cpus", all(cpu >= 0 for cpu in profile.cpus), "0 or more each"),
        ("channel_multiple", profile.channel_multiple >= 1, "1 or more"),
        ("connect_timeout_s", 0 < profile.connect_timeout_s <= 600, "above 0, at most 600"),
        ("transport", bool(profile.transport), "a transport such as 'ssh' or 'local'"),
        (
            "threads",
            not profile.cpus or profile.threads <= len(profile.cpus),
            f"at most the number of `cpus`, {len(profile.cpus)}",
        ),
    )
    numbers = (
        (key, value is None or math.isfinite(value), "a finite number")
        for key in ("thermal_limit_celsius", "cool_celsius")
        for value in (getattr(profile, key),)
    )
    for key, good, wanted in (*rules, *numbers):
        if not good:
            value = getattr(profile, key)
            raise ConfigError(f"{source}: {key} = {value!r} must be {wanted}; correct it there")
