"""A Raspberry Pi as its files and tools show it, below a folder that the probe takes for /."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_CORE = """\
processor\t: {number}
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: {part}

"""


@dataclass(frozen=True)
class FakePi:
    """What the board says; the defaults are a healthy Raspberry Pi 4 with a 64-bit system."""

    model: str = "Raspberry Pi 4 Model B Rev 1.5"
    compatible: tuple[str, ...] = ("raspberrypi,4-model-b", "brcm,bcm2711")
    revision: str = "d03115"
    part: str = "0xd08"
    features: str = "fp asimd evtstrm crc32 cpuid"
    kernel: str = "aarch64"
    bits: int = 64
    celsius: float = 41.9
    throttled: str = "throttled=0x0"
    clock_hz: int = 1_500_345_728
    max_khz: int = 1_500_000
    governor: str = "ondemand"
    load_average: float = 0.08

    def write(self, root: Path) -> Path:
        """Make the tree and return its root."""
        cpu = "".join(
            _CORE.format(number=number, features=self.features, part=self.part)
            for number in range(4)
        )
        tail = (
            f"Revision\t: {self.revision}\nSerial\t\t: 1000000012345678\nModel\t\t: {self.model}\n"
        )
        _put(root / "proc/cpuinfo", cpu + tail)
        _put(root / "proc/device-tree/model", self.model + "\0")
        _put(root / "proc/device-tree/compatible", "\0".join(self.compatible) + "\0")
        _put(root / "proc/device-tree/serial-number", "1000000012345678\0")
        _put(root / "proc/loadavg", f"{self.load_average:.2f} 0.03 0.01 1/190 1234\n")
        _put(root / "proc/uptime", "4711.50 18000.00\n")
        _put(root / "proc/meminfo", "MemTotal: 3884340 kB\nMemAvailable: 3500000 kB\n")
        _put(root / "proc/sys/kernel/random/boot_id", "11111111-2222-3333-4444-555555555555\n")
        _put(root / "etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
        _put(root / "etc/machine-id", "0123456789abcdef0123456789abcdef\n")
        zone = root / "sys/class/thermal/thermal_zone0"
        _put(zone / "type", "cpu-thermal\n")
        _put(zone / "temp", f"{self.celsius * 1000:.0f}\n")
        for number in range(4):
            clock = root / f"sys/devices/system/cpu/cpu{number}/cpufreq"
            _put(clock / "scaling_cur_freq", "600000\n")
            _put(clock / "cpuinfo_max_freq", f"{self.max_khz}\n")
            _put(clock / "cpuinfo_min_freq", "600000\n")
            _put(clock / "scaling_governor", f"{self.governor}\n")
        _tool(
            root / "usr/bin/vcgencmd",
            f"""case "$*" in
measure_temp) echo "temp={self.celsius:.1f}'C" ;;
"measure_clock arm") echo "frequency(48)={self.clock_hz}" ;;
get_throttled) echo '{self.throttled}' ;;
*) echo 'error=1 error_msg="Command not registered"' ;;
esac""",
        )
        _tool(
            root / "usr/bin/uname",
            f'[ "$1" = -m ] && echo {self.kernel} || echo Linux 6.6.31+rpt-rpi-v8 {self.kernel}',
        )
        _tool(
            root / "usr/bin/getconf",
            f'[ "$1" = LONG_BIT ] && echo {self.bits} || echo glibc 2.36',
        )
        return root


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _tool(path: Path, body: str) -> None:
    _put(path, f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
