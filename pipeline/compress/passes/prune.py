"""Channels cut out of a network, with all that makes, carries or reads them.

Structured pruning: the network that is left is dense, so that every runtime is faster with it. It
is not trained here, and loses what the channels held; see docs/pruning.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from device_agents.errors import ConfigError
from device_agents.plain_values import bounds
from models.channels import cut, follow
from models.model import Model
from pipeline.compress.importance import Importance, score_channels
from pipeline.compress.op_names import find_ops

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.channels import Channels, Group
    from pipeline.compress.api import Needs, Use
    from pipeline.train.lessons import Lessons

    Scores = Sequence[npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """Options of `Prune`.

    Attributes:
        ratio: share of the channels to cut, of those that can be; 0 to below 1.
        importance: ``l1``, ``l2``, ``bn_scale`` or ``taylor``, what channels are ranked by.
        scope: ``uniform`` cuts this share of every group; ``global`` cuts the least important of
            all groups, wherever they are.
        multiple: what is left of a group is a multiple of this, to the nearest; a group of no more
            channels stays whole.
        least: share of a group that stays at least.
        keep: layers whose channels all stay: names, or patterns such as ``blocks.1.*``.
    """

    ratio: float = 0.5
    importance: Importance = "l2"
    scope: Literal["uniform", "global"] = "uniform"
    multiple: int = field(default=1, metadata=bounds(low=1))
    least: float = field(default=0.1, metadata=bounds(low=0, high=1))
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse to cut everything."""
        if not 0 <= self.ratio < 1:
            raise ConfigError(
                f"prune, ratio: {self.ratio:g} is not at least 0 and below 1; it is the share of "
                "channels that is cut"
            )


class Prune:
    """Cuts the channels that matter least."""

    name = "prune"
    version = 1
    takes = Model
    uses: frozenset[Use] = frozenset()
    quantizes = False
    Options = PruneOptions

    def __init__(self, options: PruneOptions = PruneOptions()) -> None:
        self.options = options
        self.uses = uses(options)

    def apply(self, what: Model, needs: Needs) -> Model:
        """Return the model with fewer channels.

        Raises:
            ConfigError: the model holds codes, no layer has a name of `keep`, or there is nothing
                to rank channels by.
        """
        options = self.options
        ranked = rank(what, options, needs.require_lessons(self.name) if self.uses else None)
        groups = ranked.channels.groups
        widths = [
            width if free else group.width
            for group, free, width in zip(
                groups, ranked.free, choose_widths(groups, ranked.scores, options), strict=True
            )
        ]
        total = sum(group.width for group in groups)
        gone = total - sum(widths)
        there = f"of {total} channels that can be cut, in {len(groups)} groups"
        kept_to = f"; widths are multiples of {options.multiple}" if options.multiple > 1 else ""
        done = (
            f"pruned by {options.importance}, {options.scope}: {gone} {there}"
            if gone
            else f"pruned nothing: ratio {options.ratio:g} {there}{kept_to}"
        )
        unranked = sum(bool(np.isinf(values).all()) for values in ranked.scores)
        if unranked:
            done += f"; {unranked} groups stay whole, which no batch normalisation follows"
        return ranked.cut_to(widths, done=done)


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """A model whose channels are ranked.

    Attributes:
        model: the whole one.
        channels: of its graph.
        scores: of each group's channels, in the order of `Group.ids`.
        free: whether each group can be cut: its scores are known and no layer of it is kept.
    """

    model: Model
    channels: Channels
    scores: Scores
    free: tuple[bool, ...]

    def cut_to(self, widths: Sequence[int], *, done: str) -> Model:
        """Return the model with so many channels of each group, the most important ones.

        `done` is the line of its history.
        """
        gone = [
            channel
            for group, values, width in zip(self.channels.groups, self.scores, widths, strict=True)
            for channel in least_important(group, values, group.width - width)
        ]
        return cut(self.model, self.channels, gone, done=done)

    def kept(self, place: int, width: int) -> float:
        """Return the logarithm of the share of its importance that a group keeps at a width.

        0 for a group that stays whole, whose scores may not be known. Sums of it are the product of
        shares, so that no group is emptied for others that are wide or cheap: by the sum of scores
        a VGG gave up its convolutions for dense layers of 1024 units (docs/log.md).
        """
        if not self.free[place]:
            return 0.0
        scores = np.sort(self.scores[place])[::-1]
        whole = float(scores.sum())
        return math.log(float(scores[:width].sum()) / whole) if whole > 0 else 0.0

    def list_widths(self, place: int, options: PruneOptions) -> tuple[int, ...]:
        """Return the widths that a group may have, in ascending order; the last is the whole."""
        group = self.channels.groups[place]
        if not self.free[place]:
            return (group.width,)
        narrowest = _width(group, 0.0, options)
        return (*range(narrowest, group.width, options.multiple), group.width)


def uses(options: PruneOptions) -> frozenset[Use]:
    """Return which samples pruning with these options cannot do without."""
    return frozenset({"ranking"}) if options.importance == "taylor" else frozenset()


def rank(model: Model, options: PruneOptions, lessons: Lessons | None = None) -> Ranked:
    """Rank a model's channels, by the loss on lessons where the options ask for it.

    Raises:
        ConfigError: no channel can be cut, no layer has a name of `keep`, or there is nothing to
            rank channels by.
    """
    channels = follow(model.graph)
    whole = find_ops(model.graph, options.keep)
    if not channels.groups and channels.pinned:
        first = channels.pinned[0]
        raise ConfigError(
            f"no channel of the model can be cut: those of layer {first.layer!r} stay because "
            f"{first.at} {first.why}"
        )
    scores = score_channels(model, channels, options.importance, lessons)
    free = tuple(
        bool(np.isfinite(values).all()) and not whole & set(group.layers)
        for group, values in zip(channels.groups, scores, strict=True)
    )
    return Ranked(model, channels, scores, free)


def least_important(group: Group, scores: npt.NDArray[np.float64], count: int) -> list[int]:
    """Return the ids of a group's least important channels; of equals, the last go first."""
    order = np.lexsort((-np.arange(group.width), scores))
    return [group.ids[place] for place in order[:count]]


def choose_widths(
    groups: Sequence[Group], scores: Scores, options: PruneOptions
) -> tuple[int, ...]:
    """Return how many channels of each group stay."""
    if options.scope == "uniform":
        wanted = [group.width * (1 - options.ratio) for group in groups]
    else:
        every = np.concatenate([*scores, np.zeros(0)])
        of_group = np.repeat(np.arange(len(groups)), [group.width for group in groups])
        every, of_group = every[np.isfinite(every)], of_group[np.isfinite(every)]
        # Of equals, those that come first stay.
        kept = np.argsort(-every, kind="stable")[: len(every) - round(len(every) * options.ratio)]
        wanted = np.bincount(of_group[kept], minlength=len(groups)).astype(float).tolist()
    return tuple(_width(group, width, options) for group, width in zip(groups, wanted, strict=True))


def _width(group: Group, wanted: float, options: PruneOptions) -> int:
    """Return a width near the one wanted that may be."""
    multiple, whole = options.multiple, group.width
    if whole <= multiple:
        return whole
    least = max(options.least * whole, 1.0)
    width = multiple * max(round(max(wanted, least) / multiple), 1)
    while width < least:
        width += multiple
    return min(width, whole)
