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

import difflib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from device_agents import bounded
from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_T = TypeVar("_T")

FAULTS = ("cut", "agent_killed", "reboot", "disk_full", "hang", "garbage", "clock_jump")
PHASES = ("before", "during", "after")
_ENDING = ("cut", "agent_killed", "reboot")


@dataclass(frozen=True, slots=True)
class Board:
    """What the device says of itself; `clock_step_ms` is how coarsely it tells the time."""

    model: str = "Fake board"
    cores: int = 4
    memory_bytes: int = 4 << 30
    clocks_khz: tuple[int, ...] = (1_800_000, 1_500_000, 1_000_000, 600_000)
    under_voltage: bool = False
    clock_step_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Latency:
    """How its invokes differ from what the null model says: a factor, and a share of noise."""

    factor: float = 1.0
    noise: float = 0.0


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
    cooling_per_s: float = 0.1
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
    parts: dict[str, Any] = dict(values)
    for name, kind in (("board", Board), ("latency", Latency), ("thermal", Thermal)):
        if name in parts:
            parts[name] = _made(kind, parts[name], f"{source}: [{name}]")
    faults = parts.get("fault", [])
    if not isinstance(faults, list):
        raise ConfigError(f"{source}: fault = {faults!r} is not a list; write [[fault]]")
    parts["fault"] = tuple(_fault(item, f"{source}: [[fault]]") for item in faults)
    script = _made(Script, parts, source)
    clocks = script.board.clocks_khz
    for where, good, rule in (
        ("[board] clocks_khz", clocks and all(_is_count(khz) for khz in clocks), "clocks above 0"),
        ("[board] clock_step_ms", script.board.clock_step_ms >= 0, "0 or more"),
        ("[latency] factor", script.latency.factor > 0, "above 0"),
        ("[latency] noise", script.latency.noise >= 0, "0 or more"),
        ("[thermal] cooling_per_s", script.thermal.cooling_per_s > 0, "above 0"),
    ):
        if not good:
            raise ConfigError(f"{source}: {where} must be {rule}; correct it there")
    return script


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _fault(values: Any, where: str) -> Fault:
    fault = _made(Fault, values, where)
    for key, known in (("kind", FAULTS), ("phase", PHASES)):
        value = getattr(fault, key)
        if value not in known:
            raise ConfigError(f"{where}: no {key} {value!r} known; have {', '.join(known)}")
    if fault.at_call <= 0 and fault.probability <= 0:
        raise ConfigError(f"{where}: {fault.kind} never befalls; give at_call or probability")
    return fault


def _made(kind: type[_T], values: Any, where: str) -> _T:
    known = {item.name: str(item.type) for item in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(values, dict):
        raise ConfigError(f"{where} is not a table; have {', '.join(known)}")
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"{where}: unknown key {key!r}; {hint}have {', '.join(known)}")
        _check(value, known[key], f"{where}: {key}")
    whole = {key: tuple(item) if isinstance(item, list) else item for key, item in values.items()}
    try:
        return kind(**whole)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}; add it") from error


def _check(value: Any, kind: str, where: str) -> None:
    kinds: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "float": (int, float),
        "str": (str,),
        "bool": (bool,),
        "tuple[int, ...]": (list, tuple),
    }
    good = isinstance(value, kinds.get(kind, (object,)))
    if not good or (isinstance(value, bool) and kind != "bool"):
        raise ConfigError(f"{where} = {value!r} is not of the type {kind}; correct it there")
