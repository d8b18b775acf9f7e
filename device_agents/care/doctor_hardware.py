"""The doctor's judgements of the hardware: heat, power supply and clock.

Under-voltage and heat lower the clock in the same way and are mended differently; the flags of the
firmware and the temperature together tell which it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_agents.agent.readings import busiest
from device_agents.care.boards import parse_cpuinfo, parse_revision
from device_agents.care.diagnosis import Check
from device_agents.care.packages import how_to_install

if TYPE_CHECKING:
    from device_agents.api import DeviceDescription
    from device_agents.care.probe import Probe

_CLOCK_TOLERANCE = 0.03
_HOT_CELSIUS = 60.0  # the lowest temperature at which any Raspberry Pi lowers its clock by itself
_SLOW_GOVERNORS = ("powersave", "conservative", "userspace")
_COOL = "cool it: a heat sink or a fan, out of the case and the sun; end what keeps it busy"
_SUPPLY = (
    "change the power supply or its cable: use the board's own supply (5.1 V, 3 A; 5 A for a "
    "Raspberry Pi 5), a short thick cable, and nothing else fed from its USB ports"
)


def temperature(device: DeviceDescription, probe: Probe) -> Check:
    """Check the temperature against the profile's limits."""
    reading = probe.sensors()
    # The limits of a phone are those of its surface.
    celsius = reading.soc_celsius if reading.skin_celsius is None else reading.skin_celsius
    if celsius is None:
        told = ", ".join(f"{zone.kind} {zone.temp}" for zone in probe.zones()[:3])
        found = f"no zone tells a possible one: {told}" if told else "no sensor"
        return Check("temperature", "unknown", found)
    limit, cool = device.thermal_limit_celsius, device.cool_celsius
    found = f"{celsius:.1f} °C"
    if limit is not None and celsius >= limit:
        return Check("temperature", "fail", f"{found}, the limit is {limit:g} °C", _COOL)
    if cool is not None and celsius > cool:
        waits = f"{found}, a measurement waits until it is {cool:g} °C or less"
        return Check("temperature", "warn", waits, _COOL)
    return Check("temperature", "ok", found)


def power_supply(probe: Probe) -> Check:
    """Check the under-voltage flags, bits 0 and 16."""
    flags = _flags(probe)
    if flags is None:
        return _no_flags("power supply", probe)
    if flags & 1:
        return Check("power supply", "fail", f"under-voltage now (flags {flags:#x})", _SUPPLY)
    if flags >> 16 & 1:
        found = f"under-voltage since boot (flags {flags:#x})"
        return Check("power supply", "warn", found, f"{_SUPPLY}; a reboot clears the flag")
    return Check("power supply", "ok", f"no under-voltage since boot (flags {flags:#x})")


def throttling(probe: Probe) -> Check:
    """Check the flags of a lowered clock, bits 1 to 3 and 17 to 19: heat or a weak supply."""
    flags = _flags(probe)
    if flags is None:
        return _no_flags("throttling", probe)
    words = ("clock capped", "throttled", "soft temperature limit")
    now = [word for bit, word in enumerate(words, 1) if flags >> bit & 1]
    past = [word for bit, word in enumerate(words, 17) if flags >> bit & 1]
    if not now and not past:
        return Check("throttling", "ok", f"none since boot (flags {flags:#x})")
    celsius = probe.sensors().soc_celsius
    at = "" if celsius is None else f" at {celsius:.1f} °C"
    found = f"{', '.join(now)} now{at}" if now else f"{', '.join(past)} since boot"
    hot = celsius is not None and celsius >= _HOT_CELSIUS
    weak = bool(flags & 1 or (flags >> 16 & 1 and not now))
    if weak and hot and now:
        cause = f"{_SUPPLY}; it is hot as well: {_COOL}"
    elif weak:
        cause = f"this comes from the power supply, not from heat: {_SUPPLY}"
    elif now and celsius is not None and not hot:
        cause = "this is not heat: look for a weak power supply, or a clock limit in config.txt"
    else:
        cause = _COOL
    if not now:
        cause += "; a reboot clears the flags"
    return Check("throttling", "fail" if now else "warn", f"{found} (flags {flags:#x})", cause)


def clock(device: DeviceDescription, probe: Probe) -> Check:
    """Compare the clock while one core is busy with what that core should have."""
    busy_hz = probe.vcgencmd("load_clock")
    cores = probe.cores("load_cpufreq")
    core = busiest(cores)
    busy_khz = core.clock_khz if core else None
    if busy_hz and int(busy_hz) > 0:
        busy_khz = int(busy_hz) // 1000
    if busy_khz is None:
        return Check("clock", "unknown", "the device does not tell its clock")
    fastest_khz = max((core.max_khz for core in cores if core.max_khz), default=None)
    own_khz = core.max_khz if core and core.max_khz else fastest_khz
    expected = device.nominal_clock_khz or own_khz
    if expected and own_khz and fastest_khz and own_khz < expected <= fastest_khz:
        # The load ran on a slower kind of core than the profile's clock is of.
        expected = own_khz
    found = f"{busy_khz / 1000:.0f} MHz at load"
    if expected is None:
        return Check("clock", "ok", found)
    if busy_khz >= expected * (1 - _CLOCK_TOLERANCE):
        return Check("clock", "ok", f"{found} of {expected / 1000:.0f} MHz")
    return Check(
        "clock",
        "fail" if device.nominal_clock_khz else "warn",
        f"{found} instead of {expected / 1000:.0f} MHz",
        "see temperature, power supply and governor above; where `arm_freq` in config.txt is "
        "lower on purpose, set `nominal_clock_khz` in the profile",
    )


def governor(probe: Probe) -> Check:
    """Check who chooses the clock."""
    found = {core.governor for core in probe.cores() if core.governor}
    if not found:
        return Check("governor", "unknown", "the device does not tell its governor")
    names = ", ".join(sorted(found))
    slow = [name for name in sorted(found) if name in _SLOW_GOVERNORS]
    if not slow:
        return Check("governor", "ok", names)
    return Check(
        "governor",
        "warn",
        f"{', '.join(slow)} keeps the clock low",
        "on the device run `echo performance | sudo tee "
        "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor`",
    )


def _flags(probe: Probe) -> int | None:
    """Return the throttle flags, those while the core was busy included."""
    found = [
        int(value, 16)
        for name in ("get_throttled", "load_throttled")
        if (value := probe.vcgencmd(name)) is not None
    ]
    return found[0] | found[-1] if found else None


def _no_flags(name: str, probe: Probe) -> Check:
    cpu = parse_cpuinfo(probe.text("cpuinfo") or "")
    if parse_revision(cpu.revision) is None and "raspberrypi" not in (
        probe.text("compatible") or ""
    ):
        return Check(name, "unknown", "the device has no firmware that tells")
    said = probe.text("get_throttled")
    return Check(
        name,
        "unknown",
        f"vcgencmd says {said.splitlines()[0][:80]!r}" if said else "there is no vcgencmd",
        "on the device run `sudo usermod -aG video $USER` and log in again"
        if said
        else how_to_install(probe, "raspi-utils") + " (older systems: libraspberrypi-bin)",
    )
