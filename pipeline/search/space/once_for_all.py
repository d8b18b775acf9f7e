"""Once-for-all's elastic space, for any skeleton: depth, width, kernel and resolution.

Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient Deployment" (2020). A
network is a chain of stages of inverted bottlenecks between fixed ends. Decisions:

    stageS.depth              2 | 3 | 4     the first layers of the stage that are kept
    stageS.layerL.kernel      3 | 5 | 7
    stageS.layerL.expansion   3 | 4 | 6     middle channels over input channels
    resolution                pixels of the input; it is in the network's `input`

All networks are parts of one, `full`, so that one set of weights can serve them. Hence the first
layer of a stage never has a shortcut and all others have: where a stage begins can be read from a
network alone. The fixed first block is the only one without an expanding layer (`mid` is 0).

Choices of layers beyond the depth make no difference; `choices` gives them option 0. The paper's
2e19 networks count each network once, `size` counts choice vectors.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from models.lower import lower
from models.spec import ACTIVATIONS, ArchSpec, Block, Dense, SqueezeExcite
from pipeline.search.space.decisions import Decision, DecisionSpace
from pipeline.search.space.stages import (
    LARGE_INPUT,
    ElasticSkeleton,
    ElasticStage,
    check_ends,
    check_kernels,
    check_names,
    check_numbers,
    check_pixels,
    check_stage,
    round_channels,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from models.graph import Op
    from pipeline.search.api import Choices


@dataclass(frozen=True)
class OnceForAllSpace(DecisionSpace[ArchSpec]):
    """The space over a skeleton; a subclass says which is used unless told otherwise.

    Attributes:
        input: height, width, channels.
        classes: number of logits.
        stages: rows of stride, width, activation, squeeze-and-excite, own depths. Of stages,
            stem, first, head and feature_mix, what is left out is that of `small`, or of `large`
            for inputs of 96 pixels and more.
        stem: kernel, stride and channels of the first convolution.
        first: channels of the fixed first block; 0 for none.
        head: channels of the last 1x1 convolution; 0 for none.
        feature_mix: units of the dense layer before the logits; 0 for none.
        kernels: odd numbers.
        expansions: from 1; with 1 too there is an expanding layer, since weights are shared.
        depths: layers of a stage.
        resolutions: heights of the input; its width keeps the proportion. Empty: that of `input`.
        width: multiplies all channel counts but the classes.
        act: one activation for the whole network instead of the table's.
        se: squeeze-and-excite everywhere or nowhere instead of the table's.
        channel_multiple: all channel counts are multiples of it, never below 90 % of what was
            asked; the bottleneck of squeeze-and-excite, a quarter of the middle, of 8.
        padding: same | symmetric, as in `models.spec`; the released nets are symmetric.

    Raises:
        ConfigError: on construction, for options of which some network could not be made.
    """

    input: tuple[int, int, int]
    classes: int
    stages: tuple[ElasticStage, ...] = ()
    stem: tuple[int, int, int] | None = None
    first: int | None = None
    head: int | None = None
    feature_mix: int | None = None
    kernels: tuple[int, ...] = (3, 5, 7)
    expansions: tuple[float, ...] = (3, 4, 6)
    depths: tuple[int, ...] = (2, 3, 4)
    resolutions: tuple[int, ...] = ()
    width: float = 1.0
    act: str | None = None
    se: bool | None = None
    channel_multiple: int = 8
    padding: str = "same"

    large: ClassVar[ElasticSkeleton]
    small: ClassVar[ElasticSkeleton]

    def __post_init__(self) -> None:
        """Refuse options of which some network could not be made, so that `decode` never fails."""
        name = self.name
        check_kernels(name, self.kernels)
        check_numbers(name, "expansions", self.expansions, "from 1 to 100", lambda v: 1 <= v <= 100)
        check_numbers(name, "depths", self.depths, "from 1 to 100", lambda v: 1 <= v <= 100)
        check_numbers(name, "width", (self.width,), "above 0, at most 100", lambda v: 0 < v <= 100)
        multiple = (self.channel_multiple,)
        check_numbers(name, "channel_multiple", multiple, "above 0", lambda v: v > 0)
        check_numbers(name, "input", self.input, "above 0", lambda v: v > 0)
        base = self._unscaled
        check_numbers(name, "stem", base.stem, "above 0", lambda v: v > 0)
        mix = base.feature_mix
        check_ends(name, base.stem, first=base.first, head=base.head, feature_mix=mix)
        for number, stage in enumerate(base.stages, 1):
            depths = stage.depths or self.depths
            check_stage(name, number, stride=stage.stride, width=stage.width, layers=depths)
            check_names(name, f"activation of stage {number}", (stage.act,), ACTIVATIONS)
        sides = [side for height, width, _ in self.inputs for side in (height, width)]
        check_pixels(name, sides, (base.stem[1], *(stage.stride for stage in base.stages)))
        # Stem, activation and padding are in every network: the spec checks them.
        self.decode((0,) * len(self.cardinalities))

    @property
    def _unscaled(self) -> ElasticSkeleton:
        base = self.large if min(self.input[:2]) >= LARGE_INPUT else self.small
        return ElasticSkeleton(
            base.stem if self.stem is None else self.stem,
            base.first if self.first is None else self.first,
            self.stages or base.stages,
            base.head if self.head is None else self.head,
            base.feature_mix if self.feature_mix is None else self.feature_mix,
            self.act or base.act,
            self.act or base.first_act,
        )

    @cached_property
    def skeleton(self) -> ElasticSkeleton:
        """What is not elastic, with the channels, activations and depths in use."""
        base = self._unscaled

        def scaled(channels: int) -> int:
            return round_channels(channels * self.width, self.channel_multiple) if channels else 0

        stages = tuple(
            ElasticStage(
                stage.stride,
                scaled(stage.width),
                self.act or stage.act,
                stage.se if self.se is None else self.se,
                stage.depths or self.depths,
            )
            for stage in base.stages
        )
        return replace(
            base,
            stem=(*base.stem[:2], scaled(base.stem[2])),
            first=scaled(base.first),
            stages=stages,
            head=scaled(base.head),
            feature_mix=scaled(base.feature_mix),
        )

    @cached_property
    def inputs(self) -> tuple[tuple[int, int, int], ...]:
        """The input of each resolution: height, width, channels."""
        height, width, channels = self.input
        return tuple(
            (pixels, round(width * pixels / height), channels)
            for pixels in self.resolutions or (height,)
        )

    @cached_property
    def all_decisions(self) -> tuple[Decision, ...]:
        """For each stage its depth, then kernel and expansion of each layer; the resolution."""
        decisions: list[Decision] = []
        for number, stage in enumerate(self.skeleton.stages, 1):
            decisions.append(Decision(f"stage{number}.depth", stage.depths))
            for layer in range(1, max(stage.depths) + 1):
                where = f"stage{number}.layer{layer}"
                decisions.append(Decision(f"{where}.kernel", self.kernels))
                decisions.append(Decision(f"{where}.expansion", self.expansions))
        return (*decisions, Decision("resolution", tuple(height for height, _, _ in self.inputs)))

    def graph_ops(self) -> Iterator[Op]:
        """Yield every op that a network of the space can have (`pipeline.search.api.KnowsOps`).

        The largest network of each kernel, expansion and resolution has them all.
        """
        sides = self.resolutions or (self.input[0],)
        for side, kernel, expansion in itertools.product(sides, self.kernels, self.expansions):
            uniform = replace(self, resolutions=(side,), kernels=(kernel,), expansions=(expansion,))
            yield from lower(uniform.full).ops

    @property
    def full(self) -> ArchSpec:
        """The network that all others are parts of: the largest option of every decision."""
        return self.decode(tuple(d.options.index(max(d.options)) for d in self.all_decisions))

    def decode(self, choices: Choices) -> ArchSpec:
        """Return the network of a choice vector.

        Raises:
            ValueError: the vector has another length or an index out of range.
        """
        blocks = self._blocks(self.chosen(choices))
        return ArchSpec(self.inputs[choices[-1]], blocks, self._dense, self.padding)

    def _blocks(self, options: tuple[Any, ...]) -> tuple[Block, ...]:
        chosen = iter(options)
        blocks = list(self._front)
        channels = blocks[-1].out
        for stage in self.skeleton.stages:
            depth = next(chosen)
            for layer in range(max(stage.depths)):
                kernel, expansion = next(chosen), next(chosen)
                if layer < depth:
                    blocks.append(self._layer(stage, layer, channels, kernel, expansion))
                    channels = stage.width
        return (*blocks, *self._back)

    def _layer(
        self, stage: ElasticStage, layer: int, channels: int, kernel: int, expansion: float
    ) -> Block:
        mid = self._middle(channels, expansion)
        squeeze = SqueezeExcite(round_channels(mid / 4, 8), gate="hardsigmoid")
        return Block(
            op="mb",
            kernel=kernel,
            stride=stage.stride if layer == 0 else 1,
            out=stage.width,
            mid=mid,
            act=stage.act,
            se=squeeze if stage.se else None,
            skip="identity" if layer else "none",
        )

    def _middle(self, channels: int, expansion: float) -> int:
        return round_channels(round(channels * expansion), self.channel_multiple)

    @cached_property
    def _front(self) -> tuple[Block, ...]:
        skeleton = self.skeleton
        kernel, stride, out = skeleton.stem
        stem = Block("conv", kernel, stride, out, act=skeleton.act)
        if not skeleton.first:
            return (stem,)
        skip = "identity" if skeleton.first == out else "none"
        return (stem, Block("mb", 3, 1, skeleton.first, act=skeleton.first_act, skip=skip))

    @cached_property
    def _back(self) -> tuple[Block, ...]:
        skeleton = self.skeleton
        return (Block("conv", 1, 1, skeleton.head, act=skeleton.act),) if skeleton.head else ()

    @cached_property
    def _dense(self) -> tuple[Dense, ...]:
        units, logits = self.skeleton.feature_mix, Dense(self.classes)
        return (Dense(units, self.skeleton.act), logits) if units else (logits,)

    def choices(self, spec: ArchSpec) -> Choices:
        """Return the choice vector of a network, option 0 for layers that it has not.

        Raises:
            ValueError: the network is not in the space.
        """
        found = self._read(spec)
        fixed = (spec.dense, spec.padding) == (self._dense, self.padding)
        if found is None or not fixed or self._blocks(self.chosen(found)) != spec.blocks:
            raise ValueError(f"network {str(spec)[:100]} is not in space {self.name!r}")
        return found

    def _read(self, spec: ArchSpec) -> Choices | None:
        """Return the choices that its elastic parts look like, the fixed parts unread, if any."""
        layers = list(spec.chain())[len(self._front) : len(spec.blocks) - len(self._back)]
        stages: list[list[tuple[int, Block]]] = []
        for channels, block in layers:
            if block.skip == "none" or not stages:
                stages.append([])
            stages[-1].append((channels, block))
        if len(stages) != len(self.skeleton.stages) or spec.input not in self.inputs:
            return None
        found: list[int] = []
        for stage, own in zip(self.skeleton.stages, stages, strict=True):
            if len(own) not in stage.depths:
                return None
            found.append(stage.depths.index(len(own)))
            for channels, block in own:
                mids = [self._middle(channels, expansion) for expansion in self.expansions]
                if block.kernel not in self.kernels or block.mid not in mids:
                    return None
                found += self.kernels.index(block.kernel), mids.index(block.mid)
            found += [0, 0] * (max(stage.depths) - len(own))
        return (*found, self.inputs.index(spec.input))

    def crossover(self, a: ArchSpec, b: ArchSpec, rng: np.random.Generator) -> ArchSpec:
        """Return a network each of whose decisions comes from `a` or `b`, evenly.

        A layer that one parent has not comes from the other: its option 0 there means nothing.

        Raises:
            ValueError: a parent is not in the space.
        """
        ours, theirs = self.choices(a), self.choices(b)
        child = [
            (x, y)[int(rng.integers(2))] if has_x == has_y else (x if has_x else y)
            for x, y, has_x, has_y in zip(
                ours, theirs, self._present(ours), self._present(theirs), strict=True
            )
        ]
        return self.decode(tuple(child))

    def features(self, spec: ArchSpec) -> npt.NDArray[np.float64]:
        """Return what Once-for-all's accuracy predictor sees.

        One-hot kernels of all layers, one-hot expansions of all layers (both zero for a layer
        that is not there), one-hot resolution; options in their order.
        """
        choices = self.choices(spec)
        rows: dict[str, list[npt.NDArray[np.float64]]] = {}
        for decision, choice, present in zip(
            self.all_decisions, choices, self._present(choices), strict=True
        ):
            one_hot = np.zeros(len(decision.options))
            one_hot[choice] = present
            rows.setdefault(decision.name.rpartition(".")[2], []).append(one_hot)
        return np.concatenate([*rows["kernel"], *rows["expansion"], *rows["resolution"]])

    def _present(self, choices: Choices) -> list[bool]:
        """Return, for each decision, whether it is about something that the network has."""
        present: list[bool] = []
        for stage in self.skeleton.stages:
            depth = stage.depths[choices[len(present)]]
            present.append(True)
            for layer in range(max(stage.depths)):
                present += [layer < depth] * 2  # its kernel and its expansion
        return [*present, True]
