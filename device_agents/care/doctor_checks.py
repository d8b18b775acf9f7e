"""The doctor's judgements: pure functions from what was probed to one `Check` each.

A check that finds something says what is wrong and the command or act that mends it. What the
device does not tell is `unknown`, which is never an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from device_agents.care import doctor_hardware as hardware
from device_agents.care.diagnosis import Check
from device_agents.care.packages import how_to_clean, how_to_install
from device_agents.plural import number_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_agents.api import DeviceDescription
    from device_agents.care.probe import Probe
    from device_agents.care.probe_parts import Busy

OLDEST_PYTHON = (3, 9, 0)
# Agent, a runtime and a few models; a runtime with numpy takes most of it.
_LEAST_FREE_BYTES = 64 * 2**20
_GOOD_FREE_BYTES = 500 * 2**20
_GOOD_LOAD_PER_CORE = 0.5
_TIME_TOLERANCE_S = 10.0
_LEAST_BATTERY_PERCENT = 30


def python(device: DeviceDescription, probe: Probe) -> Check:
    """Check the interpreter that the agent would run on."""
    if device.runtime == "benchmark_model":
        return Check("python", "ok", "not needed: the profile's runtime is benchmark_model")
    wanted = device.python or "python3"
    found = probe.pythons()
    usable = [item for item in found if item.version >= OLDEST_PYTHON]
    own = next((item for item in found if item.command == wanted), None)
    if device.transport == "local" and not device.python:
        own = next(iter(found), None)
    if own is not None and own in usable:
        version = ".".join(map(str, own.version))
        return Check("python", "ok", f"{version}, {own.bits}-bit, {own.path}")
    problem = f"no {wanted} that runs" if own is None else "{}.{} is too old".format(*own.version)
    if usable:
        advice = f'add `python = "{usable[0].command}"` to the profile'
    elif probe.is_android:
        advice = 'in Termux `pkg install python`; over adb use `runtime = "benchmark_model"`'
    else:
        advice = f"{how_to_install(probe, 'python3')}; 3.9 or newer is needed"
    return Check("python", "fail", f"{problem}; 3.9 or newer is needed", advice)


def system(device: DeviceDescription, probe: Probe) -> Check:
    """Check for a 32-bit system, which few runtimes have wheels for."""
    kernel, userland = probe.kernel_bits, probe.userland_bits
    if kernel is None or userland is None:
        return Check("system", "unknown", "the device does not tell its bits")
    if userland == 64 or device.runtime == "benchmark_model":
        return Check("system", "ok", f"{userland}-bit, {probe.machine}")
    on = "a 64-bit kernel" if kernel == 64 else f"a 32-bit kernel, {probe.machine}"
    reinstall = "install the 64-bit system (Raspberry Pi OS 64-bit)"
    found = f"32-bit userland on {on}: ai-edge-litert and onnxruntime have no wheels for it"
    if device.runtime == "onnx":
        return Check("system", "fail", found, f'{reinstall}, or use `runtime = "tflite"`')
    setup = f"`edgewright device setup {device.name} --runtime tflite` (tflite-runtime)"
    return Check("system", "warn", found, f"{setup}, or {reinstall}, which is faster")


def disk(device: DeviceDescription, probe: Probe, directory: str) -> Check:
    """Check that the device's directory can be written and has space."""
    free = probe.disk_free_bytes
    if probe.directory_writable is False:
        where = probe.lines("directory")[0]
        return Check(
            "disk",
            "fail",
            f"{where} cannot be written: a read-only file system, or another user's folder",
            f"on the device run `sudo mount -o remount,rw {where}`, or set `directory` in the "
            f"profile of {device.name} to a folder of the user's own",
        )
    if free is None:
        return Check("disk", "unknown", f"the device does not tell the free space of {directory}")
    found = f"{free / 1e6:,.0f} MB free for {directory}"
    if free >= _GOOD_FREE_BYTES:
        return Check("disk", "ok", found)
    cleaner = how_to_clean(probe)
    ways = [f"`{command}`" for command in (cleaner, "sudo journalctl --vacuum-size=50M") if command]
    return Check(
        "disk",
        "warn" if free >= _LEAST_FREE_BYTES else "fail",
        found,
        f"free some space there ({', '.join(ways)}), or set `directory` in the profile to a larger "
        "disk",
    )


def programs(
    device: DeviceDescription, probe: Probe, directory: str, runtime: Check
) -> list[Check]:
    """Return a check where programs cannot be run from the device's directory, else none.

    It is a failure, but only a warning where the runtime lies elsewhere and works.
    """
    if not probe.noexec:
        return []
    works = device.runtime != "benchmark_model" and runtime.status == "ok"
    return [
        Check(
            "programs",
            "warn" if works else "fail",
            f"{probe.noexec} is mounted noexec: no program or library in {directory} can be used",
            f"set `directory` in the profile of {device.name} to a folder on another file system, "
            f"or on the device run `sudo mount -o remount,exec {probe.noexec}`",
        )
    ]


def power_mode(probe: Probe) -> Check | None:
    """Check what lowers a phone's or a laptop's clock; None for a board, which has no such mode."""
    reading = probe.sensors()
    wrong = []
    if probe.text("low_power") == "1":
        wrong.append(("battery saver is on", "run `settings put global low_power 0` in its shell"))
    if reading.thermal_status:
        wrong.append((f"thermal status {reading.thermal_status}", "let it cool, out of its case"))
    if reading.charging:
        wrong.append(
            ("it is charging, which heats it", "charge it fully before, or use adb by TCP")
        )
    if probe.battery.overridden:
        wrong.append(("battery state is overridden", "run `dumpsys battery reset` in its shell"))
    percent = reading.battery_percent
    if percent is not None and percent < _LEAST_BATTERY_PERCENT:
        wrong.append((f"battery at {percent} %", f"charge it above {_LEAST_BATTERY_PERCENT} %"))
    profile = probe.text("power_profile")
    if profile in ("low-power", "cool", "quiet"):
        wrong.append((f"power profile {profile}", "run `powerprofilesctl set performance` there"))
    if wrong:
        found, advice = ("; ".join(part) for part in zip(*wrong, strict=True))
        return Check("power mode", "warn", found, advice)
    if percent is None and profile is None and not probe.is_android:
        return None
    parts = [f"battery at {percent} %"] if percent is not None else []
    return Check("power mode", "ok", ", ".join(parts + ([profile] if profile else [])) or "normal")


def time_of_day(probe: Probe, host_s: float) -> Check:
    """Compare the device's date with the host's, `host_s` taken when the probe began or ended."""
    now = probe.number("now")
    if now is None:
        return Check("time", "unknown", "the device does not tell the time")
    off_s = now - host_s
    if abs(off_s) <= _TIME_TOLERANCE_S:
        return Check("time", "ok", "agrees with this computer")
    return Check(
        "time",
        "warn",
        f"{abs(off_s):,.0f} s {'ahead of' if off_s > 0 else 'behind'} this computer",
        "on the device run `sudo timedatectl set-ntp true`, without a network "
        f"`sudo date -s @{host_s:.0f}`",
    )


def load(probe: Probe) -> Check:
    """Check for other work on the device."""
    busy = probe.busy()
    average = probe.sensors().load_average
    cores = probe.cpu_count or 1
    if busy:
        names = ", ".join(map(_busy, busy[:3])) + (f" and {len(busy) - 3} more" * (len(busy) > 3))
        pids = ",".join(str(b.pid) for b in busy[:3])
        others = any(b.own is not True for b in busy[:3])
        whose = (
            "they may be somebody else's work: ask before ending any"
            if others
            else ("end what you do not need")
        )
        advice = f"wait, or look on the device with `ps -fp {pids}` what they do; {whose}"
        return Check("load", "warn", names, advice)
    if average is None:
        return Check("load", "unknown", "the device does not tell its load")
    found = f"load average {average:.2f} on {number_of(cores, 'core')}"
    if average > _GOOD_LOAD_PER_CORE * cores:
        return Check("load", "warn", found, "wait, or look on the device with `top` and end it")
    return Check("load", "ok", found)


def _busy(process: Busy) -> str:
    whose = {True: ", yours", False: f", of {process.owner}", None: ""}[process.own]
    return f"{process.name} (pid {process.pid}{whose}) {process.cpu_share:.0%} of a core"


def leftovers(probe: Probe, directory: str) -> Check:
    """Report what interrupted jobs and transfers have left."""
    found = probe.lines("leftovers")
    if not found:
        return Check("leftovers", "ok", "none")
    shown = ", ".join(found[:3]) + (", …" if found[3:] else "")
    return Check(
        "leftovers",
        "warn",
        f"{len(found)} of interrupted jobs or transfers in {directory}: {shown}",
        f"transfers go when the agent next starts; when nothing is being measured, "
        f"`rm -r {directory}/jobs {directory}/incoming` on the device removes all of them now",
    )


def state(device: DeviceDescription, probe: Probe, directory: str, host_s: float) -> list[Check]:
    """Return every check of this module, in the order in which they are read."""
    checks: list[Callable[[], Check | None]] = [
        lambda: python(device, probe),
        lambda: system(device, probe),
        lambda: disk(device, probe, directory),
        lambda: hardware.temperature(device, probe),
        lambda: hardware.power_supply(probe),
        lambda: hardware.throttling(probe),
        lambda: hardware.governor(probe),
        lambda: hardware.clock(device, probe),
        lambda: power_mode(probe),
        lambda: time_of_day(probe, host_s),
        lambda: load(probe),
        lambda: leftovers(probe, directory),
    ]
    return [found for check in checks if (found := check()) is not None]
