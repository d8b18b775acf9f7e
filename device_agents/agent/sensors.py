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
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

from . import readings

_TOOL_TIMEOUT_S = 2.0
# Of /proc/*/stat, counted from the state behind the name: the CPU that it ran on last.
_CPU_FIELD = 36


class Sensors:
    """Reads the state; `root` is / outside tests."""

    def __init__(self, root: str = "/", tool: Optional[str] = None) -> None:
        self._root = Path(root)
        self._tool = tool if tool is not None else shutil.which("vcgencmd")
        self._cache: Dict[str, Tuple[float, str]] = {}

    def read(self, directory: str, max_age_s: float = 0.0) -> Dict[str, Any]:
        """Return the values of api.SensorReading; tool answers up to `max_age_s` seconds old."""
        clock_hz = readings.firmware("measure_clock", self._tell("measure_clock arm", max_age_s))
        return {
            "soc_celsius": self._celsius(max_age_s),
            "clock_khz": int(clock_hz) // 1000 if clock_hz else self.clock_khz([]),
            "governor": self._text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            "throttled": self._throttled(max_age_s),
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
        return {
            "soc_celsius": self._celsius(0.0),
            "clock_khz": self.clock_khz(cpus),
            "throttled": self._throttled(0.0),
        }

    def clock_khz(self, cpus: List[int]) -> Optional[int]:
        """Return the clock now of the one that works of these CPUs; of all, when none are given."""
        core = self.busiest(cpus)
        return core.clock_khz if core else None

    def busiest(self, cpus: List[int]) -> Optional[readings.Core]:
        """Return the clock and the own maximum of the CPU that did this process's work.

        That is one on which its threads ran last, where the system tells; else one of `cpus`, or
        of all. Which of several it was is told by the clocks: see `readings.busiest`.
        """
        cores = [core for core in self._cores() if not cpus or core.number in cpus]
        worked = self._last_cpus()
        return readings.busiest([core for core in cores if core.number in worked] or cores)

    def fastest_khz(self) -> Optional[int]:
        """Return the highest clock that any CPU of the device may have."""
        return max((core.max_khz for core in self._cores() if core.max_khz), default=None)

    def _cores(self) -> List[readings.Core]:
        found = []
        for number, folder in self._numbered("sys/devices/system/cpu", "cpu"):
            clock = self._number(folder + "/cpufreq/scaling_cur_freq")
            most = self._number(folder + "/cpufreq/cpuinfo_max_freq")
            if clock is not None or most is not None:
                found.append(readings.Core(number, clock, most))
        return found

    def _last_cpus(self) -> Set[int]:
        """Return the CPUs on which the threads of this process ran last; empty: not told."""
        found = set()
        for path in self._root.glob("proc/self/task/*/stat"):
            text = self._text(str(path.relative_to(self._root))) or ""
            # The name, in parentheses, may hold blanks and parentheses itself.
            fields = text.rpartition(")")[2].split()
            if len(fields) > _CPU_FIELD and fields[_CPU_FIELD].isdigit():
                found.add(int(fields[_CPU_FIELD]))
        return found

    def _numbered(self, parent: str, name: str) -> List[Tuple[int, str]]:
        """Return number and path of the folders `name`<number>; numbers may have gaps."""
        found = []
        for path in (self._root / parent).glob(name + "*"):
            number = path.name[len(name) :]
            if number.isdigit():
                found.append((int(number), parent + "/" + path.name))
        return sorted(found)

    def _text(self, path: str) -> Optional[str]:
        try:
            with (self._root / path).open(encoding="utf-8", errors="replace") as file:
                return file.read(4096).strip("\0\n ") or None
        except OSError:
            return None

    def _number(self, path: str) -> Optional[int]:
        return readings.integer(self._text(path) or "")

    def _celsius(self, max_age_s: float) -> Optional[float]:
        """Return what the firmware says, else the processor's thermal zone."""
        celsius = readings.firmware_celsius(self._tell("measure_temp", max_age_s))
        if celsius is not None:
            return celsius
        return readings.processor_celsius(
            readings.Zone(
                *(self._text(folder + "/" + name) or "" for name in ("type", "temp", "mode"))
            )
            for _, folder in self._numbered("sys/class/thermal", "thermal_zone")
        )

    def _throttled(self, max_age_s: float) -> Optional[int]:
        flags = readings.firmware("get_throttled", self._tell("get_throttled", max_age_s))
        return int(flags, 16) if flags else None

    def _fan_percent(self) -> Optional[int]:
        for _, fan in self._numbered("sys/class/thermal", "cooling_device"):
            if self._text(fan + "/type") == "pwm-fan":
                state, most = self._number(fan + "/cur_state"), self._number(fan + "/max_state")
                return round(100 * state / most) if state is not None and most else None
        return None

    def _memory(self) -> Optional[int]:
        found = re.search(r"MemAvailable:\s+(\d+) kB", self._text("proc/meminfo") or "")
        return int(found.group(1)) * 1024 if found else None

    def _uptime(self) -> Optional[float]:
        found = re.match(r"\d+\.\d+", self._text("proc/uptime") or "")
        return float(found.group()) if found else None

    def _tell(self, command: str, max_age_s: float) -> str:
        """Return what vcgencmd says to this command; empty where it says nothing."""
        if not self._tool:
            return ""
        now = time.monotonic()
        taken, answer = self._cache.get(command, (-1e9, ""))
        if now - taken <= max_age_s:
            return answer
        answer = ""
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
        except (OSError, subprocess.TimeoutExpired):
            pass
        self._cache[command] = (now, answer)
        return answer


_current: "ContextVar[Optional[Sensors]]" = ContextVar("sensors", default=None)


def current() -> Sensors:
    """Return the sensors that a job reads while it runs."""
    return _current.get() or Sensors()


@contextlib.contextmanager
def use(state: Any) -> Iterator[None]:
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
