"""What a fake device is and what befalls it: one TOML file.

    seed = 0
    [board]       name, model, cores, memory_bytes, clocks_khz (fastest first), under_voltage,
                  clock_step_ms
    [latency]     factor, noise
    [thermal]     ambient_celsius, heat_celsius_per_s, cooling_per_s, throttle_celsius,
                  recover_celsius
    [[fault]]     kind, and at_call (counted from 1 over all connections) or probability;
                  repeat = true: at every at_call-th call;  phase = "before", "during" or "after"
                  what the device was asked to do;  down_s: how long nothing reaches it;  jump_s

Every key may be left out; then the device is healthy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device_agents import bounded
from device_agents.errors import ConfigError
from device_agents.plain_values import bounds, from_plain

if TYPE_CHECKING:
    from collections.abc import Mapping

FAULTS = ("cut", "agent_killed", "reboot", "disk_full", "hang", "garbage", "clock_jump")
PHASES = ("before", "during", "after")
_ENDING = ("cut", "agent_killed", "reboot")


@dataclass(frozen=True, slots=True)
class Board:
    """What the device says of itself; `clock_step_ms` is how coarsely it tells the time."""

    model: str = "Fake board"
    cores: int = 4
    memory_bytes: int = 4 << 30
    clocks_khz: tuple[int, ...] = field(
        default=(1_800_000, 1_500_000, 1_000_000, 600_000), metadata=bounds(low=1, filled=True)
    )
    under_voltage: bool = False
    clock_step_ms: float = field(default=0.0, metadata=bounds(low=0))


@dataclass(frozen=True, slots=True)
class Latency:
    """How its invokes differ from what the null model says: a factor, and a share of noise."""

    factor: float = field(default=1.0, metadata=bounds(above=0))
    noise: float = field(default=0.0, metadata=bounds(low=0))


@dataclass(frozen=True, slots=True)
class Thermal:
    """Newton's cooling: dT/dt = heat (while busy) - cooling · (T - ambient).

    Attributes:
        ambient_celsius: where it starts and what it cools to.
        heat_celsius_per_s: rise per busy second at the highest clock, without cooling.
        cooling_per_s: share of the excess that is lost per second.
        throttle_celsius: from here on the clock falls a step at a time.
        recover_celsius: below this it rises again.
    """

    ambient_celsius: float = 40.0
    heat_celsius_per_s: float = 1.0
    cooling_per_s: float = field(default=0.1, metadata=bounds(above=0))
    throttle_celsius: float = 80.0
    recover_celsius: float = 75.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that befalls the device; calls are those of the agent, and file transfers.

    Attributes:
        kind: of FAULTS.
        at_call: at which call, from 1; 0: by probability.
        probability: per call.
        repeat: at every `at_call`-th call, instead of once.
        phase: of what the call asks for, when its link ends; no answer comes in any of them. A job
            that outlives the link goes on; it is in its middle when it is cut "during" it.
        down_s: how long the device cannot be reached after a cut or a reboot.
        jump_s: by how much the device's wall clock jumps.
    """

    kind: str
    at_call: int = 0
    probability: float = 0.0
    repeat: bool = False
    phase: str = "after"
    down_s: float = 0.5
    jump_s: float = 172_800.0

    @property
    def ends_link(self) -> bool:
        """Whether the connection ends by it."""
        return self.kind in _ENDING

    def problem(self) -> str | None:
        """Return what is wrong in a script, if anything."""
        for key, known in (("kind", FAULTS), ("phase", PHASES)):
            if (value := getattr(self, key)) not in known:
                return f"no {key} {value!r} known; have {', '.join(known)}"
        if self.at_call <= 0 and self.probability <= 0:
            return f"{self.kind} never befalls; give at_call or probability"
        return None


NO_FAULT = Fault("")


@dataclass(frozen=True, slots=True)
class Script:
    """A whole script; the default is a healthy board."""

    seed: int = 0
    board: Board = field(default_factory=Board)
    latency: Latency = field(default_factory=Latency)
    thermal: Thermal = field(default_factory=Thermal)
    fault: tuple[Fault, ...] = ()


def read_script(address: str) -> Script:
    """Return the script in a file, or the healthy board's for an empty address; ConfigError."""
    if not address:
        return Script()
    path = Path(address).expanduser()
    try:
        values = bounded.toml(bounded.read_text(path, limit_bytes=bounded.TOML_BYTES))
    except ConfigError as error:
        raise ConfigError(f"the fake device's script {path} cannot be read: {error}") from error
    return script_from(values, source=str(path))


def script_from(values: Mapping[str, Any], *, source: str) -> Script:
    """Return the script in TOML values; raises ConfigError naming the key."""
    return from_plain(Script, values, source, sections=True)
