"""A process stopped beyond its lease and woken touches the device no more: others have it.

Real processes, both databases, a device with the agent and ones with a benchmark_model, here and
behind adb.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.store.leases import open_leases
from profiles.schema import DeviceProfile
from tests import lab_adb
from tests.tiny_models import tflite_conv

if TYPE_CHECKING:
    from collections.abc import Iterator

TTL_S = 2.0
LINE_S = 60.0

WORKER = """
import json, sys
from contextlib import contextmanager
from device_agents.api import BenchProtocol, Failure
from device_agents.errors import EdgewrightError
from device_agents.opening import open_device
from pipeline.store.leases import open_leases
from profiles.schema import DeviceProfile

location, ttl_s, values, act, model = sys.argv[1:]

def say(*words):
    print(*words, flush=True)

class Gate:
    "Leases that stand still where a device has just been taken."

    def __init__(self, leases):
        self.leases = leases

    @contextmanager
    def hold(self, device, **how):
        with self.leases.hold(device, **how) as lease:
            say("holds", device)
            sys.stdin.readline()
            yield lease

with (
    open_leases(location, ttl_s=float(ttl_s)) as leases,
    open_device(DeviceProfile(**json.loads(values)), leases=Gate(leases)) as device,
):
    try:
        if act == "measure":
            found = device.measure(model, BenchProtocol.quick())
        else:
            found = device.releases.deploy(model, "net", "v1", check=lambda runs: None)
        say("ends", found.reason if isinstance(found, Failure) else "well")
    except EdgewrightError as error:
        say("ends", error)
"""


class Worker:
    def __init__(self, location: str, profile: DeviceProfile, act: str, model: Path) -> None:
        values = json.dumps(asdict(profile))
        command = [sys.executable, "-c", WORKER, location, str(TTL_S), values, act, str(model)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], LINE_S)[0], "it says nothing"
        return self.process.stdout.readline().decode().strip()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=30)


@contextmanager
def working(
    location: str, profile: DeviceProfile, act: str, model: Path
) -> Iterator[tuple[Worker, str]]:
    """Yield a process that has just taken its device, and the key that it took it by."""
    worker = Worker(location, profile, act, model)
    try:
        word, _, key = worker.line().partition(" ")
        assert word == "holds"
        yield worker, key
    finally:
        worker.end()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tflite_conv(tmp_path / "net.tflite")


@pytest.fixture
def local(tmp_path: Path) -> DeviceProfile:
    return DeviceProfile("here", transport="local", directory=str(tmp_path / "device"))


@pytest.fixture
def noting(tmp_path: Path) -> Path:
    """Return a benchmark_model that notes that it was started."""
    binary = tmp_path / "noting"
    binary.write_text(f"#!/bin/sh\necho started >>{tmp_path / 'starts'}\nexit 1\n")
    binary.chmod(0o755)
    return binary


def stopped_beyond_its_lease(location: str, profile: DeviceProfile, act: str, model: Path) -> str:
    """Return what a worker says that is woken while another holds its device."""
    with working(location, profile, act, model) as (worker, key):
        worker.process.send_signal(signal.SIGSTOP)
        try:
            with open_leases(location, ttl_s=TTL_S) as leases, leases.hold(key, timeout_s=LINE_S):
                worker.process.send_signal(signal.SIGCONT)
                worker.go_on()
                return worker.line()
        finally:
            worker.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("database", "act"), [("sqlite", "measure"), ("postgresql", "measure"), ("sqlite", "deploy")]
)
def test_an_agent_is_asked_nothing(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    local: DeviceProfile,
    model: Path,
    database: str,
    act: str,
) -> None:
    location = str(tmp_path / "store")
    if database == "postgresql":
        location = str(request.getfixturevalue("server"))
    said = stopped_beyond_its_lease(location, local, act, model)
    assert said.startswith("ends the lease on device 'here' ended before the measurement did"), said
    device = Path(local.directory)
    # Not even the model was sent: no call was made once the lease was gone.
    there = [path for name in ("models", "deployed") for path in (device / name).rglob("*")]
    assert not [path for path in there if path.is_file()]
    assert not list(device.rglob("jobs/*.json"))


def tool(noting: Path, **changes: Any) -> dict[str, Any]:
    return {"runtime": "benchmark_model", "benchmark_binary": str(noting), **changes}


def test_no_benchmark_is_started_here(
    tmp_path: Path, local: DeviceProfile, model: Path, noting: Path
) -> None:
    profile = DeviceProfile(**{**asdict(local), **tool(noting)})
    said = stopped_beyond_its_lease(str(tmp_path / "store"), profile, "measure", model)
    assert said.startswith("ends the lease on device 'here' ended"), said
    assert not (tmp_path / "starts").exists()


def test_no_benchmark_is_started_behind_adb(tmp_path: Path, model: Path, noting: Path) -> None:
    (tmp_path / "adb").mkdir()
    with lab_adb.phone(tmp_path / "adb") as (server, phone):
        profile = server.profile(phone, **tool(noting))
        said = stopped_beyond_its_lease(str(tmp_path / "store"), profile, "measure", model)
    assert said.startswith("ends the lease on device 'phone' ended"), said
    assert not (tmp_path / "starts").exists()


def test_a_worker_that_was_stopped_for_a_moment_goes_on(
    tmp_path: Path, local: DeviceProfile, model: Path
) -> None:
    """The other side of it: nobody came meanwhile, so the lease is renewed and used."""
    with working(str(tmp_path / "store"), local, "measure", model) as (worker, _):
        worker.process.send_signal(signal.SIGSTOP)
        worker.process.send_signal(signal.SIGCONT)
        worker.go_on()
        assert worker.line() == "ends well"
