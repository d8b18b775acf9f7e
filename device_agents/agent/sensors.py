"""What the device says about its own state. Unknown is None, never 0.

`vcgencmd` (Raspberry Pi) is parsed strictly because its exit code lies; each call starts a
process, so its answers are cached for `max_age_s`. Files under /sys and /proc are cheap.
"""

import contextlib
import os
import re
import shutil
import subprocess
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

_VCGENCMD = {
    # The number in brackets differs between boards and means nothing here.
    "measure_temp": re.compile(r"temp=(\d+(?:\.\d+)?)'C"),
    "measure_clock arm": re.compile(r"frequency\(\d+\)=(\d+)"),
    "get_throttled": re.compile(r"throttled=(0x[0-9a-fA-F]+)"),
}
_TOOL_TIMEOUT_S = 2.0


class Sensors:
    """Reads the state; `root` is / outside tests."""

    def __init__(self, root: str = "/", tool: Optional[str] = None) -> None:
        self._root = Path(root)
        self._tool = tool if tool is not None else shutil.which("vcgencmd")
        self._cache: Dict[str, Tuple[float, Optional[str]]] = {}

    def read(self, directory: str, max_age_s: float = 0.0) -> Dict[str, Any]:
        """Return the values of api.SensorReading; tool answers up to `max_age_s` seconds old."""
        celsius = self._vcgencmd("measure_temp", max_age_s)
        clock_hz = self._vcgencmd("measure_clock arm", max_age_s)
        throttled = self._vcgencmd("get_throttled", max_age_s)
        frequency = "sys/devices/system/cpu/cpu0/cpufreq/"
        clock_khz = self._number(frequency + "scaling_cur_freq")
        return {
            "soc_celsius": float(celsius) if celsius else self._zone_celsius(),
            "clock_khz": int(clock_hz) // 1000 if clock_hz else clock_khz,
            "governor": self._text(frequency + "scaling_governor"),
            "throttled": int(throttled, 16) if throttled else None,
            "load_average": _load(),
            "memory_available_bytes": self._memory(),
            "disk_free_bytes": shutil.disk_usage(directory).free,
            "boot_id": self._text("proc/sys/kernel/random/boot_id"),
            "uptime_s": self._uptime(),
            "fan_percent": self._fan_percent(),
        }

    def at_load(self, cpus: List[int]) -> Dict[str, Any]:
        """Return soc_celsius, clock_khz and throttled, for reading between two invokes.

        The clock is that of the CPU in use, from its file: a tool's process would change it.
        """
        celsius = self._vcgencmd("measure_temp", 0.0)
        throttled = self._vcgencmd("get_throttled", 0.0)
        return {
            "soc_celsius": float(celsius) if celsius else self._zone_celsius(),
            "clock_khz": self.clock_khz(cpus),
            "throttled": int(throttled, 16) if throttled else None,
        }

    def clock_khz(self, cpus: List[int]) -> Optional[int]:
        """Return what the first of these CPUs (of all, without any) runs at right now."""
        cpu = cpus[0] if cpus else 0
        return self._number("sys/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq" % cpu)

    def _text(self, path: str) -> Optional[str]:
        try:
            with (self._root / path).open(encoding="utf-8", errors="replace") as file:
                return file.read(4096).strip("\0\n ") or None
        except OSError:
            return None

    def _number(self, path: str) -> Optional[int]:
        text = self._text(path)
        return int(text) if text and re.fullmatch(r"-?\d+", text) else None

    def _zone_celsius(self) -> Optional[float]:
        """Return the CPU's thermal zone, else the first readable one."""
        first = None
        for number in range(32):
            zone = "sys/class/thermal/thermal_zone%d/" % number
            kind, milli = self._text(zone + "type"), self._number(zone + "temp")
            if kind is None:
                break
            if milli is None:
                continue
            if "cpu" in kind or "soc" in kind or "x86_pkg" in kind:
                return milli / 1000.0
            first = milli / 1000.0 if first is None else first
        return first

    def _fan_percent(self) -> Optional[int]:
        for number in range(16):
            fan = "sys/class/thermal/cooling_device%d/" % number
            kind = self._text(fan + "type")
            if kind is None:
                break
            if kind == "pwm-fan":
                state, most = self._number(fan + "cur_state"), self._number(fan + "max_state")
                return round(100 * state / most) if state is not None and most else None
        return None

    def _memory(self) -> Optional[int]:
        found = re.search(r"MemAvailable:\s+(\d+) kB", self._text("proc/meminfo") or "")
        return int(found.group(1)) * 1024 if found else None

    def _uptime(self) -> Optional[float]:
        found = re.match(r"\d+\.\d+", self._text("proc/uptime") or "")
        return float(found.group()) if found else None

    def _vcgencmd(self, command: str, max_age_s: float) -> Optional[str]:
        if not self._tool:
            return None
        now = time.monotonic()
        taken, value = self._cache.get(command, (-1e9, None))
        if now - taken <= max_age_s:
            return value
        value = None
        try:
            done = subprocess.run(
                [self._tool, *command.split()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=_TOOL_TIMEOUT_S,
                check=False,
            )
            answer = done.stdout.decode("ascii", "replace").strip()
            found = _VCGENCMD[command].fullmatch(answer)
            value = found.group(1) if found else None
        except (OSError, subprocess.TimeoutExpired):
            pass
        self._cache[command] = (now, value)
        return value


_current: "ContextVar[Optional[Sensors]]" = ContextVar("sensors", default=None)


def current() -> Sensors:
    """Return the sensors that a job reads while it runs."""
    return _current.get() or Sensors()


@contextlib.contextmanager
def used(state: Any) -> Iterator[None]:
    """Let `state`, a simulated device's, be the current sensors in a `with` block."""
    token = _current.set(state)
    try:
        yield
    finally:
        _current.reset(token)


def _load() -> Optional[float]:
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None
