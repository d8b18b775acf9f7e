"""A simulated board: its clock, its heat, its files and its faults, in virtual time.

A board exists once per process and profile, like a real one: connections come and go, and what it
did stays. Files lie in a folder of their own below the system's folder for temporary files.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import shutil
import tempfile
import threading
import uuid
import weakref
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents.agent import readings
from device_agents.agent.clock import Clock
from device_agents.fakes.script import NO_FAULT, read_script

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_agents.api import DeviceDescription
    from device_agents.fakes.script import Fault, Script

# One step down or up per so much busy or idle time.
_CLOCK_STEP_S = 0.1
_HORIZON_NS = 1 << 61


class Hung(BaseException):
    """The code under way would never end. No Exception: nothing between may take it for one."""


class Died(BaseException):
    """The code under way would have ended its process. No Exception, as `Hung`."""


@dataclass(frozen=True, slots=True)
class Execution:
    """A job that a board did; `lost` if it ended before its answer was there."""

    job_id: str
    seed: int
    lost: bool


@dataclass(frozen=True, slots=True)
class Running:
    """A job in its middle, whose link was cut.

    Attributes:
        keep: writes its answer, which the simulation knows already.
        ends_ns: when it comes to its end.
        given_up_ns: when it is killed, unless somebody has come back for it.
    """

    job_id: str
    seed: int
    keep: Callable[[], None]
    ends_ns: int
    given_up_ns: int


class FakeBoard(Clock):
    """One simulated board; is the `Clock` of whatever runs on it.

    Attributes:
        identity: tells it from all other boards.
        lock: held by whoever uses the board; several sessions may reach it.
        epoch: rises with every reboot; a connection of an earlier one is dead.
        befalling: what befalls it at the call under way.
        running: the job that goes on without its link; None: there is none.
        executions: every job that ended here, in order.
        rejoined: how many calls found the answer of an earlier one with their id.
        rejoined_running: how many of them waited for it, since the job still ran.
        injected: how many faults of each kind have befallen it.
    """

    def __init__(self, script: Script, identity: str) -> None:
        self.script = script
        self.identity = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self.lock = threading.RLock()
        self.folder = Path(tempfile.mkdtemp(prefix="edgewright-fake-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.epoch = 0
        self.befalling = NO_FAULT
        self.running: Running | None = None
        self.executions: list[Execution] = []
        self.rejoined = 0
        self.rejoined_running = 0
        self.injected: Counter[str] = Counter()
        self._rng = random.Random(script.seed)  # noqa: S311  # a simulation, no secrets
        self._boot_id = self._new_boot_id()
        self._now_ns = 0
        self._booted_ns = 0
        self._down_until_ns = 0
        self._celsius = script.thermal.ambient_celsius
        self._step = 0
        self._stepped_ns = 0
        self._heated_ns = 0
        self._flags = 0
        self._calls = 0

    # The clock of the code that runs on the board.

    def now_ns(self) -> int:
        """Return the board's time, as its clock tells it."""
        step_ns = round(self.script.board.clock_step_ms * 1e6)
        return self._now_ns // step_ns * step_ns if step_ns else self._now_ns

    def spend(self, duration_ns: int) -> None:
        """Be busy for what takes so long at the highest clock; the board's factor comes on top."""
        if duration_ns > _HORIZON_NS:
            raise Hung
        latency = self.script.latency
        noise = max(0.1, self._rng.gauss(1.0, latency.noise)) if latency.noise else 1.0
        clocks = self.script.board.clocks_khz
        slower = clocks[0] / clocks[self._step]
        self._pass(duration_ns * latency.factor * noise * slower, busy=1.0 / slower)

    def work(self, job: Callable[[], None], typical_ns: int) -> None:
        """Be busy for what the job typically takes."""
        del job
        self.spend(typical_ns)

    def sleep(self, seconds: float) -> None:
        """Be idle."""
        self._pass(seconds * 1e9, busy=0.0)

    def die(self) -> None:
        """End the process of the code under way."""
        raise Died

    def seconds(self) -> float:
        """Return the board's time, by which its host deals with it."""
        return self._now_ns / 1e9

    def pause(self, seconds: float) -> None:
        """Let time pass that the host waits."""
        with self.lock:
            self.sleep(seconds)

    def _pass(self, duration_ns: float, *, busy: float) -> None:
        thermal, start_ns = self.script.thermal, max(self._now_ns, self._heated_ns)
        self._now_ns += int(duration_ns)
        seconds = max(0, self._now_ns - start_ns) / 1e9
        level = thermal.ambient_celsius
        if busy:
            level += busy * thermal.heat_celsius_per_s / thermal.cooling_per_s
        self._celsius += (level - self._celsius) * -math.expm1(-thermal.cooling_per_s * seconds)
        steps = int((self._now_ns - self._stepped_ns) / (_CLOCK_STEP_S * 1e9))
        if steps > 0:
            self._stepped_ns = self._now_ns
            self._govern(steps)

    def _govern(self, steps: int) -> None:
        if self._celsius >= self.script.thermal.throttle_celsius:
            self._step = min(len(self.script.board.clocks_khz) - 1, self._step + steps)
        elif self._celsius < self.script.thermal.recover_celsius:
            self._step = max(0, self._step - steps)
        self._flags |= self._active_flags()

    def _active_flags(self) -> int:
        # As on a Raspberry Pi: under-voltage, clock capped, throttled, soft temperature limit.
        flags = int(self.script.board.under_voltage)
        return flags | (0b1110 if self._step else 0)

    # What the agent asks of it.

    def read(self, directory: str, max_age_s: float = 0.0) -> dict[str, Any]:
        """Return the state as `agent/sensors.py` does."""
        del directory, max_age_s
        active = self._active_flags()
        return {
            "soc_celsius": round(self._celsius, 3),
            "clock_khz": self.script.board.clocks_khz[self._step],
            "governor": "performance",
            "throttled": active | (active | self._flags) << 16,
            "load_average": 0.0,
            "memory_available_bytes": self.script.board.memory_bytes // 2,
            "disk_free_bytes": 0 if self.full else 8 << 30,
            "boot_id": self._boot_id,
            "uptime_s": (self._now_ns - self._booted_ns) / 1e9,
        }

    def at_load(self, cpus: list[int]) -> dict[str, Any]:
        """Return what is read between two invokes, as `agent/sensors.py` does."""
        del cpus
        state = self.read("")
        return {name: state[name] for name in ("soc_celsius", "clock_khz", "throttled")}

    def busiest(self, cpus: list[int]) -> readings.Core:
        """Return the clock right now: all cores are of a kind."""
        del cpus
        clocks = self.script.board.clocks_khz
        return readings.Core(0, clocks[self._step], clocks[0])

    def fastest_khz(self) -> int:
        """Return the highest clock."""
        return self.script.board.clocks_khz[0]

    # What befalls it.

    @property
    def full(self) -> bool:
        """Whether its disk is full at the moment."""
        return self.befalling.kind == "disk_full"

    def call(self) -> Fault:
        """Count a call; return what befalls the device at it, NO_FAULT mostly."""
        self._calls += 1
        for fault in self.script.fault:
            due = fault.at_call > 0 and (
                self._calls % fault.at_call == 0 if fault.repeat else self._calls == fault.at_call
            )
            if due or (fault.probability and self._rng.random() < fault.probability):
                self.injected[fault.kind] += 1
                return fault
        return NO_FAULT

    @property
    def down(self) -> bool:
        """Whether nothing reaches the device at the moment."""
        return self._now_ns < self._down_until_ns

    def go_down(self, seconds: float) -> None:
        """Be out of reach for so long."""
        self._down_until_ns = self._now_ns + int(seconds * 1e9)

    def reboot(self) -> None:
        """Lose everything but the files."""
        self.end_running()
        self.epoch += 1
        self._boot_id = self._new_boot_id()
        self._booted_ns = self._now_ns
        self._flags = 0

    def go_back(self, now_ns: int, job: Running) -> None:
        """Go back into a job that was simulated to its end; what it heated stays."""
        self.running = job
        self._heated_ns, self._now_ns = self._now_ns, now_ns

    def wait_for_running(self) -> None:
        """Let the running job come to its end; somebody has come back for it in time."""
        self.settle()
        if self.running is not None:
            self.rejoined_running += 1
            self.sleep((self.running.ends_ns - self._now_ns) / 1e9)
            self._ended(lost=False)

    def settle(self) -> None:
        """End the running job if its time has come: with an answer, or because nobody came back."""
        job = self.running
        if job is not None and self._now_ns >= min(job.ends_ns, job.given_up_ns):
            self._ended(lost=job.given_up_ns < job.ends_ns)

    def end_running(self) -> None:
        """Kill the running job, unless its time had come before."""
        self.settle()
        self._ended(lost=True)

    def _ended(self, *, lost: bool) -> None:
        job, self.running = self.running, None
        if job is not None:
            self.executions.append(Execution(job.job_id, job.seed, lost))
            if not lost:
                job.keep()

    def jump(self, seconds: float) -> None:
        """Move the wall clock: to code on the device all its files are older by so much."""
        for path in self.folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                then = path.stat().st_mtime - seconds
                os.utime(path, (then, then))

    def _new_boot_id(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128)))


_boards: dict[tuple[str, str], FakeBoard] = {}
_boards_lock = threading.Lock()


def board_of(device: DeviceDescription) -> FakeBoard:
    """Return the board of a profile, the same one each time; raises ConfigError."""
    key = (device.name, device.address)
    with _boards_lock:
        if key not in _boards:
            _boards[key] = FakeBoard(read_script(device.address), device.name)
        return _boards[key]


def add_board(device: DeviceDescription, script: Script) -> FakeBoard:
    """Give a profile a new board with a script that lies in no file."""
    board = FakeBoard(script, device.name)
    with _boards_lock:
        _boards[device.name, device.address] = board
    return board
