"""The values that travel between device, runner and store; `api` re-exports them.

Times are integer nanoseconds as the device read them, and float milliseconds in what people read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

Verdict = Literal["valid", "suspect", "invalid"]

Shapes = Mapping[str, Sequence[int]]
"""Shapes by the name of an input; "" stands for the only one."""

# Fields of Measurement that JSON gives back as lists.
_TUPLES = {
    "cpus",
    "samples_ns",
    "reference_samples_ns",
    "process_medians_ms",
    "ci95_ms",
    "ratio_ci95",
    "reasons",
    "canary_ms",
}


def as_shapes(data: Shapes) -> dict[str, tuple[int, ...]]:
    """Return shapes with tuples, which JSON gives back as lists."""
    return {name: tuple(shape) for name, shape in data.items()}


@dataclass(frozen=True, slots=True)
class TensorValue:
    """An array without numpy: raw little-endian bytes in C order."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output of a model; `scale` and `zero_point` are None when not quantised."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True, slots=True)
class Inference:
    """Outputs of a model over all samples, each with the sample axis first.

    Attributes:
        outputs: (samples, *output shape) each.
        inputs_info: the model's inputs.
        outputs_info: the model's outputs.
        invoke_ns: time inside the runtime, summed over samples.
    """

    outputs: tuple[TensorValue, ...]
    inputs_info: tuple[TensorInfo, ...]
    outputs_info: tuple[TensorInfo, ...]
    invoke_ns: int


@dataclass(frozen=True, slots=True)
class SensorReading:
    """The device's state at one moment; None means the device does not tell.

    Attributes:
        throttled: the bits of `vcgencmd get_throttled`, since-boot bits included.
        skin_celsius: of a phone's surface; its thermal service decides by it.
        thermal_status: Android's, 0 none to 6 shutdown.
        battery_percent: of a phone.
        charging: whether a phone is being charged, which heats it.
        fan_percent: speed of the board's fan; it changes what the same heat does.
    """

    soc_celsius: float | None = None
    clock_khz: int | None = None
    governor: str | None = None
    throttled: int | None = None
    load_average: float | None = None
    memory_available_bytes: int | None = None
    disk_free_bytes: int | None = None
    boot_id: str | None = None
    uptime_s: float | None = None
    skin_celsius: float | None = None
    thermal_status: int | None = None
    battery_percent: int | None = None
    charging: bool | None = None
    fan_percent: int | None = None

    @property
    def governing_celsius(self) -> float | None:
        """The temperature that decides over throttling: a phone's skin, else the processor."""
        return self.soc_celsius if self.skin_celsius is None else self.skin_celsius

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SensorReading:
        """Read what `asdict` or the agent wrote; keys of a newer agent are ignored."""
        return cls(**{f.name: data.get(f.name) for f in fields(cls)})


@dataclass(frozen=True, slots=True)
class BenchProtocol:
    """How a latency is measured. Times are seconds or milliseconds as their names say.

    Attributes:
        name: shown beside every figure.
        processes: fresh processes at least; one is one load, one warm-up and its blocks.
        max_processes: fresh processes at most, while the target is not met.
        warmup_min_ms: warm-up of each model in each process, at least.
        warmup_max_ms: the same, at most; reaching it unsettled is recorded.
        max_s: timed inference per process, model and reference together.
        budget_s: wall time of the whole measurement; no new process starts past it.
        min_samples: invokes of each model per process at least, even past `max_s`.
        max_samples: invokes of each model per process at most.
        block_ms: aimed length of one block of the A B B A order.
        target_half_width: stop when the half-width of the 95 % interval is this share of the value.
        suspect_spread: robust within-process spread above which a figure is suspect.
        suspect_process_cv: the same for the variation between processes, of the ratio if there is
            a reference.
        deadline_s: a process that takes longer is killed.
        seed: of the random inputs, the order and the bootstrap.
        cool_deadline_s: how long to wait for the device to be cool before anything is timed.
        canary_limit: the canary (a tiny fixed CPU job) may take this many times its idle value
            before and after; None: no canary.
        rejoin_s: how long a lost device is tried again before the measurement is given up.
    """

    name: str = "quick"
    processes: int = 3
    max_processes: int = 6
    warmup_min_ms: float = 15.0
    warmup_max_ms: float = 60.0
    max_s: float = 0.09
    budget_s: float = 10.0
    min_samples: int = 6
    max_samples: int = 2000
    block_ms: float = 3.0
    target_half_width: float = 0.03
    suspect_spread: float = 0.10
    suspect_process_cv: float = 0.03
    deadline_s: float = 60.0
    seed: int = 0
    cool_deadline_s: float = 30.0
    canary_limit: float | None = None
    rejoin_s: float = 60.0

    @classmethod
    def quick(cls) -> BenchProtocol:
        """Return the protocol of a search: about half a second for a small network."""
        return cls()

    @classmethod
    def thorough(cls) -> BenchProtocol:
        """Return the protocol of published figures: 5 to 20 processes, target ± 1 %."""
        return cls(
            name="thorough",
            processes=5,
            max_processes=20,
            warmup_min_ms=250.0,
            warmup_max_ms=5000.0,
            max_s=1.0,
            budget_s=120.0,
            min_samples=40,
            max_samples=5000,
            block_ms=5.0,
            target_half_width=0.01,
            suspect_spread=0.03,
            suspect_process_cv=0.01,
            deadline_s=300.0,
            cool_deadline_s=600.0,
            canary_limit=1.10,
        )


@dataclass(frozen=True, slots=True)
class Measurement:
    """A latency with its conditions and its verdict; converts to JSON and back without loss.

    Attributes:
        samples_ns: one entry per timed invoke of the model, all processes in order.
        reference_samples_ns: the same for the reference; empty without one.
        process_medians_ms: median of each process.
        median_ms: median over the process medians.
        ci95_ms: 95 % interval of the median (of fewer than 5 processes: their range at least).
        p90_ms: 90th percentile of all samples.
        ratio: latency over the reference's, from the paired A B B A blocks; None without one.
        ratio_ci95: 95 % interval of the ratio.
        partitions: delegate partitions; None when the runtime does not tell.
        busy_ns: time the agent worked on this measurement: taking in the models, importing the
            runtime, reading its state, and timing.
        timed_ns: part of it inside timed invokes, reference included.
        warmup_ns: part of it in warm-up.
        device_digest: hash of the device's facts (board, system, Python), to tell devices apart.
        ops: how many ops of each kind the runtime executes; empty when it does not tell.
        delegate: name of the delegate that runs them, such as XNNPACK; empty: none, or not told.
        delegated_share: share of the ops that it runs, 0 to 1; None when the runtime does not tell.
        canary_ms: the canary before and after; None where it was not run.
        canary_idle_ms: its best value ever on this device.
        binary_sha256: hash of the user's benchmark binary; empty for a Python runtime.
        settings: further settings of the runtime that change the figure, such as xnnpack = off.
        input_shapes: of the model's inputs, as they were run.
        reference_input_shapes: the same of the reference; empty without one.
        inputs_sha256: hash of the values that the model was fed; empty: seeded ones.
        reference_inputs_sha256: the same of the reference.
        clock_step_ns: the steps in which the device's clock moves on; 0: finer than can be seen.
        invokes_per_sample: more than 1 where such steps are too long for single invokes; each
            entry of `samples_ns` is then the mean of so many.
    """

    device: str
    device_digest: str
    model_sha256: str
    reference_sha256: str | None
    agent_sha256: str
    runtime: str
    runtime_version: str
    threads: int
    cpus: tuple[int, ...]
    protocol: BenchProtocol
    started_at: str
    samples_ns: tuple[int, ...]
    reference_samples_ns: tuple[int, ...]
    process_medians_ms: tuple[float, ...]
    median_ms: float
    ci95_ms: tuple[float, float]
    p90_ms: float
    ratio: float | None
    ratio_ci95: tuple[float, float] | None
    reference_median_ms: float | None
    partitions: int | None
    before: SensorReading
    after: SensorReading
    verdict: Verdict
    reasons: tuple[str, ...]
    busy_ns: int
    timed_ns: int
    warmup_ns: int
    load_ns: int
    peak_rss_bytes: int
    ops: Mapping[str, int] = field(default_factory=dict)
    delegate: str = ""
    delegated_share: float | None = None
    canary_ms: tuple[float | None, float | None] = (None, None)
    canary_idle_ms: float | None = None
    binary_sha256: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    reference_input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    inputs_sha256: str = ""
    reference_inputs_sha256: str = ""
    clock_step_ns: int = 0
    invokes_per_sample: int = 1

    @property
    def overhead_share(self) -> float:
        """Share of the device's busy time outside timed inference and warm-up, 0 to 1."""
        return 1.0 - (self.timed_ns + self.warmup_ns) / max(1, self.busy_ns)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measurement:
        """Read what `to_json` gave, also after a trip through JSON text."""
        values = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        for name in _TUPLES & values.keys():
            values[name] = None if values[name] is None else tuple(values[name])
        for name in ("input_shapes", "reference_input_shapes"):
            values[name] = as_shapes(values.get(name, {}))
        values["protocol"] = BenchProtocol(**values["protocol"])
        values["before"] = SensorReading.from_json(values["before"])
        values["after"] = SensorReading.from_json(values["after"])
        return cls(**values)
