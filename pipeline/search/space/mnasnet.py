"""MnasNet's factorised hierarchical space, with any skeleton.

Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile" (2019), section 4.1. A
network is a chain of stages (the paper's blocks). Within a stage all layers are alike, only the
first has the stride; stages differ. Six decisions per stage:

    op      conv | ds | mb3 | mb6     convolution, separable, inverted bottleneck expanding 3x, 6x
    kernel  3 | 5
    se      0 | 0.25                  squeeze-and-excite, share of the layer's input channels
    skip    none | identity | pool
    width   0.75 | 1 | 1.25           of the stage's reference width, or widths given outright
    layers  -1 | 0 | +1               added to the stage's reference number of layers

Their options multiply to S = 432, the number the paper quotes. The choices as the paper *lists*
them give 324, since it names one MBConv; counting its expansions 3 and 6 as two ops, as its
networks have them, gives 432, so that is what is offered here.

Beyond the paper: the activation of the whole network can be one more decision (`acts`), since it
decides the speed of int8.

Where the paper is silent: "pooling" as a skip is a 3x3 max pool of step 1 on the shortcut, which
adds no weights and, unlike an average, keeps int8 scales, so the shortcut stays inside one
delegate partition. A skip applies to the layers with stride 1 and equal widths. Widths are rounded
to multiples of `channel_multiple`, never below 90 % of what was asked; widths given outright are
taken as they are, since the published networks leave the grid (MnasNet-A1 has a stage of 112).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from device_agents.errors import ConfigError
from models.spec import ACTIVATIONS, GATES, SKIPS, Block, SqueezeExcite
from pipeline.search.space.categorical import CategoricalSpace, Group
from pipeline.search.space.decisions import Decision
from pipeline.search.space.stages import (
    LARGE_INPUT,
    Stage,
    check_ends,
    check_kernels,
    check_names,
    check_numbers,
    check_pixels,
    check_stage,
    round_channels,
)


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
        stages: rows of stride, reference width, reference layers. Of stages, stem and head, what
            is left out is that of `SMALL`, or of `MOBILENET_V2` for inputs of 96 pixels and more.
        stem: kernel, stride and channels of the first convolution.
        head: channels of the last 1x1 convolution; 0 for none.
        acts: activations offered to the whole network.
        gate: gate of squeeze-and-excite: sigmoid | hardsigmoid.
        ops: some of ``conv, ds, mb1, mb3, mb6``. ``mb1``, separable without a second activation,
            is the first block of the published networks, though not in the paper's list.
        kernels: odd numbers.
        se_ratios: 0 for none; else the bottleneck has max(1, int(ratio * layer input)) channels.
        skips: some of ``none, identity, pool``.
        width_factors: multiply a stage's width.
        widths: instead of that, the widths that each stage offers: ``[[16], [24, 32], ...]``.
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
    acts: tuple[str, ...] = ("relu6",)
    gate: str = "sigmoid"
    ops: tuple[str, ...] = ("conv", "ds", "mb3", "mb6")
    kernels: tuple[int, ...] = (3, 5)
    se_ratios: tuple[float, ...] = (0.0, 0.25)
    skips: tuple[str, ...] = ("none", "identity", "pool")
    width_factors: tuple[float, ...] = (0.75, 1.0, 1.25)
    widths: tuple[tuple[int, ...], ...] = ()
    layer_offsets: tuple[int, ...] = (-1, 0, 1)
    channel_multiple: int = 8
    padding: str = "same"

    name: ClassVar[str] = "mnasnet"

    def __post_init__(self) -> None:
        """Refuse options of which some network could not be made, so that `decode` never fails."""
        name = self.name
        check_names(name, "ops", self.ops, OPS)
        check_names(name, "skips", self.skips, SKIPS)
        check_names(name, "gate", (self.gate,), GATES)
        check_names(name, "acts", self.acts, ACTIVATIONS)
        check_kernels(name, self.kernels)
        multiple, skeleton = (self.channel_multiple,), self.skeleton
        check_numbers(name, "se_ratios", self.se_ratios, "from 0 to 1", lambda v: 0 <= v <= 1)
        check_numbers(
            name, "layer_offsets", self.layer_offsets, "from -100 to 100", lambda v: abs(v) <= 100
        )
        check_numbers(name, "channel_multiple", multiple, "above 0", lambda v: v > 0)
        check_ends(name, skeleton.stem, head=skeleton.head)
        self._check_widths()
        strides = (skeleton.stem[1], *(stage.stride for stage in skeleton.stages))
        check_pixels(name, self.input[:2], strides)
        # Stem, input and padding are in every network: the spec checks them.
        self.decode((0,) * len(self.cardinalities))

    def _check_widths(self) -> None:
        name, factors, stages = self.name, self.width_factors, self.skeleton.stages
        rule = "above 0, at most 100"
        check_numbers(name, "width_factors", factors, rule, lambda v: 0 < v <= 100)
        for number, stage in enumerate(stages, 1):
            layers = (stage.layers,)
            check_stage(name, number, stride=stage.stride, width=stage.width, layers=layers)
        if self.widths and len(self.widths) != len(stages):
            raise ConfigError(
                f"space {name!r}, widths: {len(self.widths)} lists for {len(stages)} stages; "
                "give one list for each stage"
            )
        for number, widths in enumerate(self.widths, 1):
            what = f"widths of stage {number}"
            check_numbers(name, what, widths, "from 1 to 100000", lambda v: 0 < v <= 1e5)

    @cached_property
    def skeleton(self) -> Skeleton:
        """The stem, stages and head in use."""
        base = MOBILENET_V2 if min(self.input[:2]) >= LARGE_INPUT else SMALL
        return Skeleton(
            base.stem if self.stem is None else self.stem,
            self.stages or base.stages,
            base.head if self.head is None else self.head,
        )

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Stem and head without decisions; six decisions for each stage between."""
        stages = []
        for number, widths in enumerate(self._widths, 1):
            options = (
                ("op", self.ops),
                ("kernel", self.kernels),
                ("se", self.se_ratios),
                ("skip", self.skips),
                ("width", widths),
                ("layers", self.layer_offsets),
            )
            stages.append(tuple(Decision(f"stage{number}.{key}", rows) for key, rows in options))
        return ((), *stages, ())

    @property
    def _widths(self) -> tuple[tuple[int, ...], ...]:
        """The widths that each stage offers."""
        return self.widths or tuple(
            tuple(
                round_channels(stage.width * f, self.channel_multiple) for f in self.width_factors
            )
            for stage in self.skeleton.stages
        )

    def blocks(self, group: int, options: tuple[Any, ...], channels: int) -> tuple[Block, ...]:
        """Return the stem, the layers of a stage, or the head."""
        skeleton = self.skeleton
        if group == 0:
            kernel, stride, out = skeleton.stem
            return (Block("conv", kernel, stride, out, act=self.acts[0]),)
        if group == len(self.groups) - 1:
            return (Block("conv", 1, 1, skeleton.head, act=self.acts[0]),) if skeleton.head else ()
        stage = skeleton.stages[group - 1]
        op, kernel, ratio, skip, out, offset = options
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
                    act=self.acts[0],
                    se=squeeze if ratio else None,
                    skip=skip if stride == 1 and channels == out else "none",
                )
            )
            channels = out
        return tuple(layers)
