"""What the text of a sensor means: thermal zones, clocks, the firmware's tool. Pure functions.

The agent reads the files itself and the host's probe reads them through a shell; both ask here, so
that a board has one temperature and one clock whoever looks. What makes no sense is None, never a
number.
"""

import re
from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

# Below and above no processor says the truth: a broken sensor does.
_COLDEST_CELSIUS = -40.0
_HOTTEST_CELSIUS = 150.0
# Smaller numbers of a zone are whole degrees, as some kernels for Allwinner boards write them, or
# cannot be told: 652 may be tenths of a degree (old Qualcomm kernels) as well as thousandths.
_LEAST_MILLI = 1000

# In the order in which they are believed; any other zone is that of some other part of the board.
_PROCESSOR = re.compile(r"cpu|x86_pkg|coretemp", re.IGNORECASE)
_CHIP = re.compile(r"soc|core|cluster|tsens", re.IGNORECASE)

_FIRMWARE = {
    # vcgencmd's exit code lies, so only the whole expected answer counts. The number in brackets
    # differs between boards and means nothing here.
    "measure_temp": re.compile(r"temp=(-?\d{1,3}(?:\.\d{1,3})?)'C"),
    "measure_clock": re.compile(r"frequency\(\d{1,3}\)=(\d{1,12})"),
    "get_throttled": re.compile(r"throttled=(0x[0-9a-fA-F]{1,8})"),
}


class Zone(NamedTuple):
    """A thermal zone's files: type, temp, and mode (empty where there is none)."""

    kind: str
    temp: str
    mode: str = ""


class Core(NamedTuple):
    """The clock of one CPU; None where the kernel does not tell."""

    number: int
    clock_khz: Optional[int]
    max_khz: Optional[int]
    min_khz: Optional[int] = None
    governor: Optional[str] = None


def integer(text: str) -> Optional[int]:
    """Return the integer that the whole text is."""
    return int(text) if re.fullmatch(r"-?\d{1,18}", text, re.ASCII) else None


def degrees(celsius: float) -> Optional[float]:
    """Return a temperature that a working sensor may have; one that is off says exactly 0."""
    plausible = _COLDEST_CELSIUS <= celsius <= _HOTTEST_CELSIUS and celsius != 0
    return celsius if plausible else None


def zone_celsius(text: str) -> Optional[float]:
    """Return what a zone's `temp` says: thousandths of a degree, on some boards whole degrees."""
    value = integer(text.strip())
    if value is None:
        return None
    return degrees(value / 1000.0 if abs(value) >= _LEAST_MILLI else float(value))


def processor_celsius(zones: Iterable[Zone]) -> Optional[float]:
    """Return the processor's temperature: the hottest of its zones, else of the chip's.

    Without either the first zone that tells one. A zone that is switched off counts only where no
    other of its kind tells anything.
    """
    ranked: Dict[Tuple[int, bool], List[float]] = {}
    for zone in zones:
        celsius = zone_celsius(zone.temp)
        if celsius is not None:
            rank = 0 if _PROCESSOR.search(zone.kind) else 1 if _CHIP.search(zone.kind) else 2
            off = zone.mode.strip() == "disabled"
            ranked.setdefault((rank, off), []).append(celsius)
    if not ranked:
        return None
    best = min(ranked)
    return ranked[best][0] if best[0] == 2 else max(ranked[best])


def firmware(command: str, answer: str) -> Optional[str]:
    """Return the value in an answer of vcgencmd to this command; None for any other text."""
    found = _FIRMWARE[command].fullmatch(answer)
    return found.group(1) if found else None


def firmware_celsius(answer: str) -> Optional[float]:
    """Return the temperature in an answer of `vcgencmd measure_temp`."""
    value = firmware("measure_temp", answer)
    return None if value is None else degrees(float(value))


def busiest(cores: Iterable[Core]) -> Optional[Core]:
    """Return the core that works: the one whose clock is nearest to its own maximum.

    Of several that are equally near, it is the fastest. The clocks themselves do not tell: a small
    core at its maximum is slower than a big one, and an idle core's clock says nothing of the work.
    """
    told = [core for core in cores if core.clock_khz]
    if not told:
        return None
    fastest = max(core.clock_khz or 0 for core in told)

    def nearness(core: Core) -> Tuple[float, int]:
        clock = core.clock_khz or 0
        return min(1.0, clock / (core.max_khz or fastest)), clock

    return max(told, key=nearness)
