"""ProxylessNAS' space: one choice per cell, with a zero that makes the depth elastic.

Cai et al., "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware" (2019),
and its released super-net. Between fixed ends (stem, one separable block, head) stands a chain of
cells of given stride and width. Each cell chooses its own inverted bottleneck, kernel 3 | 5 | 7
and expansion 3 | 6, and a cell that keeps stride and width may also be Zero: it is left out, so
its input passes. The width behind a cell never depends on what was chosen. A bottleneck has an
identity shortcut where stride and width allow one.

The released super-net for 224 x 224 has 21 cells, 6 of which cannot be Zero: 6^6 * 7^15 = 2.2e17.

Beyond the paper, because both decide the speed of int8: squeeze-and-excite as part of a cell's
choice (`se_ratios`), and the activation (`acts`) as one more decision for the whole network, since
activations that a runtime cannot fuse are cheap only if they are rare.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from models.spec import ACTIVATIONS, GATES, Block, SqueezeExcite
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
class Op:
    """What a cell can be other than Zero: kernel, expansion, squeeze-and-excite (0: none)."""

    kernel: int
    expansion: int
    se_ratio: float = 0.0

    def __str__(self) -> str:
        """Return ``k3_e6`` or ``k3_e6_se0.25``."""
        squeeze = f"_se{self.se_ratio:g}" if self.se_ratio else ""
        return f"k{self.kernel}_e{self.expansion}{squeeze}"


ZERO = None
"""The option of a cell that is left out."""


@dataclass(frozen=True, slots=True)
class Skeleton:
    """Stem (kernel, stride, channels), first block (0: none), stages of cells, head (0: none)."""

    stem: tuple[int, int, int]
    first: int
    stages: tuple[Stage, ...]
    head: int


RELEASED = Skeleton(
    (3, 2, 32),
    16,
    (Stage(2, 24, 4), Stage(2, 40, 4), Stage(2, 80, 4), Stage(1, 96, 4), Stage(2, 192, 4),
     Stage(1, 320, 1)),
    1280,
)  # fmt: skip
"""mit-han-lab/proxylessnas, super_proxyless.py, for 224 x 224."""

SMALL = Skeleton(
    (3, 1, 16),
    16,
    (Stage(2, 24, 3), Stage(2, 32, 3), Stage(1, 48, 3), Stage(2, 64, 3)),
    128,
)
"""For inputs below 96 pixels: three steps down, so that 32 x 32 ends at 4 x 4."""


@dataclass(frozen=True)
class ProxylessSpace(CategoricalSpace):
    """The space over a stage table; see the module for its decisions.

    Attributes:
        input: height, width, channels.
        classes: number of logits.
        stages: rows of stride of the first cell, width, cells. Of stages, stem, first and head,
            what is left out is that of `SMALL`, or of `RELEASED` for inputs of 96 pixels and more.
        stem: kernel, stride and channels of the first convolution.
        first: channels of the fixed separable block behind it; 0 for none.
        head: channels of the last 1x1 convolution; 0 for none.
        kernels: odd numbers.
        expansions: whole numbers; 1 has no expanding layer.
        se_ratios: 0 for none; else the bottleneck has max(1, int(ratio * cell input)) channels.
        gate: gate of squeeze-and-excite: sigmoid | hardsigmoid.
        acts: activations offered to the whole network.
        channel_multiple: widths are multiples of it (the device profile knows a good one).
        padding: same | symmetric, as in `models.spec`; the released nets are symmetric.

    Raises:
        ConfigError: on construction, for options of which some network could not be made.
    """

    input: tuple[int, int, int]
    classes: int
    stages: tuple[Stage, ...] = ()
    stem: tuple[int, int, int] | None = None
    first: int | None = None
    head: int | None = None
    kernels: tuple[int, ...] = (3, 5, 7)
    expansions: tuple[int, ...] = (3, 6)
    se_ratios: tuple[float, ...] = (0.0,)
    gate: str = "sigmoid"
    acts: tuple[str, ...] = ("relu6",)
    channel_multiple: int = 8
    padding: str = "same"

    name: ClassVar[str] = "proxyless"

    def __post_init__(self) -> None:
        """Refuse options of which some network could not be made, so that `decode` never fails."""
        name, skeleton = self.name, self.skeleton
        check_kernels(name, self.kernels)
        check_numbers(name, "expansions", self.expansions, "from 1 to 100", lambda v: 1 <= v <= 100)
        check_numbers(name, "se_ratios", self.se_ratios, "from 0 to 1", lambda v: 0 <= v <= 1)
        check_names(name, "gate", (self.gate,), GATES)
        check_names(name, "acts", self.acts, ACTIVATIONS)
        multiple = (self.channel_multiple,)
        check_numbers(name, "channel_multiple", multiple, "above 0", lambda v: v > 0)
        check_ends(name, skeleton.stem, first=skeleton.first, head=skeleton.head)
        for number, stage in enumerate(skeleton.stages, 1):
            layers = (stage.layers,)
            check_stage(name, number, stride=stage.stride, width=stage.width, layers=layers)
        strides = (skeleton.stem[1], *(stage.stride for stage in skeleton.stages))
        check_pixels(name, self.input[:2], strides)
        # Stem, input and padding are in every network: the spec checks them.
        self.decode((0,) * len(self.cardinalities))

    @cached_property
    def skeleton(self) -> Skeleton:
        """The stem, first block, stages and head in use."""
        base = RELEASED if min(self.input[:2]) >= LARGE_INPUT else SMALL
        return Skeleton(
            base.stem if self.stem is None else self.stem,
            base.first if self.first is None else self.first,
            self.stages or base.stages,
            base.head if self.head is None else self.head,
        )

    @cached_property
    def ops(self) -> tuple[Op, ...]:
        """The candidates of every cell, Zero aside: kernels slowest, as the paper lists them."""
        rows = itertools.product(self.kernels, self.expansions, self.se_ratios)
        return tuple(Op(*row) for row in rows)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Stem and head without decisions; one decision for each cell between."""
        cells: list[Group] = []
        channels = self.skeleton.first or self.skeleton.stem[2]
        for number, stage in enumerate(self.skeleton.stages, 1):
            width = round_channels(stage.width, self.channel_multiple)
            for cell in range(1, stage.layers + 1):
                keeps = channels == width and (cell > 1 or stage.stride == 1)
                options = (*self.ops, ZERO) if keeps else self.ops
                cells.append((Decision(f"stage{number}.cell{cell}.op", options),))
                channels = width
        return ((), *cells, ())

    def blocks(self, group: int, options: tuple[Any, ...], channels: int) -> tuple[Block, ...]:
        """Return the fixed blocks of an end, the block of a cell, or none for Zero."""
        act, skeleton = self.acts[0], self.skeleton
        if group == 0:
            kernel, stride, out = skeleton.stem
            stem = Block("conv", kernel, stride, out, act=act)
            return (stem, Block("mb", 3, 1, skeleton.first, act=act)) if skeleton.first else (stem,)
        if group == len(self.groups) - 1:
            return (Block("conv", 1, 1, skeleton.head, act=act),) if skeleton.head else ()
        op: Op | None = options[0]
        if op is ZERO:
            return ()
        stride, out = self._cells[group - 1]
        squeeze = SqueezeExcite(max(1, int(channels * op.se_ratio)), gate=self.gate)
        return (
            Block(
                op="mb",
                kernel=op.kernel,
                stride=stride,
                out=out,
                mid=channels * op.expansion if op.expansion > 1 else 0,
                act=act,
                se=squeeze if op.se_ratio else None,
                skip="identity" if stride == 1 and channels == out else "none",
            ),
        )

    @cached_property
    def _cells(self) -> tuple[tuple[int, int], ...]:
        """(stride, width) of each cell."""
        return tuple(
            (stage.stride if cell == 0 else 1, round_channels(stage.width, self.channel_multiple))
            for stage in self.skeleton.stages
            for cell in range(stage.layers)
        )
