"""MnasNet's factorised hierarchical space, with any skeleton.

Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile" (2019), section 4.1. A
network is a chain of stages (the paper's blocks). Within a stage all layers are alike, only the
first has the stride; stages differ. Six decisions per stage:

    op      conv | ds | mb3 | mb6     convolution, separable, inverted bottleneck expanding 3x, 6x
    kernel  3 | 5
    se      0 | 0.25                  squeeze-and-excite, share of the layer's input channels
    skip    none | identity | pool
    width   0.75 | 1 | 1.25           of the stage's reference width
    layers  -1 | 0 | +1               added to the stage's reference number of layers

Their options multiply to S = 432, the number the paper quotes. The choices as the paper *lists*
them give 324, since it names one MBConv; counting its expansions 3 and 6 as two ops, as its
networks have them, gives 432, so that is what is offered here.

Where the paper is silent: "pooling" as a skip is a 3x3 max pool of step 1 on the shortcut, which
adds no weights and, unlike an average, keeps int8 scales, so the shortcut stays inside one
delegate partition. A skip applies to the layers with stride 1 and equal widths. Widths are rounded
to multiples of `channel_multiple`, never below 90 % of what was asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from device_agents.errors import ConfigError
from models.spec import GATES, SKIPS, Block, SqueezeExcite
from pipeline.search.space._categorical import CategoricalSpace, Group
from pipeline.search.space._decisions import Decision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Stage:
    """A row of the skeleton: stride of its first layer, reference width, reference layers."""

    stride: int
    width: int
    layers: int


@dataclass(frozen=True, slots=True)
class Skeleton:
    """Stem (kernel, stride, channels), stages, channels of the 1x1 head (0: no head)."""

    stem: tuple[int, int, int]
    stages: tuple[Stage, ...]
    head: int


MOBILENET_V2 = Skeleton(
    (3, 2, 32),
    (Stage(1, 16, 1), Stage(2, 24, 2), Stage(2, 32, 3), Stage(2, 64, 4), Stage(1, 96, 3),
     Stage(2, 160, 3), Stage(1, 320, 1)),
    1280,
)  # fmt: skip
"""The paper's reference, for 224 x 224: Sandler et al. 2018, table 2."""

SMALL = Skeleton(
    (3, 1, 16),
    (Stage(1, 16, 1), Stage(2, 24, 2), Stage(2, 32, 2), Stage(1, 48, 2), Stage(2, 64, 2)),
    128,
)
"""For inputs below 96 pixels: three steps down, so that 32 x 32 ends at 4 x 4."""

_EXPANSIONS = {"mb1": 1, "mb3": 3, "mb6": 6}
OPS = ("conv", "ds", *_EXPANSIONS)


@dataclass(frozen=True)
class MnasNetSpace(CategoricalSpace):
    """The space over a skeleton; see the module for its decisions.

    Attributes:
        input: height, width, channels.
        classes: number of logits.
        stages: rows of the skeleton. Of stages, stem and head, what is left out is that of
            `SMALL`, or of `MOBILENET_V2` for inputs of 96 pixels and more.
        stem: kernel, stride and channels of the first convolution.
        head: channels of the last 1x1 convolution; 0 for none.
        act: activation of all blocks.
        gate: gate of squeeze-and-excite: sigmoid | hardsigmoid.
        ops: some of ``conv, ds, mb1, mb3, mb6``. ``mb1``, separable without a second activation,
            is the first block of the published networks, though not in the paper's list.
        kernels: odd numbers.
        se_ratios: 0 for none; else the bottleneck has max(1, int(ratio * layer input)) channels.
        skips: some of ``none, identity, pool``.
        width_factors: multiply a stage's width.
        layer_offsets: added to a stage's layers; at least one layer remains.
        channel_multiple: widths are multiples of it (the device profile knows a good one).
        padding: same | symmetric, as in `models.spec`.

    Raises:
        ConfigError: on construction, for options of which some network could not be made.
    """

    input: tuple[int, int, int]
    classes: int
    stages: tuple[Stage, ...] = ()
    stem: tuple[int, int, int] | None = None
    head: int | None = None
    act: str = "relu6"
    gate: str = "sigmoid"
    ops: tuple[str, ...] = ("conv", "ds", "mb3", "mb6")
    kernels: tuple[int, ...] = (3, 5)
    se_ratios: tuple[float, ...] = (0.0, 0.25)
    skips: tuple[str, ...] = ("none", "identity", "pool")
    width_factors: tuple[float, ...] = (0.75, 1.0, 1.25)
    layer_offsets: tuple[int, ...] = (-1, 0, 1)
    channel_multiple: int = 8
    padding: str = "same"

    name: ClassVar[str] = "mnasnet"

    def __post_init__(self) -> None:
        """Refuse options of which some network could not be made, so that `decode` never fails."""
        _check_names("ops", self.ops, OPS)
        _check_names("skips", self.skips, SKIPS)
        _check_names("gate", (self.gate,), GATES)
        _check_numbers("se_ratios", self.se_ratios, "from 0 to 1", lambda v: 0 <= v <= 1)
        _check_numbers("kernels", self.kernels, "odd and above 0", lambda v: v > 0 and v % 2 == 1)
        _check_numbers("width_factors", self.width_factors, "above 0", lambda v: v > 0)
        _check_numbers("layer_offsets", self.layer_offsets, "whole", lambda v: v == int(v))
        _check_numbers("channel_multiple", (self.channel_multiple,), "above 0", lambda v: v > 0)
        _check_numbers("head", (self.skeleton.head,), "0 (none) or above", lambda v: v >= 0)
        for stage in self.skeleton.stages:
            _check_numbers(f"width and layers of {stage}", (stage.width, stage.layers), "above 0",
                           lambda v: v > 0)  # fmt: skip
        # Strides, stem, input, activation and padding are in every network: the spec checks them.
        self.decode((0,) * len(self.cardinalities))

    @cached_property
    def skeleton(self) -> Skeleton:
        """The stem, stages and head in use."""
        base = MOBILENET_V2 if min(self.input[:2]) >= 96 else SMALL
        return Skeleton(
            base.stem if self.stem is None else self.stem,
            self.stages or base.stages,
            base.head if self.head is None else self.head,
        )

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Stem and head without decisions; six decisions for each stage between."""
        options = (
            ("op", self.ops),
            ("kernel", self.kernels),
            ("se", self.se_ratios),
            ("skip", self.skips),
            ("width", self.width_factors),
            ("layers", self.layer_offsets),
        )
        stages = tuple(
            tuple(Decision(f"stage{number}.{name}", values) for name, values in options)
            for number in range(1, len(self.skeleton.stages) + 1)
        )
        return ((), *stages, ())

    def blocks(self, group: int, options: tuple[Any, ...], channels: int) -> tuple[Block, ...]:
        """Return the stem, the layers of a stage, or the head."""
        skeleton = self.skeleton
        if group == 0:
            kernel, stride, out = skeleton.stem
            return (Block("conv", kernel, stride, out, act=self.act),)
        if group == len(self.groups) - 1:
            return (Block("conv", 1, 1, skeleton.head, act=self.act),) if skeleton.head else ()
        stage = skeleton.stages[group - 1]
        op, kernel, ratio, skip, factor, offset = options
        out = round_channels(stage.width * factor, self.channel_multiple)
        layers: list[Block] = []
        for index in range(max(1, stage.layers + offset)):
            stride = stage.stride if index == 0 else 1
            squeeze = SqueezeExcite(max(1, int(channels * ratio)), gate=self.gate)
            expansion = _EXPANSIONS.get(op, 1)
            layers.append(
                Block(
                    op="mb" if op in _EXPANSIONS else op,
                    kernel=kernel,
                    stride=stride,
                    out=out,
                    mid=channels * expansion if expansion > 1 else 0,
                    act=self.act,
                    se=squeeze if ratio else None,
                    skip=skip if stride == 1 and channels == out else "none",
                )
            )
            channels = out
        return tuple(layers)


def round_channels(channels: float, multiple: int) -> int:
    """Return the nearest multiple of `multiple` that is above 0 and at least 90 % of `channels`."""
    rounded = max(multiple, int(channels + multiple / 2) // multiple * multiple)
    return rounded if rounded >= 0.9 * channels else rounded + multiple


def _check_names(option: str, names: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        given = repr(unknown[0]) if unknown else "empty"
        raise ConfigError(f"MnasNet space, {option}: {given}; known: {', '.join(known)}")


def _check_numbers(
    option: str, values: Sequence[float], rule: str, holds: Callable[[float], bool]
) -> None:
    wrong = [value for value in values if not holds(value)]
    if wrong or not values:
        given = f"{wrong[0]!r} is not {rule}" if wrong else "empty; give at least one number"
        raise ConfigError(f"MnasNet space, {option}: {given}")
