"""A device profile: typed data read from one TOML file.

An unknown key is an error that lists the known ones, the nearest first. A file may say
`extends = "name"` and then holds only what differs from that device.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from device_agents import bounded
from device_agents.errors import ConfigError
from device_agents.plain_values import bounds, from_plain, refuse_unknown

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
    transport: str = field(default="ssh", metadata=bounds(filled=True))
    address: str = ""
    port: int = field(default=0, metadata=bounds(low=0, high=65535))
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
    min_delegated_share: float = field(default=0.0, metadata=bounds(low=0, high=1))
    threads: int = field(default=1, metadata=bounds(low=1))
    cpus: tuple[int, ...] = field(default=(), metadata=bounds(low=0))
    channel_multiple: int = field(default=8, metadata=bounds(low=1))
    thermal_limit_celsius: float | None = field(default=None, metadata=bounds(low=-273.15))
    cool_celsius: float | None = field(default=None, metadata=bounds(low=-273.15))
    canary: bool = True
    nominal_clock_khz: int | None = None
    connect_timeout_s: float = field(default=10.0, metadata=bounds(above=0, high=600))

    @property
    def is_template(self) -> bool:
        """True when an address is still missing: such a profile is there to be extended."""
        return self.transport in ("ssh", "adb") and not self.address

    def problem(self) -> str | None:
        """Return what is wrong between the keys, if anything."""
        if self.cpus and self.threads > len(self.cpus):
            return (
                f"threads = {self.threads} must be at most the number of `cpus`, {len(self.cpus)}"
            )
        return None


KEYS = tuple(item.name for item in fields(DeviceProfile) if item.name != "name")


def read_toml(path: Path) -> dict[str, Any]:
    """Return the file's checked values; raises ConfigError naming the file and the key."""
    try:
        values = bounded.toml(bounded.read_text(path, limit_bytes=bounded.TOML_BYTES))
    except bounded.Unreadable:
        raise
    except bounded.Undecodable as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {error}") from error
    refuse_unknown(values, (EXTENDS, *KEYS), str(path))
    own = dict(values)
    extended = own.pop(EXTENDS, "")
    if not isinstance(extended, str):
        raise ConfigError(f"{path}, option {EXTENDS!r}: {extended!r} is not text")
    profile_from(path.stem, own, source=path)
    return values


def profile_from(name: str, values: Mapping[str, Any], *, source: Path) -> DeviceProfile:
    """Make the profile from plain values; raises ConfigError for a wrong one."""
    return from_plain(DeviceProfile, {"name": name, **values}, str(source))
