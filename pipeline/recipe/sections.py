"""The sections of a recipe: what each may say, with its defaults and bounds, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - the reader evaluates the annotations
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from device_agents.errors import ConfigError
from device_agents.plain_values import bounds
from models.number_format import FLOAT32, OTHER_NAMES, NumberFormat
from pipeline.recipe.plugins import PluginFolder

RUNTIMES = PluginFolder("device_agents.agent.runtimes", "runtime")

USUAL_TASK = "classification"


@dataclass(frozen=True, slots=True)
class SplitSection:
    """[data.split]: which share of the images is for what; the shares add up to 1."""

    train: float = field(default=0.6, metadata=bounds(above=0, high=1))
    validation: float = field(default=0.2, metadata=bounds(above=0, high=1))
    test: float = field(default=0.2, metadata=bounds(above=0, high=1))

    @property
    def fractions(self) -> tuple[float, float, float]:
        """(train, validation, test)."""
        return (self.train, self.validation, self.test)

    def problem(self) -> str | None:
        """Return what is wrong between the keys, if anything."""
        total = sum(self.fractions)
        if abs(total - 1) > 1e-6:
            return f"train, validation and test add up to {total:g}; they must add up to 1"
        return None


@dataclass(frozen=True, slots=True)
class DataSection:
    """[data]: the images, resized to `resolution` x `resolution`, and what is asked of networks."""

    name: str = field(metadata=bounds(plugin="pipeline.data:DATASETS"))
    resolution: int = field(default=32, metadata=bounds(low=4, high=2048))
    split: SplitSection = field(default_factory=SplitSection)
    options: Mapping[str, Any] = field(default_factory=dict)
    task: str = field(default=USUAL_TASK, metadata=bounds(plugin="pipeline.data:TASKS"))


@dataclass(frozen=True, slots=True)
class ModelSection:
    """[model]: a model of your own, in place of [search].

    `file` is one of any format that is read, or ``file.py:callable``. `shapes` pins what it leaves
    open, by input; `weights` and `trust` are for a module that its code builds. `data` is what
    --data takes, where [data] cannot say it: an .npz for a model that reads no single picture;
    `task` goes with it. At most `samples` of each split are run.
    """

    file: str = field(metadata=bounds(filled=True))
    shapes: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = field(default=None, metadata=bounds(filled=True))
    trust: bool = False
    data: str | None = field(default=None, metadata=bounds(filled=True))
    task: str | None = field(default=None, metadata=bounds(plugin="pipeline.data:TASKS"))
    samples: int = field(default=500, metadata=bounds(low=1, high=1_000_000))

    def problem(self) -> str | None:
        """Return what is wrong with the shapes, or between the keys."""
        for name, shape in self.shapes.items():
            numbers = shape if isinstance(shape, list | tuple) else ()
            if not numbers or not all(type(n) is int and n > 0 for n in numbers):
                return f"shapes.{name} = {shape!r} is no shape; write [1, 3, 224, 224], say"
        if self.task is not None and self.data is None:
            return f'task = "{self.task}" goes with data; where [data] is given, say data.task'
        return None


@dataclass(frozen=True, slots=True)
class DeviceSection:
    """[device]: where it is measured, and how carefully the figures that are shown are taken.

    Runtime and threads are the profile's unless given.
    """

    name: str = field(default="local", metadata=bounds(filled=True))
    runtime: str | None = field(
        default=None, metadata=bounds(plugin="pipeline.recipe.sections:RUNTIMES")
    )
    threads: int | None = field(default=None, metadata=bounds(low=1, high=256))
    protocol: Literal["thorough", "quick"] = "thorough"


@dataclass(frozen=True, slots=True)
class TargetSection:
    """[target]: what the winner is held against.

    The baseline is a zoo net at the widths given (the best of them at equal accuracy counts);
    `latency_ratio` is winner over baseline, `accuracy_tolerance` the accuracy that may be lost.
    `latency_ms` asks for milliseconds on the device instead of a ratio.
    """

    baseline: str = field(metadata=bounds(filled=True))
    widths: tuple[float, ...] = field(
        default=(1.0,), metadata=bounds(above=0, high=10, filled=True)
    )
    latency_ratio: float = field(default=1.0, metadata=bounds(above=0))
    latency_ms: float | None = field(default=None, metadata=bounds(above=0))
    accuracy_tolerance: float = field(default=0.0, metadata=bounds(low=0, high=1))


@dataclass(frozen=True, slots=True)
class ProxySection:
    """[search.proxy]: the short training that ranks candidates.

    What is not said here (weight decay, label smoothing) is as in [train].
    """

    epochs: int = field(default=3, metadata=bounds(low=1, high=100_000))
    batch_size: int = field(default=64, metadata=bounds(low=2, high=65_536))
    learning_rate: float = field(default=0.1, metadata=bounds(above=0, high=100))
    augment: float = field(default=0.0, metadata=bounds(low=0, high=3))

    def instead_of(self, train: TrainSection) -> TrainSection:
        """Return the training of candidates: [train] with these keys."""
        return replace(train, **asdict(self))


@dataclass(frozen=True, slots=True)
class SupernetSection:
    """[search.supernet]: the training of a Once-for-all network, phase by phase.

    The full network first, then kernels, depths and widths become elastic, one after the other
    (progressive shrinking); a phase of 0 epochs is left out. What is not said here is as in
    [train].
    """

    full_epochs: int = field(default=12, metadata=bounds(low=1, high=100_000))
    kernel_epochs: int = field(default=4, metadata=bounds(low=0, high=100_000))
    depth_epochs: int = field(default=4, metadata=bounds(low=0, high=100_000))
    width_epochs: int = field(default=4, metadata=bounds(low=0, high=100_000))
    batch_size: int = field(default=64, metadata=bounds(low=2, high=65_536))
    learning_rate: float = field(default=0.1, metadata=bounds(above=0, high=100))
    elastic_learning_rate: float = field(default=0.03, metadata=bounds(above=0, high=100))
    distillation: float = field(default=1.0, metadata=bounds(low=0, high=100))
    calibration_images: int = field(default=512, metadata=bounds(low=2, high=1_000_000))
    predictor_samples: int = field(default=200, metadata=bounds(low=20, high=1_000_000))
    finetune_epochs: int = field(default=0, metadata=bounds(low=0, high=100_000))


@dataclass(frozen=True, slots=True)
class AlsoSection:
    """[[search.also]]: one more device that the same network is to serve.

    `latency_ratio` is held against that device's own reference measurement; `weight` counts if
    the devices are combined by weight, where the run's own device has weight 1.
    """

    device: str = field(metadata=bounds(filled=True))
    latency_ratio: float = field(default=1.0, metadata=bounds(above=0))
    weight: float = field(default=1.0, metadata=bounds(above=0))


@dataclass(frozen=True, slots=True)
class SearchSection:
    """[search]: where it searches, how, and for how long.

    `exponent` is w of MnasNet's reward (equation 2): of both sides if `objective` is soft, above
    the target only if it is hard; the paper's unless given. `table` is the file of a latency
    table that was built before; `measurements` is how many networks a few-shot latency model is
    fitted to. `on_device_lost` says what a device that stays away does:
    `stop` ends the command, which goes on later; `end` ends the search with what was found.
    `space_options` and `strategy_options` are the options of the two plugins.
    """

    space: str = field(metadata=bounds(plugin="pipeline.search.space:SPACES"))
    strategy: str = field(metadata=bounds(plugin="pipeline.search.methods:METHODS"))
    candidates: int = field(default=64, metadata=bounds(low=1, high=1_000_000))
    batch: int = field(default=8, metadata=bounds(low=1, high=10_000))
    objective: Literal["soft", "hard", "mul-log", "add-linear", "constrained", "pareto"] = "soft"
    exponent: float | None = field(default=None, metadata=bounds(low=-100, high=0))
    finalists: int = field(default=3, metadata=bounds(low=1, high=1000))
    accuracy: Literal["proxy", "supernet", "predictor"] = "proxy"
    latency: Literal["measured", "table", "counted", "few-shot"] = "measured"
    table: str | None = field(default=None, metadata=bounds(filled=True))
    measurements: int = field(default=16, metadata=bounds(low=2, high=10_000))
    on_device_lost: Literal["stop", "end"] = "stop"
    combine: Literal["worst", "weighted"] = "worst"
    also: tuple[AlsoSection, ...] = ()
    space_options: Mapping[str, Any] = field(default_factory=dict)
    strategy_options: Mapping[str, Any] = field(default_factory=dict)
    proxy: ProxySection = field(default_factory=ProxySection)
    supernet: SupernetSection = field(default_factory=SupernetSection)

    def problem(self) -> str | None:
        """Return what is wrong between the keys, if anything."""
        if self.finalists > self.candidates:
            return f"finalists = {self.finalists} is more than candidates = {self.candidates}"
        if self.exponent is not None and self.objective not in ("soft", "hard"):
            return (
                f"exponent = {self.exponent!r} is of the objectives soft and hard; "
                f"{self.objective} has none: leave it out"
            )
        if self.table and self.latency != "table":
            return (
                f'table = {self.table!r} is not used with latency = {self.latency!r}; say "table"'
            )
        if self.table and self.also:
            return "a table is of one device; leave table out and each device builds its own"
        return None


TrainDevice = Literal["cpu", "cuda", "mps", "auto"]
"""Where torch computes; `auto` takes an accelerator where there is one."""


@dataclass(frozen=True, slots=True)
class TrainSection:
    """[train]: the full training of finalists and baseline.

    `augment` is the strength of random rotation, scaling and shift; `device` is where torch
    computes it, `auto` an accelerator where there is one.
    """

    epochs: int = field(default=30, metadata=bounds(low=1, high=100_000))
    batch_size: int = field(default=64, metadata=bounds(low=2, high=65_536))
    learning_rate: float = field(default=0.1, metadata=bounds(above=0, high=100))
    weight_decay: float = field(default=1e-4, metadata=bounds(low=0, high=1))
    label_smoothing: float = field(default=0.0, metadata=bounds(low=0, high=0.99))
    augment: float = field(default=0.0, metadata=bounds(low=0, high=3))
    device: TrainDevice = "cpu"


FASTEST = "fastest"
"""The number format that is measured to be the fastest."""


@dataclass(frozen=True, slots=True)
class QuantizeSection:
    """[quantize]: the number format of candidates and winner, or of a model of your own.

    Of the latter `float_layers` (names of ops, or patterns) stay in float32, and as many more as it
    takes to lose no more than `max_drop` points: hundredths of the task's score. With `fastest`
    the device says which it is.
    """

    scheme: Literal["static8", "float32", "fastest"] = field(
        default="static8", metadata=bounds(other_names=OTHER_NAMES)
    )
    calibration_images: int = field(default=256, metadata=bounds(low=1, high=1_000_000))
    max_drop: float | None = field(default=None, metadata=bounds(low=0, high=1e9))
    float_layers: tuple[str, ...] = ()

    def problem(self) -> str | None:
        """Return what is wrong between the keys, if anything."""
        if self.of_layers and self.scheme == str(FLOAT32):
            return f'{self.of_layers} goes with static8, and scheme = "float32" is asked: drop one'
        return None

    @property
    def of_layers(self) -> str:
        """The key that says what stays in float32 of a model of your own; empty if none does."""
        named = "float_layers" if self.float_layers else ""
        return named or ("" if self.max_drop is None else "max_drop")

    @property
    def is_measured(self) -> bool:
        """Whether the device says which number format it is."""
        return self.scheme == FASTEST

    @property
    def number_format(self) -> NumberFormat:
        """What `scheme` names. Raises ConfigError: it is known only once it has been measured."""
        if self.is_measured:
            raise ConfigError(
                f'quantize.scheme = "{FASTEST}" is measured in a run; say "static8" or "float32" '
                "here, as with --set quantize.scheme=static8"
            )
        return NumberFormat.parse(self.scheme)


@dataclass(frozen=True, slots=True)
class ExportSection:
    """[export]: which files the winner and the baseline are written as."""

    formats: tuple[str, ...] = field(
        default=("tflite", "onnx"), metadata=bounds(plugin="pipeline.formats:FORMATS")
    )


@dataclass(frozen=True, slots=True)
class ReportSection:
    """[report]: where the page is written; without it, beside the run's files in the store."""

    path: str | None = field(default=None, metadata=bounds(filled=True))
