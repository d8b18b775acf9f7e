"""What spaces of staged networks share: the stage table, channel rounding, sentences on options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

LARGE_INPUT = 96
"""Pixels from which a space takes the published skeleton unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A row of a stage table: stride of its first layer, width, layers.

    What width and layers mean is the space's: MnasNet varies both, ProxylessNAS neither.
    """

    stride: int
    width: int
    layers: int


@dataclass(frozen=True, slots=True)
class ElasticStage:
    """A row of Once-for-all's stage table; `stride` is that of the first layer.

    `depths` are the stage's own; empty: the space's.
    """

    stride: int
    width: int
    act: str = "relu6"
    se: bool = False
    depths: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ElasticSkeleton:
    """What is not elastic in a space of Once-for-all.

    Attributes:
        stem: kernel, stride and channels of the first convolution.
        first: channels of the fixed separable block behind it; 0 for none.
        stages: the stage table.
        head: channels of the last 1x1 convolution; 0 for none.
        feature_mix: units of the dense layer between pooling and logits; 0 for none.
        act: activation of stem, head and feature mix.
        first_act: activation of the first block.
    """

    stem: tuple[int, int, int]
    first: int
    stages: tuple[ElasticStage, ...]
    head: int
    feature_mix: int
    act: str
    first_act: str


def round_channels(channels: float, multiple: int) -> int:
    """Return the nearest multiple of `multiple` that is above 0 and at least 90 % of `channels`."""
    rounded = max(multiple, int(channels + multiple / 2) // multiple * multiple)
    return rounded if rounded >= 0.9 * channels else rounded + multiple


def check_names(space: str, option: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse an empty option or a name that is not known.

    Raises:
        ConfigError: names the space, the option, the value and the alternatives.
    """
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        given = repr(unknown[0]) if unknown else "empty"
        raise ConfigError(f"space {space!r}, {option}: {given}; known: {', '.join(known)}")


def check_numbers(
    space: str, option: str, values: Sequence[float], rule: str, holds: Callable[[float], bool]
) -> None:
    """Refuse an empty option or a number for which `holds` is false; `rule` says it in words.

    Raises:
        ConfigError: names the space, the option and the value.
    """
    wrong = [value for value in values if not holds(value)]
    if wrong or not values:
        given = f"{wrong[0]!r} is not {rule}" if wrong else "empty; give at least one number"
        raise ConfigError(f"space {space!r}, {option}: {given}")


def check_kernels(space: str, kernels: Sequence[int]) -> None:
    """Refuse windows that have no middle. Raises ConfigError."""
    check_numbers(space, "kernels", kernels, "odd and above 0", lambda v: v > 0 and v % 2 == 1)


def check_stage(space: str, number: int, *, stride: int, width: int, layers: Sequence[int]) -> None:
    """Refuse a row of a stage table of which there is no network.

    Raises:
        ConfigError: names the stage, counted from 1.
    """
    where = f"stage {number}"
    check_numbers(space, f"{where}, stride", (stride,), "1 or 2", lambda v: v in (1, 2))
    # The bounds only keep a slip of the hand from filling the memory.
    check_numbers(space, f"{where}, width", (width,), "from 1 to 100000", lambda v: 0 < v <= 1e5)
    check_numbers(space, f"{where}, layers", layers, "from 1 to 100", lambda v: 0 < v <= 100)


def check_ends(space: str, stem: Sequence[int], **ends: int) -> None:
    """Refuse a stem or an end (head, first block) that is more than a slip of the hand could mean.

    That the stem can be at all is checked by the network it is in.

    Raises:
        ConfigError: names the end.
    """
    check_numbers(space, "stem", stem, "at most 100000", lambda v: v <= 1e5)
    for name, channels in ends.items():
        rule = "0 (none) or above, at most 100000"
        check_numbers(space, name, (channels,), rule, lambda v: 0 <= v <= 1e5)


def check_pixels(space: str, sides: Iterable[int], strides: Iterable[int]) -> None:
    """Refuse a resolution that the strides would halve below one pixel.

    Padding would still give a network, but its last strides would step over zeros.

    Raises:
        ConfigError: names the side and the smallest that is left something.
    """
    halvings = sum(stride == 2 for stride in strides)
    for side in sides:
        if side < 2**halvings:
            raise ConfigError(
                f"space {space!r}: {halvings} strides of 2 leave nothing of {side} pixels; take "
                f"a resolution of {2**halvings} or more, or stages with fewer strides"
            )
