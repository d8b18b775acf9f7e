"""The gate before a measurement: begin only when the device is cool and as fast as it can be.

Heat is seen in two ways: by a temperature, where the device tells one, and by a canary, a tiny
fixed job on one CPU whose time is compared with the best it ever took there (the idea of androidx's
ThrottleDetector). The canary needs no right and no sensor, and sees capped clocks and other load
too. Time is passed in, so that the gate is tested without waiting.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from device_agents.api import BenchProtocol, SensorReading

_POLL_S = 1.0
# What is left may be a rounding error of the clock, which no pause would use up.
_SHORTEST_PAUSE_S = 0.001
# After the run: a neighbour's burst of load passes within this, heat does not.
_RETRIES = 4
_RETRY_S = 0.05


@dataclass(frozen=True, slots=True)
class Canary:
    """How long the fixed job took, and the best it ever took on this device."""

    ms: float
    idle_ms: float

    @property
    def factor(self) -> float:
        """How many times slower than at its best."""
        return self.ms / self.idle_ms


@dataclass(frozen=True, slots=True)
class Gate:
    """What decides whether a device is ready.

    Attributes:
        name: of the device, for the sentence.
        cool_celsius: not ready above it; None: any temperature will do.
        read: reads the state.
        canary: runs the canary; None where the device cannot.
    """

    name: str
    cool_celsius: float | None
    read: Callable[[], SensorReading]
    canary: Callable[[], Canary | None]


@dataclass(frozen=True, slots=True)
class Ready:
    """The state in which the gate opened."""

    reading: SensorReading
    canary: Canary | None
    waited_s: float


def wait_until_cool(
    gate: Gate,
    protocol: BenchProtocol,
    *,
    pause: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Ready:
    """Return when the device is ready; raises AgentError of kind `not_cool` at the deadline."""
    start = clock()
    while True:
        reading = gate.read()
        problem, advice = _heat(reading, gate.cool_celsius)
        canary = None
        if not problem and protocol.canary_limit is not None:
            canary = gate.canary()
            problem, advice = _slowness(canary, protocol.canary_limit)
        waited_s = clock() - start
        if not problem:
            return Ready(reading, canary, waited_s)
        left_s = protocol.cool_deadline_s - waited_s
        if left_s < _SHORTEST_PAUSE_S:
            raise AgentError(
                f"device {gate.name!r} is not ready: {problem} after {waited_s:.0f} s of waiting; "
                f"{advice}",
                kind="not_cool",
                retryable=True,
            )
        pause(min(_POLL_S, left_s))


def canary_after(
    run: Callable[[], Canary | None],
    limit: float,
    *,
    pause: Callable[[float], object] = time.sleep,
) -> Canary | None:
    """Return the canary after a run: its best of a few when the first is over the limit."""
    best = run()
    for _ in range(_RETRIES):
        if best is None or best.factor <= limit:
            break
        pause(_RETRY_S)
        again = run()
        if again is not None and again.factor < best.factor:
            best = again
    return best


def _heat(reading: SensorReading, limit: float | None) -> tuple[str, str]:
    celsius = reading.governing_celsius
    if limit is None or celsius is None or celsius <= limit:
        return "", ""
    problem = f"{celsius:.1f} °C is over {limit:.1f} °C"
    return problem, "let it rest, cool it, or raise `cool_celsius` in its profile"


def _slowness(canary: Canary | None, limit: float) -> tuple[str, str]:
    if canary is None or canary.factor <= limit:
        return "", ""
    problem = f"its canary took {canary.factor:.2f} x its best time, over {limit:.2f} x"
    return problem, "stop what else runs there, and check its power supply and its clock"
