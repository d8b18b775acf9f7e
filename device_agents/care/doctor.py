"""Looks a device over and says what is wrong with it and the command that mends it.

Everything but what the agent is asked (`doctor_agent`) works through a shell alone, so that the
doctor has something to say of a device without Python, too. A device that cannot be reached is
itself a finding: the sentence of the error becomes the first check, and the others are unknown.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from device_agents import transports
from device_agents.care import boards, doctor_agent, probe
from device_agents.care import doctor_checks as checks
from device_agents.care.alone import hold
from device_agents.care.diagnosis import Check, Diagnosis
from device_agents.errors import (
    AuthenticationFailed,
    DeadlineExceeded,
    DeviceError,
    HostKeyError,
    LeaseLost,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_agents.api import DeviceDescription, Leases, Transport
    from device_agents.care.probe import Probe

_ROUND_TRIPS = 5
_SLOW_ROUND_TRIP_S = 1.0
_COMMAND_TIMEOUT_S = 20.0
_PROBE_TIMEOUT_S = 60.0
_NOT_IN_USE = "not looked at while it is in use"
_UNREACHED = (
    *("python", "system", "disk", "temperature", "power supply", "throttling", "governor"),
    *("clock", "time", "load", "leftovers", *doctor_agent.NAMES),
)


def examine(
    device: DeviceDescription,
    *,
    leases: Leases | None = None,
    root: str = "",
    clock: Callable[[], float] = time.time,
) -> Diagnosis:
    """Look the device over; raises ConfigError only, and StoreError from `leases`.

    While others hold the device's lease it is only read, not made busy. `root` is that of
    `probe.read`.
    """
    try:
        transport = transports.connect(device)
    except DeviceError as error:
        return Diagnosis(device.name, "", (*_refused(device, error), *_unknown(_UNREACHED)))
    try:
        return _examined(device, transport, leases, root, clock)
    finally:
        transport.close()


def _examined(
    device: DeviceDescription,
    transport: Transport,
    leases: Leases | None,
    root: str,
    clock: Callable[[], float],
) -> Diagnosis:
    found = [*_login(device)]

    def read(depth: probe.Depth) -> tuple[Probe, float]:
        """Return what the device tells, and the host's time nearest to when it told the time."""
        begun = clock()
        seen = probe.read(
            transport, depth=depth, directory=directory, root=root, timeout_s=_PROBE_TIMEOUT_S
        )
        return seen, min(max(float(seen.number("now") or 0), begun), clock())

    # A lease lost meanwhile spoils no figure here.
    with suppress(LeaseLost), ExitStack() as stack:
        try:
            found.insert(0, _round_trip(transport))
            directory = probe.absolute(device.directory, transport.home)
            seen, host_s = read("facts")
            user = _hold(stack, device, seen, leases)
            if not user:
                seen, host_s = read("load")
        except DeviceError as error:
            default = "see whether another connection works, and whether `sh` does there"
            found.append(_failed("shell", error, default))
            return Diagnosis(device.name, "", (*found, *_unknown(_UNREACHED)))
        found += checks.state(device, seen, directory, host_s)
        if user:
            left_out = {
                "clock": Check("clock", "unknown", _NOT_IN_USE),
                "load": _in_use(user),
            }
            found = [left_out.get(check.name, check) for check in found]
            found += [Check(name, "unknown", _NOT_IN_USE) for name in doctor_agent.NAMES]
        else:
            found += _transfers(device, transport)
            told = doctor_agent.checks(device, transport, seen, found)
            found += [*checks.programs(device, seen, directory, told[0]), *told]
    return Diagnosis(device.name, boards.recognise(seen).name, tuple(found))


def _hold(stack: ExitStack, device: DeviceDescription, seen: Probe, leases: Leases | None) -> str:
    """Hold the device until the stack is closed; if others hold it, return who, as a sentence."""
    try:
        stack.enter_context(hold(device, seen, leases))
    except DeadlineExceeded as error:
        return str(error)
    return ""


def _in_use(sentence: str) -> Check:
    found = sentence.partition("; ")[0]
    advice = "run the doctor again when `edgewright device status` shows nobody on it"
    return Check("load", "warn", found, advice)


def _refused(device: DeviceDescription, error: DeviceError) -> list[Check]:
    """Turn the reason for which there is no connection into the checks up to it."""
    sentence, _, advice = str(error).partition("; ")
    if isinstance(error, (HostKeyError, AuthenticationFailed)):
        met = Check("link", "ok", "the device answers")
        if isinstance(error, HostKeyError):
            return [met, Check("host key", "fail", sentence, advice), *_unknown(("login",))]
        return [met, Check("host key", "ok", "known"), Check("login", "fail", sentence, advice)]
    default = "switch it on, connect it to the network, and see whether the address is right"
    link = Check("link", "fail", sentence, advice or default)
    return [link, *_unknown(("host key", "login") if device.transport == "ssh" else ())]


def _unknown(names: tuple[str, ...]) -> list[Check]:
    return [Check(name, "unknown", "not looked at") for name in names]


def _login(device: DeviceDescription) -> list[Check]:
    if device.transport != "ssh":
        return []
    return [
        Check("host key", "ok", "known and unchanged"),
        Check("login", "ok", f"as {device.user or 'the usual user'}"),
    ]


def _round_trip(transport: Transport) -> Check:
    """Time a command that does nothing: what each start of a process costs over this link."""
    times = []
    for _ in range(_ROUND_TRIPS):
        begun = time.perf_counter()
        transport.run(["true"], timeout_s=_COMMAND_TIMEOUT_S)
        times.append(time.perf_counter() - begun)
    median_s = sorted(times)[len(times) // 2]
    found = f"a command takes {median_s * 1000:.0f} ms"
    if median_s < _SLOW_ROUND_TRIP_S:
        return Check("link", "ok", found)
    advice = "use a cable in place of wireless; see what the login scripts there do"
    return Check("link", "warn", found, advice)


def _failed(name: str, error: DeviceError, default_advice: str) -> Check:
    sentence, _, advice = str(error).partition("; ")
    return Check(name, "fail", sentence, advice or default_advice)


def _transfers(device: DeviceDescription, transport: Transport) -> list[Check]:
    """Copy a file of no bytes while a program runs, as in a measurement; puts nothing there."""
    if device.transport != "ssh":
        return []
    stream = None
    try:
        stream = transport.open(["cat"])
        with tempfile.TemporaryDirectory() as folder:
            transport.get("/dev/null", f"{folder}/null")
    except DeviceError as error:
        return [_failed("transfers", error, "see what `sftp` says when it connects there")]
    finally:
        if stream is not None:
            stream.close()
    return [Check("transfers", "ok", "files can be copied while a program runs")]
