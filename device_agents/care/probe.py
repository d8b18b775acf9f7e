"""What a device tells of itself through a shell alone: no agent and no Python is needed there.

`read` runs one script (`_probe_script`) over a transport and returns a `Probe`. What the device
says is never trusted: each value is parsed strictly, and what does not parse is None, not 0.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import secrets
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from device_agents import android
from device_agents.agent import readings
from device_agents.agent.readings import Core, integer
from device_agents.care.probe_parts import (
    Busy,
    Python,
    parse_busy,
    parse_cores,
    parse_owners,
    parse_pythons,
    parse_zones,
)
from device_agents.care.probe_script import SCRIPT
from device_agents.errors import DeviceError
from device_agents.session import DEFAULT_DIRECTORY
from device_agents.values import SensorReading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from device_agents.api import Transport

Depth = Literal["state", "facts", "load"]

# About two seconds of one core of a Raspberry Pi Zero 2 W; faster boards are done earlier.
_SPINS = 1_000_000
_LOAD_S = 3.0

_PROCESSOR = re.compile(r"^processor\s*:", re.MULTILINE)

# The sections that are answers of the firmware's tool, and what each was asked.
_VCGENCMD = {
    "measure_temp": "measure_temp",
    "measure_clock": "measure_clock",
    "load_clock": "measure_clock",
    "get_throttled": "get_throttled",
    "load_throttled": "get_throttled",
}
# Machines that `uname -m` calls by a name without 64 and that are: the kernel of a 32-bit system
# on a 64-bit processor says armv8l.
_64_BIT = ("armv8l", "armv8b", "s390x", "alpha")


@dataclass(frozen=True, slots=True)
class Probe:
    """What the script printed, by section; the methods give it meaning.

    Attributes:
        sections: name -> text without surrounding blank space.
    """

    sections: Mapping[str, str]

    def text(self, name: str) -> str | None:
        """Return a section's text, None when the device has nothing to say."""
        return self.sections.get(name) or None

    def lines(self, name: str) -> list[str]:
        """Return a section's lines."""
        return self.sections.get(name, "").splitlines()

    def number(self, name: str) -> int | None:
        """Return a section that is one integer."""
        return integer(self.sections.get(name, ""))

    def vcgencmd(self, name: str) -> str | None:
        """Return the value in an answer of the firmware's tool; None for any other text."""
        return readings.firmware(_VCGENCMD[name], self.sections.get(name, ""))

    @property
    def machine(self) -> str:
        """Architecture of the kernel, such as aarch64; empty when unknown."""
        return self.sections.get("machine", "")

    @property
    def kernel_bits(self) -> int | None:
        """Bits of the kernel."""
        machine = self.machine
        if not machine:
            return None
        return 64 if "64" in machine or machine in _64_BIT else 32

    @property
    def userland_bits(self) -> int | None:
        """Bits of the programs: a 64-bit kernel may run a 32-bit system."""
        bits = self.number("bits")
        if bits in (32, 64):
            return bits
        if abi := self.properties().get("ro.product.cpu.abi"):
            return 64 if "64" in abi else 32
        return next((python.bits for python in self.pythons()), None)

    def properties(self) -> dict[str, str]:
        """Return Android's properties; empty elsewhere."""
        return android.parse_getprop(self.sections.get("getprop", ""))

    @property
    def is_android(self) -> bool:
        """Whether this is Android, Termux included."""
        return "getprop" in self.sections

    def cores(self, section: str = "cpufreq") -> list[Core]:
        """Return the clocks; `load_cpufreq` are those while one core was busy."""
        return parse_cores(self.lines(section))

    def zones(self) -> list[readings.Zone]:
        """Return the thermal zones in the order of their numbers, which may have gaps."""
        return parse_zones(self.lines("zones"))

    def pythons(self) -> list[Python]:
        """Return the interpreters that answered, the profile's first."""
        return parse_pythons(self.lines("pythons"))

    def busy(self) -> list[Busy]:
        """Return other processes that kept a core busy meanwhile, the busiest first."""
        found = parse_busy(
            self.lines("processes_before"), self.lines("processes_after"), self.cpu_count or 1
        )
        # The script's own process, and the folder of it, which belongs to who logged in.
        own = integer((self.lines("identity") or [""])[0])
        owners = parse_owners(self.lines("owners"))
        me = owners.get(own) if own is not None else None
        return [
            replace(busy, owner=owner, own=None if me is None else owner == me)
            if (owner := owners.get(busy.pid, ""))
            else busy
            for busy in found
            if busy.pid != own
        ]

    @property
    def directory_writable(self) -> bool | None:
        """Whether the device's directory, or the parent in which it would be made, is writable."""
        words = self.lines("directory")
        return words[1] == "yes" if len(words) == 2 else None

    @property
    def disk_free_bytes(self) -> int | None:
        """Free space there."""
        # A long device name breaks the line in two in some versions of df.
        found = re.search(r"\s(\d{1,15})\s+(\d{1,15})\s+(-?\d{1,15})\s+\d+%", self.disk)
        return int(found.group(3)) * 1024 if found else None

    @property
    def noexec(self) -> str:
        """Where the directory's file system is mounted when no program can be run from it."""
        found = self.lines("mount")
        return found[0] if len(found) == 2 and "noexec" in found[1].split(",") else ""

    @property
    def disk(self) -> str:
        """What df says of the directory."""
        return self.sections.get("disk", "")

    def sensors(self) -> SensorReading:
        """Return the state of the device when it was probed."""
        clock_hz, throttled = self.vcgencmd("measure_clock"), self.vcgencmd("get_throttled")
        cores = self.cores()
        core = readings.busiest(cores)
        load = re.match(r"\d{1,6}\.\d+", self.sections.get("loadavg", ""))
        uptime = re.match(r"\d{1,12}\.\d+", self.sections.get("uptime", ""))
        battery = self.battery
        thermal = android.parse_thermal(self.sections.get("thermalservice", ""))
        fan = integer((self.lines("fans") or [""])[0])
        return SensorReading(
            soc_celsius=self._soc_celsius(thermal),
            clock_khz=int(clock_hz) // 1000 if clock_hz else core.clock_khz if core else None,
            governor=cores[0].governor if cores else None,
            throttled=int(throttled, 16) if throttled else None,
            load_average=float(load.group()) if load else None,
            memory_available_bytes=self._memory("MemAvailable"),
            disk_free_bytes=self.disk_free_bytes,
            boot_id=self.text("boot_id"),
            uptime_s=float(uptime.group()) if uptime else None,
            # PWM duty, 0 to 255.
            fan_percent=round(fan / 2.55) if fan is not None and 0 <= fan <= 255 else None,
            skin_celsius=thermal.skin_celsius,
            thermal_status=thermal.status,
            battery_percent=battery.percent,
            charging=battery.charging,
        )

    @property
    def battery(self) -> android.Battery:
        """What a phone says of its battery; nothing of another device."""
        return android.parse_battery(self.sections.get("battery", ""))

    def facts(self) -> dict[str, Any]:
        """Return what the device is, under the names of the agent's `hello`; None: unknown."""
        python = next(iter(self.pythons()), None)
        kernel = (self.sections.get("uname", "") + "  ").split(" ")
        properties = self.properties()
        phone = android.phone(properties)
        system = re.search(
            r'^PRETTY_NAME="?([^"\n]*)', self.sections.get("os_release", ""), re.MULTILINE
        )
        return {
            "machine": self.machine or None,
            "bits": python.bits if python else self.userland_bits,
            "kernel_bits": self.kernel_bits,
            "userland_bits": self.userland_bits,
            "os": system.group(1)
            if system
            else f"Android {phone.release}"
            if phone.release
            else None,
            "kernel": kernel[1] or None,
            "libc": self.text("libc"),
            "cpu_count": self.cpu_count,
            "model": self.text("model") or f"{phone.manufacturer} {phone.model}".strip() or None,
            "memory_bytes": self._memory("MemTotal"),
            "python": ".".join(map(str, python.version)) if python else None,
            "python_path": python.path if python else None,
            "device_id": self.device_id,
        }

    @property
    def cpu_count(self) -> int | None:
        """Number of CPUs that are on."""
        return len(_PROCESSOR.findall(self.sections.get("cpuinfo", ""))) or None

    @property
    def device_id(self) -> str:
        """The same hash of the device's serial or machine id that the agent tells; else empty."""
        board = self.sections.get("serial", "")
        if not board:
            found = re.search(
                r"^Serial\s*:\s*(\S+)", self.sections.get("cpuinfo", ""), re.MULTILINE
            )
            board = found.group(1) if found else ""
        # Some kernels tell a serial of zeros instead of none; a phone has neither file.
        others = (self.sections.get("machine_id"), self.properties().get("ro.serialno"))
        identity = board if board.strip("0") else next(filter(None, others), "")
        return hashlib.sha256(identity.encode()).hexdigest()[:16] if identity else ""

    def _memory(self, key: str) -> int | None:
        found = re.search(rf"{key}:\s+(\d{{1,15}}) kB", self.sections.get("meminfo", ""))
        return int(found.group(1)) * 1024 if found else None

    def _soc_celsius(self, thermal: android.Thermal) -> float | None:
        """Return what the firmware says, else Android's service, else the processor's zone."""
        celsius = readings.firmware_celsius(self.sections.get("measure_temp", ""))
        if celsius is None:
            celsius = thermal.soc_celsius
        return celsius if celsius is not None else readings.processor_celsius(self.zones())


def read(
    transport: Transport,
    *,
    timeout_s: float = 20.0,
    depth: Depth = "facts",
    directory: str = "",
    root: str = "",
) -> Probe:
    """Probe the device; raises DeviceError, DeadlineExceeded, LinkLost.

    `state` is enough for `sensors()`, `facts` tells what the device is, and `load` also watches it
    for a second and keeps one core busy for another. `root` is a prefix of /proc, /sys, /etc and
    /usr/bin there: a test's way to show another board.
    """
    nonce = secrets.token_hex(8)
    arguments = [nonce, root, transport.python, absolute(directory, transport.home), depth]
    argv = ["sh", "-c", SCRIPT, "edgewright-probe", *arguments, str(_SPINS)]
    done = transport.run(argv, timeout_s=timeout_s + (_LOAD_S if depth == "load" else 0.0))
    probe = parse(done.stdout.decode("utf-8", "replace"), nonce)
    if "end" not in probe.sections:
        said = " ".join((done.stdout + done.stderr)[-300:].decode("utf-8", "replace").split())
        raise DeviceError(
            f"the device's shell did not finish the probe (exit code {done.rc}, it said "
            f"{said!r}); log in and see whether `sh` works there"
        )
    return probe


def parse(output: str, nonce: str) -> Probe:
    """Split the script's output at its markers; what a login script printed before is dropped."""
    parts = re.split(rf"^@{re.escape(nonce)} ([a-z_]+)\r?$", output, flags=re.MULTILINE)
    names, texts = parts[1::2], parts[2::2]
    return Probe(MappingProxyType({n: text.strip() for n, text in zip(names, texts, strict=True)}))


def absolute(directory: str, home: str) -> str:
    """Return the device's directory as a session uses it: relative means below the home."""
    directory = directory or DEFAULT_DIRECTORY
    if directory.startswith("/"):
        return directory
    return posixpath.join(home, directory.removeprefix("~").lstrip("/"))
