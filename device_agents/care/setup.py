"""Installs an inference runtime on a device that has neither internet nor pip.

The host chooses and downloads the wheels, pushes them by content hash and has the device's own
Python unpack them into a folder of their own. A small launcher there, `python`, adds that folder to
the interpreter: like a venv, and without the module that Debian leaves out. Nothing of the system
is changed; what is half done is never used, and the same call continues it.
"""

from __future__ import annotations

import json
import posixpath
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents import bounded, golden, transports
from device_agents.care import probe
from device_agents.care import wheels as wheelhouse
from device_agents.care.alone import hold
from device_agents.care.doctor_checks import OLDEST_PYTHON
from device_agents.care.packages import how_to_install
from device_agents.care.unpack_script import SCRIPT
from device_agents.errors import (
    AgentError,
    ConfigError,
    DeviceError,
    LinkLost,
    RuntimeMissing,
    TransferFailed,
)
from device_agents.measure import measuring
from device_agents.measure.steps import Sent, silent
from device_agents.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from device_agents.api import DeviceDescription, Leases, Transport
    from device_agents.care.probe import Probe
    from device_agents.care.probe_parts import Python
    from device_agents.care.wheels import Choice

_COMMAND_TIMEOUT_S = 30.0
# Unpacking on a slow card: at least 1 MB/s.
_BYTES_PER_S = 1e6
_SPARE_BYTES = 32 * 2**20
_TOOL = "benchmark_model"


@dataclass(frozen=True, slots=True)
class Installed:
    """What a setup has done.

    Attributes:
        python: for `python` in the profile.
        runtimes: runtime -> package and version, as the agent tells them.
        wheels: file names; empty when everything was there already.
    """

    python: str
    runtimes: dict[str, str]
    wheels: tuple[str, ...]


def install(
    device: DeviceDescription,
    runtimes: Sequence[str],
    *,
    with_python: Callable[[str], DeviceDescription],
    wheels: Path | None = None,
    leases: Leases | None = None,
    say: Callable[[str], None] = lambda _: None,
    on_step: Callable[[Sent], object] = silent,
) -> Installed:
    """Make the runtimes importable on the device, and verify it by the agent itself.

    One set takes the place of another: what the set in use has besides, the new one has too.
    `with_python` returns the same device with another interpreter; `wheels` is a folder to take
    them from in place of pip's index; `say` is told each step, `on_step` how much of a wheel is
    sent; nothing is done on the device while
    others hold its lease. Raises ConfigError, RuntimeMissing, TransferFailed, DeadlineExceeded and
    what connecting raises.
    """
    if _TOOL in runtimes:
        raise ConfigError(
            f"device {device.name!r} needs no setup: its runtime is {_TOOL}, which is pushed with "
            "each measurement; name your binary as `benchmark_binary` in the profile"
        )
    if unknown := sorted(set(runtimes) - set(wheelhouse.INSTALLABLE)):
        raise ConfigError(
            f"no runtime {unknown[0]!r} can be installed; have {', '.join(wheelhouse.INSTALLABLE)}"
        )
    transport = transports.connect(device)
    try:
        directory = probe.absolute(device.directory, transport.home)
        seen = probe.read(transport, directory=directory, timeout_s=60.0)
        python = _interpreter(device, seen)
        with hold(device, seen, leases), _unless_unsafe():
            present, wrong = _verified(device, runtimes)
            if not wrong:
                return Installed(device.python or python.command, present, ())
            say(f"{wrong}; putting another one there")
        _require_programs(device, seen, directory)
        kept = _kept(device, directory)
        runtimes = tuple(dict.fromkeys([*runtimes, *kept]))
        target = wheelhouse.target_of(seen, python)
        with tempfile.TemporaryDirectory(prefix="edgewright-wheels-") as folder:
            say(f"choosing wheels for {target}")
            try:
                choice = wheelhouse.download(runtimes, target, Path(folder), wheels=wheels)
            except RuntimeMissing as error:
                if not kept:
                    raise
                raise RuntimeMissing(
                    f"{error}; {' and '.join(kept)} counts because the set in use has it, and the "
                    "new one takes its place"
                ) from error
            if choice.needs_numpy:
                _require_numpy(device, transport, seen, python)
            with hold(device, seen, leases):
                launcher = _unpacked(device, transport, seen, choice, python, say, on_step)
                return _finished(with_python(launcher), transport, runtimes, choice)
    finally:
        transport.close()


@contextmanager
def _unless_unsafe() -> Iterator[None]:
    """Ignore what is wrong with the agent, which setup mends; raise for a folder of others."""
    try:
        yield
    except DeviceError as error:
        if isinstance(error, AgentError) and error.kind == "unsafe_directory":
            raise


def _interpreter(device: DeviceDescription, seen: Probe) -> Python:
    """Return the profile's interpreter, else the first that is new enough."""
    usable = [item for item in seen.pythons() if item.version >= OLDEST_PYTHON]
    if not usable:
        raise RuntimeMissing(
            f"device {device.name!r} has no Python 3.9 or newer; "
            f"{how_to_install(seen, 'python3')}, "
            'or set `runtime = "benchmark_model"` in the profile'
        )
    return usable[0]


def _require_programs(device: DeviceDescription, seen: Probe, directory: str) -> None:
    if seen.noexec:
        raise TransferFailed(
            f"device {device.name!r}: {seen.noexec} is mounted noexec, so no runtime can be loaded "
            f"from {directory}; set `directory` in its profile to a folder on another file system, "
            f"or run `sudo mount -o remount,exec {seen.noexec}` on the device"
        )


def _kept(device: DeviceDescription, directory: str) -> tuple[str, ...]:
    """Return the runtimes of the set that the profile's interpreter, one of ours, has now."""
    sets = posixpath.dirname(posixpath.dirname(device.python))
    if sets != posixpath.join(directory, "runtime"):
        return ()
    session = Session(device.name, lambda: transports.connect(device), directory=device.directory)
    try:
        found = session.hello["runtimes"]
    except DeviceError:  # the set has gone
        return ()
    finally:
        session.close()
    return tuple(name for name in wheelhouse.INSTALLABLE if name in found)


def _require_numpy(
    device: DeviceDescription, transport: Transport, seen: Probe, python: Python
) -> None:
    argv = [python.path, "-c", "import numpy; print(numpy.__version__)"]
    done = transport.run(argv, timeout_s=_COMMAND_TIMEOUT_S)
    version = done.stdout.decode("utf-8", "replace").strip()
    if done.rc != 0 or not version.startswith("1."):
        found = f"numpy {version}" if done.rc == 0 else "no numpy"
        raise RuntimeMissing(
            f"device {device.name!r}: tflite-runtime needs numpy 1, which has no {python.bits}-bit "
            f"wheel, and {python.path} there has {found}; "
            f"{how_to_install(seen, 'python3-numpy')}, then the setup again"
        )


def _unpacked(
    device: DeviceDescription,
    transport: Transport,
    seen: Probe,
    choice: Choice,
    python: Python,
    say: Callable[[str], None],
    on_step: Callable[[Sent], object],
) -> str:
    """Bring the wheels over and have them unpacked; return the launcher's path."""
    folder = posixpath.join(probe.absolute(device.directory, transport.home), "runtime")
    incoming = posixpath.join(folder, "incoming")
    order = {
        "folder": folder,
        "id": choice.id_for(python.path),
        "python": python.path,
        "wheels": [[wheel.path.name, wheel.sha256] for wheel in choice.wheels],
    }
    unpacked_bytes = sum(wheel.unpacked_bytes for wheel in choice.wheels)
    timeout_s = _COMMAND_TIMEOUT_S + 2 * unpacked_bytes / _BYTES_PER_S

    def ask() -> dict[str, Any]:
        argv = [python.path, "-c", SCRIPT, json.dumps(order)]
        return _answer(device, transport.run(argv, timeout_s=timeout_s).stdout)

    answer = ask()
    if "missing" in answer:
        missing = [wheel for wheel in choice.wheels if wheel.sha256 in answer["missing"]]
        packed_bytes = sum(wheel.path.stat().st_size for wheel in missing)
        _require_space(device, seen, packed_bytes + unpacked_bytes)
        try:
            for wheel in missing:
                say(f"sending {wheel.path.name}")
                target = posixpath.join(incoming, wheel.sha256)
                transport.put(
                    str(wheel.path), target, on_sent=lambda sent, of: on_step(Sent(sent, of))
                )
            say("unpacking")
            answer = ask()
        except TransferFailed:
            transport.run(["rm", "-rf", incoming], timeout_s=_COMMAND_TIMEOUT_S)
            raise
    if "ready" not in answer:
        transport.run(["rm", "-rf", incoming], timeout_s=_COMMAND_TIMEOUT_S)
        reason = answer.get("error", "wheels did not arrive whole")
        raise TransferFailed(
            f"device {device.name!r}: the wheels cannot be unpacked in {folder}: {reason}; run "
            f"`edgewright device doctor {device.name}`"
        )
    return str(answer["ready"])


def _require_space(device: DeviceDescription, seen: Probe, needed_bytes: int) -> None:
    free = seen.disk_free_bytes
    if seen.directory_writable is False:
        raise TransferFailed(
            f"device {device.name!r}: {seen.lines('directory')[0]} cannot be written; run "
            f"`edgewright device doctor {device.name}`"
        )
    if free is not None and free < needed_bytes + _SPARE_BYTES:
        raise TransferFailed(
            f"device {device.name!r} has {free / 1e6:.0f} MB free and the runtime needs "
            f"{(needed_bytes + _SPARE_BYTES) / 1e6:.0f} MB; free some space there, or set "
            "`directory` in its profile to a larger disk"
        )


def _answer(device: DeviceDescription, output: bytes) -> dict[str, Any]:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    try:
        answer = bounded.json_value(lines[-1] if lines else "")
    except bounded.Undecodable:
        answer = None
    if not isinstance(answer, dict):
        raise LinkLost(
            f"device {device.name!r}: unpacking gave no answer; run the setup again, it continues"
        )
    return answer


def _verified(device: DeviceDescription, runtimes: Sequence[str]) -> tuple[dict[str, str], str]:
    """Import the runtimes in an agent of a new connection, and run their golden models.

    Returns what was found, and what they compute wrongly, in words. Raises RuntimeMissing,
    DeviceError.
    """
    session = Session(device.name, lambda: transports.connect(device), directory=device.directory)
    wrong = []
    try:
        for runtime in runtimes:
            measuring.prepare(session, runtime)
            examined = golden.examine(session, device, runtime, device.threads)
            wrong += [] if examined.right else [examined.sentence]
        found = session.hello["runtimes"]
    finally:
        session.close()
    sentence = f"device {device.name!r}: {' and '.join(wrong)}" if wrong else ""
    return {runtime: str(found.get(runtime)) for runtime in runtimes}, sentence


def _finished(
    device: DeviceDescription, transport: Transport, runtimes: Sequence[str], choice: Choice
) -> Installed:
    """Verify with the new interpreter; remove what does not work."""
    names = tuple(wheel.path.name for wheel in choice.wheels)
    try:
        found, wrong = _verified(device, runtimes)
    except DeviceError as error:
        if error.retryable:  # the same setup goes on from here
            raise
        found, wrong = {}, str(error)
    if not wrong:
        return Installed(device.python, found, names)
    home = posixpath.dirname(device.python)
    transport.run(["rm", "-rf", home], timeout_s=_COMMAND_TIMEOUT_S)
    raise RuntimeMissing(f"{wrong}; removed again were the wheels {', '.join(names)}")
