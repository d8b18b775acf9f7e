"""What the doctor asks the agent: the runtime, and whether it computes what it should.

The agent is started as for every measurement, so what is found here is found there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from device_agents import bounded, golden
from device_agents.agent.store import KEEP_BYTES
from device_agents.care import cleaning, probe
from device_agents.care.diagnosis import Check
from device_agents.errors import DeviceError, RuntimeMissing
from device_agents.measure import measuring
from device_agents.refusals import blame_answer
from device_agents.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from device_agents.api import DeviceDescription, Transport
    from device_agents.care.probe import Probe

NAMES = ("runtime", "outputs", "models")
_USAGE_TIMEOUT_S = 20.0


def checks(
    device: DeviceDescription, transport: Transport, seen: Probe, found: Sequence[Check]
) -> list[Check]:
    """Return a check for each of `NAMES`; `found` are those before them."""
    if device.runtime == "benchmark_model":
        told = "cannot be checked: benchmark_model tells none"
        return [_binary(device), Check("outputs", "unknown", told), _held(device, transport)]
    broken = [check.name for check in found if check.status == "fail"]
    for needed in ("python", "disk", "transfers"):
        if needed in broken:
            reason = f"not looked at: mend {needed} first"
            return [Check(name, "unknown", reason) for name in NAMES]
    session = Session(device.name, lambda: transport, directory=device.directory)
    try:
        runtime = _runtime(device, session, seen)
        if runtime.status == "fail":
            reason = "not looked at: mend runtime first"
            return [runtime, *(Check(name, "unknown", reason) for name in NAMES[1:])]
        return [runtime, _outputs(device, session), _models(device, session)]
    finally:
        session.close()


def _runtime(device: DeviceDescription, session: Session, seen: Probe) -> Check:
    name = device.runtime
    try:
        measuring.prepare(session, name)
        version = session.hello["runtimes"].get(name, name)
    except RuntimeMissing as error:
        advice = f"run `edgewright device setup {device.name}`"
        if seen.userland_bits == 32 and name == "onnx":
            advice = 'use `runtime = "tflite"`: onnxruntime has no 32-bit wheels'
        said = str(error).removeprefix(f"device {device.name!r}: ")
        return Check("runtime", "fail", said.partition("; ")[0], advice)
    except DeviceError as error:
        sentence, _, advice = str(error).partition("; ")
        return Check("runtime", "fail", sentence, advice or "correct `python` in the profile")
    return Check("runtime", "ok", f"{name}: {version}")


def _outputs(device: DeviceDescription, session: Session) -> Check:
    """Run the golden model: a runtime may compute wrongly without a word."""
    if not golden.exists_for(device.runtime):
        told = f"cannot be checked: the {device.runtime} runtime computes no networks"
        return Check("outputs", "unknown", told)
    try:
        found = golden.examine(session, device, device.runtime, device.threads)
    except DeviceError as error:
        sentence, _, advice = str(error).partition("; ")
        return Check("outputs", "fail", sentence, advice or "run the doctor again")
    if found.right:
        return Check("outputs", "ok", found.sentence)
    advice = f"{golden.advice(device.name)}; until then files without such an op are right there"
    return Check("outputs", "fail", found.sentence, advice)


def _models(device: DeviceDescription, session: Session) -> Check:
    """Tell what the pushed models take, and may take."""
    try:
        told = session.call("usage", timeout_s=_USAGE_TIMEOUT_S, keep_bytes=KEEP_BYTES)
        with blame_answer(device.name, "usage"):
            count, size, bound = (int(told[name]) for name in ("models", "bytes", "bound_bytes"))
    except DeviceError as error:
        return Check("models", "unknown", str(error).partition("; ")[0])
    found = f"{count} files, {size / 1e6:,.0f} MB of at most {bound / 1e6:,.0f} MB"
    if size <= bound:
        return Check("models", "ok", found)
    advice = f"run `edgewright device clean {device.name}`; they are sent again when needed"
    return Check("models", "warn", f"{found} that fit its disk", advice)


def _held(device: DeviceDescription, transport: Transport) -> Check:
    """Tell what was pushed to a device without an agent, which keeps it until it is cleaned."""
    directory = probe.absolute(device.directory, transport.home)
    try:
        found = cleaning.look(transport, directory, device.name)
    except DeviceError as error:
        return Check("models", "unknown", str(error).partition("; ")[0])
    if found.size_bytes <= KEEP_BYTES:
        return Check("models", "ok", found.words)
    advice = f"run `edgewright device clean {device.name}`; they are sent again when needed"
    return Check("models", "warn", found.words, advice)


def _binary(device: DeviceDescription) -> Check:
    path = device.benchmark_binary
    if path and bounded.is_file(Path(path).expanduser()):
        return Check("runtime", "ok", f"benchmark_model: {path}")
    return Check(
        "runtime",
        "fail",
        f"there is no file {path!r} on this computer" if path else "no benchmark_model is named",
        "set `benchmark_binary` in the profile to a benchmark_model built for the device",
    )
