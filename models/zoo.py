"""Published networks as specs: 224 x 224 x 3, 1000 classes.

A table lists blocks the way its source does. Nets that come from TensorFlow pad ``same``, those
that come from torch ``symmetric``, so that published weights and latencies mean the same
network. What a source prints about a net `find_published` returns; nothing there is counted by us
(`models.cost` counts) and a figure that could not be traced to its source is None.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from device_agents.errors import ConfigError
from models.spec import ArchSpec, Block, Dense, SqueezeExcite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INPUT = (224, 224, 3)
CLASSES = 1000


@dataclass(frozen=True, slots=True)
class Published:
    """What a source prints about a net, at its precision; None where it prints nothing.

    Attributes:
        source: paper or repository.
        params: parameters.
        macs: multiply-accumulates.
        top1: ImageNet top-1 accuracy, percent.
        pixel1_ms: latency on a Pixel 1, one big core. Sources time the same net up to 14 %
            apart: compare within one source only.
    """

    source: str
    params: int | None = None
    macs: int | None = None
    top1: float | None = None
    pixel1_ms: float | None = None


@dataclass(frozen=True, slots=True)
class _Entry:
    make: Callable[[float], ArchSpec]
    published: Published
    scalable: bool = False


def zoo() -> tuple[str, ...]:
    """Return the names of the published nets."""
    return tuple(_NETS)


def find_published(name: str) -> Published:
    """Return what the source of a net prints about it. Raises ConfigError for an unknown name."""
    return _entry(name).published


def get(name: str, *, width: float = 1.0) -> ArchSpec:
    """Return a published net.

    Args:
        name: one of `zoo()`.
        width: multiplies the channel counts by the family's published rule; only the MobileNet
            and MnasNet families publish one.

    Raises:
        ConfigError: unknown name, or a width that the net has no rule for.
    """
    entry = _entry(name)
    if width <= 0:
        raise ConfigError(f"width {width:g} of {name} is not above 0")
    if width != 1.0 and not entry.scalable:
        able = ", ".join(key for key, other in _NETS.items() if other.scalable)
        raise ConfigError(f"{name} has no width multiplier (asked: {width:g}); these have: {able}")
    return entry.make(width)


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Round to the nearest multiple of `divisor`, never below 90 % of `channels`.

    The rule of tensorflow/models (slim/nets/mobilenet/conv_blocks.py), used by every family here.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def _entry(name: str) -> _Entry:
    if name in _NETS:
        return _NETS[name]
    near = difflib.get_close_matches(name, _NETS, 3, 0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(_NETS)}"
    raise ConfigError(f"no net {name!r} in the zoo; {hint}")


def _spec(blocks: list[Block], dense: tuple[Dense, ...] = (), padding: str = "same") -> ArchSpec:
    return ArchSpec(INPUT, tuple(blocks), (*dense, Dense(CLASSES)), padding)


def _mobilenet_v1(width: float) -> ArchSpec:
    """Howard et al. 2017, table 1: (channels, stride) of the separable blocks."""
    rows = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    rows += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    stem = Block("conv", 3, 2, make_divisible(32 * width))
    return _spec([stem, *(Block("ds", 3, s, make_divisible(c * width)) for c, s in rows)])


Stage = tuple[int, int, int, int, int, float]
"""Repeats, kernel, stride of the first, expansion, channels, squeeze-and-excite ratio."""

_MOBILENET_V2: tuple[Stage, ...] = (
    (1, 3, 1, 1, 16, 0), (2, 3, 2, 6, 24, 0), (3, 3, 2, 6, 32, 0), (4, 3, 2, 6, 64, 0),
    (3, 3, 1, 6, 96, 0), (3, 3, 2, 6, 160, 0), (1, 3, 1, 6, 320, 0),
)  # fmt: skip
_MNASNET_A1: tuple[Stage, ...] = (
    (1, 3, 1, 1, 16, 0), (2, 3, 2, 6, 24, 0), (3, 5, 2, 3, 40, 0.25), (4, 3, 2, 6, 80, 0),
    (2, 3, 1, 6, 112, 0.25), (3, 5, 2, 6, 160, 0.25), (1, 3, 1, 6, 320, 0),
)  # fmt: skip
_MNASNET_B1: tuple[Stage, ...] = (
    (1, 3, 1, 1, 16, 0), (3, 3, 2, 3, 24, 0), (3, 5, 2, 3, 40, 0), (3, 5, 2, 6, 80, 0),
    (2, 3, 1, 6, 96, 0), (4, 5, 2, 6, 192, 0), (1, 3, 1, 6, 320, 0),
)  # fmt: skip
_MNASNET_SMALL: tuple[Stage, ...] = (
    (1, 3, 1, 1, 8, 0), (1, 3, 2, 3, 16, 0), (2, 3, 2, 6, 16, 0), (4, 5, 2, 6, 32, 0.25),
    (3, 3, 1, 6, 32, 0.25), (3, 5, 2, 6, 88, 0.25), (1, 3, 1, 6, 144, 0),
)  # fmt: skip
_EFFICIENTNET: tuple[Stage, ...] = (
    (1, 3, 1, 1, 16, 0.25), (2, 3, 2, 6, 24, 0.25), (2, 5, 2, 6, 40, 0.25), (3, 3, 2, 6, 80, 0.25),
    (3, 5, 1, 6, 112, 0.25), (4, 5, 2, 6, 192, 0.25), (1, 3, 1, 6, 320, 0.25),
)  # fmt: skip


def _stages(
    width: float, *, stages: Sequence[Stage], act: str, stem: int = 32, grow_head: bool = False
) -> ArchSpec:
    """Inverted residuals in stages, between a stem and a head of 1280.

    Squeeze-and-excite has a share of the block's *input* channels (tensorflow/tpu
    mnasnet_model.py). The head never shrinks; MobileNetV2's grows with a width above 1.
    """
    channels = make_divisible(stem * width)
    blocks = [Block("conv", 3, 2, channels, act=act)]
    for repeats, kernel, first_stride, expansion, out, ratio in stages:
        for index in range(repeats):
            wide, stride = make_divisible(out * width), first_stride if index == 0 else 1
            squeeze = SqueezeExcite(max(1, int(channels * ratio)), act)
            # The first block of all has no skip, not even where stem and output are equally wide.
            skip = stride == 1 and wide == channels and len(blocks) > 1
            blocks.append(
                Block(
                    "mb", kernel, stride, wide, channels * expansion if expansion > 1 else 0, act,
                    squeeze if ratio else None, "identity" if skip else "none",
                )
            )  # fmt: skip
            channels = wide
    head = make_divisible(1280 * max(1.0, width)) if grow_head else 1280
    return _spec([*blocks, Block("conv", 1, 1, head, act=act)])


V3Row = tuple[int, int, int, bool, str, int]
"""Kernel, middle channels, channels, squeeze-and-excite, activation, stride."""

_V3_LARGE: tuple[V3Row, ...] = (
    (3, 16, 16, False, "relu", 1), (3, 64, 24, False, "relu", 2), (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2), (5, 120, 40, True, "relu", 1), (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hardswish", 2), (3, 200, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1), (3, 184, 80, False, "hardswish", 1),
    (3, 480, 112, True, "hardswish", 1), (3, 672, 112, True, "hardswish", 1),
    (5, 672, 160, True, "hardswish", 2), (5, 960, 160, True, "hardswish", 1),
    (5, 960, 160, True, "hardswish", 1),
)  # fmt: skip
_V3_SMALL: tuple[V3Row, ...] = (
    (3, 16, 16, True, "relu", 2), (3, 72, 24, False, "relu", 2), (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hardswish", 2), (5, 240, 40, True, "hardswish", 1),
    (5, 240, 40, True, "hardswish", 1), (5, 120, 48, True, "hardswish", 1),
    (5, 144, 48, True, "hardswish", 1), (5, 288, 96, True, "hardswish", 2),
    (5, 576, 96, True, "hardswish", 1), (5, 576, 96, True, "hardswish", 1),
)  # fmt: skip


def _mobilenet_v3(width: float, *, rows: Sequence[V3Row], last: int, features: int) -> ArchSpec:
    """Howard et al. 2019, tables 1 and 2; `features` is the dense layer before the logits."""
    reference, channels = 16, make_divisible(16 * width)
    blocks = [Block("conv", 3, 2, channels, act="hardswish")]
    for kernel, middle, out, squeeze, act, stride in rows:
        mid, wide = make_divisible(middle / reference * channels), make_divisible(out * width)
        se = SqueezeExcite(make_divisible(mid / 4), gate="hardsigmoid") if squeeze else None
        skip = "identity" if stride == 1 and wide == channels else "none"
        expand = mid if mid > channels else 0
        blocks.append(Block("mb", kernel, stride, wide, expand, act, se, skip))
        reference, channels = out, wide
    blocks.append(Block("conv", 1, 1, make_divisible(last * width), act="hardswish"))
    return _spec(blocks, (Dense(features, "hardswish"),))


ProxylessStage = tuple[int, str]
"""Channels; (kernel, expansion) of each layer as two digits."""


def _proxyless(
    _: float, *, stem: int, first: int, stages: Sequence[ProxylessStage], head: int
) -> ArchSpec:
    """mit-han-lab/proxylessnas; strides of the stages as in its super-net."""
    blocks = [Block("conv", 3, 2, stem), Block("mb", 3, 1, first)]
    channels = first
    for (out, layers), first_stride in zip(stages, (2, 2, 2, 1, 2, 1), strict=True):
        for index, layer in enumerate(layers.split()):
            kernel, expansion = map(int, list(layer))
            stride, skip = (1, "identity") if index else (first_stride, "none")
            blocks.append(Block("mb", kernel, stride, out, channels * expansion, skip=skip))
            channels = out
    return _spec([*blocks, Block("conv", 1, 1, head)], padding="symmetric")


_PROXYLESS_MOBILE = ("53 33", "73 33 53 53", "76 53 53 53", "56 53 53 53", "76 76 73 73", "76")
_PROXYLESS_CPU = ("36 33 33 33", "36 33 33 53", "36 33", "56 33 33 33", "56 53 53 33", "56")
_PROXYLESS_GPU = ("53", "73 33", "76 53", "56 33 53", "76 76 76 56", "76")


def _widths(layers: tuple[str, ...], *widths: int) -> tuple[ProxylessStage, ...]:
    return tuple(zip(widths, layers, strict=True))


_PAPER = "MnasNet paper, arXiv:1807.11626"
_SLIM_V3 = "tensorflow/models, slim/nets/mobilenet/README.md"
_FORK = "CFAndy/ProxylessNAS, README.md"

_NETS: dict[str, _Entry] = {
    "mobilenet-v1": _Entry(
        _mobilenet_v1, Published(_PAPER, 4_200_000, 575_000_000, 70.6, 113), scalable=True
    ),
    "mobilenet-v2": _Entry(
        partial(_stages, stages=_MOBILENET_V2, act="relu6", grow_head=True),
        Published(_PAPER, 3_400_000, 300_000_000, 72.0, 75),
        scalable=True,
    ),
    "mobilenet-v3-large": _Entry(
        partial(_mobilenet_v3, rows=_V3_LARGE, last=960, features=1280),
        Published(_SLIM_V3, 5_400_000, 217_000_000, 75.2, 51.2),
        scalable=True,
    ),
    "mobilenet-v3-small": _Entry(
        partial(_mobilenet_v3, rows=_V3_SMALL, last=576, features=1024),
        Published(_SLIM_V3, 2_900_000, 66_000_000, 67.5, 15.8),
        scalable=True,
    ),
    "mnasnet-a1": _Entry(
        partial(_stages, stages=_MNASNET_A1, act="relu"),
        Published(_PAPER, 3_900_000, 312_000_000, 75.2, 78),
        scalable=True,
    ),
    "mnasnet-b1": _Entry(
        partial(_stages, stages=_MNASNET_B1, act="relu"),
        Published("tensorflow/tpu, mnasnet_models.py"),
        scalable=True,
    ),
    "mnasnet-small": _Entry(
        partial(_stages, stages=_MNASNET_SMALL, act="relu", stem=8),
        Published(_PAPER, 2_000_000, 68_000_000, 66.0, 23.2),
        scalable=True,
    ),
    "proxyless-mobile": _Entry(
        partial(
            _proxyless, stem=32, first=16, head=1280,
            stages=_widths(_PROXYLESS_MOBILE, 32, 40, 80, 96, 192, 320),
        ),
        Published(_FORK, 4_100_000, 320_000_000, 74.6, 78),
    ),
    "proxyless-cpu": _Entry(
        partial(
            _proxyless, stem=40, first=24, head=1432,
            stages=_widths(_PROXYLESS_CPU, 32, 48, 88, 104, 216, 360),
        ),
        Published("mit-han-lab/proxylessnas"),
    ),
    "proxyless-gpu": _Entry(
        partial(
            _proxyless, stem=40, first=24, head=1728,
            stages=_widths(_PROXYLESS_GPU, 32, 56, 112, 128, 256, 432),
        ),
        Published("mit-han-lab/proxylessnas, README.md", top1=75.1),
    ),
    "proxyless-mobile-14": _Entry(
        partial(
            _proxyless, stem=48, first=24, head=1792,
            stages=_widths(_PROXYLESS_MOBILE, 40, 56, 112, 136, 256, 448),
        ),
        Published(_FORK, 6_900_000, 581_000_000, 76.7, 147),
    ),
    "efficientnet-b0": _Entry(
        partial(_stages, stages=_EFFICIENTNET, act="silu"),
        Published("EfficientNet paper, arXiv:1905.11946", 5_300_000, 390_000_000),
    ),
    "efficientnet-lite0": _Entry(
        partial(_stages, stages=[(*stage[:5], 0) for stage in _EFFICIENTNET], act="relu6"),
        Published("tensorflow/tpu, efficientnet/lite/README.md", 4_700_000, 407_000_000, 75.1),
    ),
}  # fmt: skip
