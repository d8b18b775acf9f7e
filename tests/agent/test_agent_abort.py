"""Giving up from another thread, as Ctrl-C does: nothing waits, nothing connects again."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from device_agents import transports
from device_agents.api import BenchProtocol, Failure, Measurement
from device_agents.errors import LinkLost
from device_agents.runner import Device
from tests import lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from profiles.schema import DeviceProfile

# An hour in one process: only the abort can end it.
ENDLESS = replace(
    BenchProtocol.thorough(),
    max_s=3600.0,
    min_samples=10**9,
    max_samples=10**9,
    budget_s=3600.0,
    deadline_s=3600.0,
)


@pytest.fixture(params=["local", "ssh"])
def opened(
    request: pytest.FixtureRequest,
    local: Callable[..., DeviceProfile],
    server: lab.LoopbackSsh,
    tmp_path: Path,
) -> Iterator[Device]:
    profile = local() if request.param == "local" else server.profile(tmp_path / "device")
    with lab.deadline(60), Device.open(profile) as device:
        yield device


def agent_of(device: Device) -> int:
    """Return the process id of the agent, the only process with the device's folder."""
    folder = os.fsencode(device.hello["directory"])
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            arguments = (
                (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            )
            if b"--directory" in arguments and folder in arguments:
                return int(entry.name)
    raise LookupError(folder)


def state(pid: int) -> str:
    """Return the process's state letter; Z also for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_abort_ends_a_running_measurement(opened: Device, models: Path, stopped: bool) -> None:  # noqa: FBT001
    agent = agent_of(opened)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(opened.measure, models / "small.tflite", ENDLESS)
        child = lab.poll(lambda: lab.children(agent))[0]
        try:
            if stopped:
                os.kill(agent, signal.SIGSTOP)
                lab.poll(lambda: state(agent) == "T")
            begin = time.monotonic()
            opened.abort()
            result = running.result(timeout=10.0)
            taken_s = time.monotonic() - begin
        finally:
            # Over SSH a stopped agent can only notice the lost link when it goes on.
            with suppress(ProcessLookupError):
                os.kill(agent, signal.SIGCONT)
    assert taken_s < 3.0
    assert isinstance(result, Failure)
    assert (result.kind, result.retryable) == ("link", True)
    assert result.reason.endswith("aborted")
    lab.poll(lambda: state(agent) == state(child) == "Z")


def test_nothing_connects_again_after_an_abort(
    opened: Device, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = agent_of(opened)
    path = models / "small.tflite"
    assert isinstance(opened.measure(path, BenchProtocol.quick()), Measurement)
    opened.abort()
    opened.abort()
    lab.poll(lambda: state(agent) == "Z")

    def refuse(_: object) -> None:
        pytest.fail("connected again")

    monkeypatch.setattr(transports, "connect", refuse)
    assert isinstance(opened.measure(path, BenchProtocol.quick()), Failure)
    assert isinstance(opened.infer(path, []), Failure)
    assert isinstance(opened.releases.infer("net", "1", []), Failure)
    calls: list[Callable[[], object]] = [
        opened.sensors,
        opened.releases.list_all,
        lambda: opened.prepare("tflite"),
        lambda: opened.releases.deploy(path, "net", "1", check=lab.unchecked),
        lambda: opened.hello,
    ]
    for call in calls:
        with pytest.raises(LinkLost, match="aborted"):
            call()
    opened.close()


def test_abort_while_connecting_starts_no_agent(
    local: Callable[..., DeviceProfile], monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = local()
    with Device.open(profile) as device:
        device.close()
        connect = transports.connect

        def connected(description: Any) -> Any:
            # The abort comes when the connection exists, and before the session has it.
            made = connect(description)
            device.abort()
            monkeypatch.setattr(made, "open", lambda _: pytest.fail("an agent was started"))
            return made

        monkeypatch.setattr(transports, "connect", connected)
        with pytest.raises(LinkLost, match="aborted"):
            device.sensors()
