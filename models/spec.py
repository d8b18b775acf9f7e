"""ArchSpec: what a network is, without weights.

A spec is a chain of blocks followed by global average pooling and dense layers. Stem and head
convolutions are blocks like any other. Every channel count is an explicit integer (no width
multiplier, no ratio), so a pruned network is still an ArchSpec; input channels are not stored
because the chain gives them. No torch here.

The one-line form round-trips and is safe in a shell word::

    32x32x1:same:conv_k3_s1_o16:mb_k3_s2_m48_o24_se6-relu-sigmoid_skip:conv_k1_s1_o128:fc10
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BLOCK_OPS = ("conv", "ds", "mb")
ACTIVATIONS = ("relu6", "relu", "hardswish", "silu", "linear")
GATES = ("sigmoid", "hardsigmoid")
SKIPS = ("none", "identity", "pool")
PADDINGS = ("same", "symmetric")

# Of what is read: no network for a device is near these, and no file format holds more.
MOST_WEIGHTS = 1 << 28
MOST_ELEMENTS = 1 << 28
MOST_BLOCKS = 1000
MOST_CHARS = 1 << 16

_SKIP_TOKENS = {"skip": "identity", "poolskip": "pool"}
# Six digits bound what a line can ask for; `[0-9]` because int() takes more than that as digits.
_NUMBER = re.compile(r"([ksmo])([0-9]{1,6})")
_SE = re.compile(r"se([0-9]{1,6})-([a-z0-9]+)-([a-z0-9]+)")
_INPUT = re.compile(r"([0-9]{1,6})x([0-9]{1,6})x([0-9]{1,6})")
_DENSE = re.compile(r"fc([0-9]{1,6})(?:_([a-z0-9]+))?")
_NUMBERS = {"k": "kernel", "s": "stride", "m": "mid", "o": "out"}


class SpecError(ConfigError):
    """A network description that cannot exist; the sentence names the block and the value."""


@dataclass(frozen=True, slots=True)
class SqueezeExcite:
    """Channel attention: mean, `channels` wide bottleneck with `act`, `gate`, multiply.

    Hu et al. 2018; both 1x1 layers have biases.
    """

    channels: int
    act: str = "relu"
    gate: str = "sigmoid"


@dataclass(frozen=True, slots=True)
class Block:
    """One block of the chain.

    `op` is one of

    - ``conv``: k x k convolution, BN, `act`;
    - ``ds``: depthwise k x k, BN, `act`, then pointwise, BN, `act` (MobileNetV1);
    - ``mb``: pointwise to `mid` channels (absent when `mid` is 0), depthwise k x k, pointwise
      without activation (MobileNetV2, equation-free: section 3.3 of Sandler et al. 2018).

    Squeeze-and-excite stands after the depthwise activation (after the convolution for ``conv``).
    `skip` adds the block's input (``identity``) or its 3x3 max-pooled input (``pool``) to the
    output; both need stride 1 and equal widths.
    """

    op: str
    kernel: int
    stride: int
    out: int
    mid: int = 0
    act: str = "relu6"
    se: SqueezeExcite | None = None
    skip: str = "none"

    def __str__(self) -> str:
        """Return the block's token in the one-line form."""
        parts = [self.op, f"k{self.kernel}", f"s{self.stride}"]
        if self.mid:
            parts.append(f"m{self.mid}")
        parts.append(f"o{self.out}")
        if self.act != "relu6":
            parts.append(self.act)
        if self.se is not None:
            parts.append(f"se{self.se.channels}-{self.se.act}-{self.se.gate}")
        parts += [token for token, skip in _SKIP_TOKENS.items() if skip == self.skip]
        return "_".join(parts)

    @classmethod
    def parse(cls, token: str) -> Block:
        """Read a block from its token. Raises SpecError naming the part that is not understood."""
        op, *parts = token.split("_")
        fields: dict[str, Any] = {"op": op}
        for part in parts:
            value: Any
            if part in ACTIVATIONS:
                name, value = "act", part
            elif part in _SKIP_TOKENS:
                name, value = "skip", _SKIP_TOKENS[part]
            elif match := _SE.fullmatch(part):
                name, value = "se", SqueezeExcite(int(match[1]), match[2], match[3])
            elif match := _NUMBER.fullmatch(part):
                name, value = _NUMBERS[match[1]], int(match[2])
            else:
                raise SpecError(
                    f"block {token!r}: {part!r} is not understood; a block reads like "
                    "mb_k3_s2_m48_o24_relu6_se6-relu-sigmoid_skip"
                )
            if name in fields:
                raise SpecError(f"block {token!r} gives its {name} twice")
            fields[name] = value
        missing = [name for name in ("kernel", "stride", "out") if name not in fields]
        if missing:
            raise SpecError(f"block {token!r} lacks {', '.join(missing)} (k…, s…, o…)")
        return cls(**fields)


@dataclass(frozen=True, slots=True)
class Dense:
    """A dense layer with bias after pooling; the last one gives the logits."""

    units: int
    act: str = "linear"

    def __str__(self) -> str:
        """Return the layer's token in the one-line form."""
        return f"fc{self.units}" + ("" if self.act == "linear" else f"_{self.act}")


@dataclass(frozen=True, slots=True)
class ArchSpec:
    """A network: input (height, width, channels), blocks, dense layers.

    `padding` is ``same`` (TensorFlow: at stride 2 the extra row goes below) or ``symmetric``
    (torch: (k - 1) // 2 on every side).

    Raises:
        SpecError: on construction, if the network cannot exist.
    """

    input: tuple[int, int, int]
    blocks: tuple[Block, ...]
    dense: tuple[Dense, ...]
    padding: str = "same"

    def __post_init__(self) -> None:
        """Refuse what cannot exist, so that no later stage has to."""
        _one_of("padding", self.padding, PADDINGS)
        if len(self.input) != 3 or not all(map(_is_count, self.input)):
            raise SpecError(f"input {self.input!r} is not (height, width, channels), each above 0")
        if not self.dense or self.dense[-1].act != "linear":
            raise SpecError("the last layer must be a linear dense layer: the logits")
        for layer in self.dense:
            _one_of(f"activation of {layer}", layer.act, ACTIVATIONS)
            if not _is_count(layer.units):
                raise SpecError(f"dense layer {layer} needs a whole number of units above 0")
        for index, (channels, block) in enumerate(self.chain()):
            _check_block(index, channels, block)

    def chain(self) -> Iterator[tuple[int, Block]]:
        """Yield (input channels, block) in order."""
        channels = self.input[2]
        for block in self.blocks:
            yield channels, block
            channels = block.out

    @property
    def weights(self) -> int:
        """Number of convolution and dense weights, without biases and normalisation."""
        convolutions = sum(_block_weights(channels, block) for channels, block in self.chain())
        widths = [self.blocks[-1].out if self.blocks else self.input[2]]
        widths += [layer.units for layer in self.dense]
        return convolutions + sum(n_in * n_out for n_in, n_out in pairwise(widths))

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.dense[-1].units

    def with_input(self, height: int, width: int, channels: int) -> ArchSpec:
        """Return the same network for another input size."""
        return replace(self, input=(height, width, channels))

    def with_classes(self, classes: int) -> ArchSpec:
        """Return the same network with another number of logits."""
        return replace(self, dense=(*self.dense[:-1], Dense(classes)))

    def __str__(self) -> str:
        """Return the one-line form."""
        size = "x".join(map(str, self.input))
        return ":".join([size, self.padding, *map(str, self.blocks), *map(str, self.dense)])

    @classmethod
    def parse(cls, line: str) -> ArchSpec:
        """Read the one-line form. Raises SpecError naming the part that is not understood."""
        if len(line) > MOST_CHARS:
            raise SpecError(
                f"{line[:60]!r}… has {len(line)} characters; a network has at most {MOST_CHARS}"
            )
        size, _, rest = line.strip().partition(":")
        padding, *tokens = rest.split(":")
        match = _INPUT.fullmatch(size)
        if match is None or not tokens:
            raise SpecError(
                f"{line[:60]!r} is not a network; it reads like 32x32x1:same:conv_k3_s2_o16:fc10"
            )
        dense = [Dense(int(m[1]), m[2] or "linear") for t in tokens if (m := _DENSE.fullmatch(t))]
        blocks = [Block.parse(t) for t in tokens[: len(tokens) - len(dense)]]
        height, width, channels = map(int, match.groups())
        return _checked(cls((height, width, channels), tuple(blocks), tuple(dense), padding))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ArchSpec:
        """Read what `to_json` wrote (also after a trip through JSON text)."""
        try:
            blocks = tuple(
                Block(**{**block, "se": SqueezeExcite(**block["se"]) if block.get("se") else None})
                for block in data["blocks"]
            )
            dense = tuple(Dense(**layer) for layer in data["dense"])
            return _checked(cls(tuple(data["input"]), blocks, dense, str(data["padding"])))
        except KeyError as error:
            raise SpecError(f"not a network description: it has no {error}") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise SpecError(f"not a network description: {error}") from error

    def digest(self) -> str:
        """Return a stable 16-digit hash of the network (not of its weights)."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_block(index: int, channels: int, block: Block) -> None:
    fault = _fault(channels, block)
    if fault:
        raise SpecError(f"block {index} ({block}): {fault}")


def _checked(spec: ArchSpec) -> ArchSpec:
    """Return a network that was read. Raises SpecError if no device could hold it."""
    if len(spec.blocks) + len(spec.dense) > MOST_BLOCKS:
        raise SpecError(
            f"the network has {len(spec.blocks)} blocks and {len(spec.dense)} dense layers; at "
            f"most {MOST_BLOCKS} are possible"
        )
    if (weights := spec.weights) > MOST_WEIGHTS:
        raise SpecError(f"the network has {weights} weights; at most {MOST_WEIGHTS} are possible")
    height, width, channels = spec.input
    largest = height * width * channels
    for channels, block in spec.chain():
        largest = max(largest, height * width * max(channels, block.mid))
        height, width = -(-height // block.stride), -(-width // block.stride)
        largest = max(largest, height * width * block.out)
    if largest > MOST_ELEMENTS:
        raise SpecError(
            f"the network has a tensor of {largest} values; at most {MOST_ELEMENTS} are possible"
        )
    return spec


def _block_weights(channels: int, block: Block) -> int:
    window = block.kernel**2
    if block.op == "conv":
        count = window * channels * block.out
    else:
        middle = block.mid or channels
        expand = channels * block.mid
        count = expand + window * middle + middle * block.out
    return count + (2 * block.se.channels * _squeezed(channels, block) if block.se else 0)


def _squeezed(channels: int, block: Block) -> int:
    return block.out if block.op == "conv" else block.mid or channels


def _fault(channels: int, block: Block) -> str:
    """Return why a block cannot stand behind so many channels; empty if it can.

    Not cached: Block(kernel=3.0) equals Block(kernel=3), so a cache would answer for the one with
    what it found for the other, and 3.0 would be refused or not depending on what was asked first.
    """
    return (
        _unknown("operation", block.op, BLOCK_OPS)
        or _unknown("activation", block.act, ACTIVATIONS)
        or _unknown("skip", block.skip, SKIPS)
        or _count_fault(block)
        or _skip_fault(channels, block)
        or (_squeeze_fault(block.se) if block.se else "")
    )


def _count_fault(block: Block) -> str:
    if not _is_count(block.kernel) or block.kernel % 2 == 0:
        return f"kernel {block.kernel} is not an odd number above 0"
    if not _is_count(block.stride) or block.stride > 2:
        return f"stride {block.stride} is not 1 or 2"
    if not _is_count(block.out) or not (_is_count(block.mid) or _is_zero(block.mid)):
        return "channel counts must be whole numbers above 0"
    return "only an mb block has middle channels" if block.mid and block.op != "mb" else ""


def _skip_fault(channels: int, block: Block) -> str:
    if block.skip == "none" or (block.stride == 1 and block.out == channels):
        return ""
    return (
        "a skip needs stride 1 and equal widths, "
        f"here stride {block.stride} and {channels} -> {block.out} channels"
    )


def _squeeze_fault(se: SqueezeExcite) -> str:
    if not _is_count(se.channels):
        return "squeeze-and-excite needs at least one channel"
    return _unknown("gate", se.gate, GATES) or _unknown("squeeze activation", se.act, ACTIVATIONS)


def _unknown(what: str, value: str, known: tuple[str, ...]) -> str:
    return "" if value in known else f"{what} is {value!r}; known: {', '.join(known)}"


def _one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if fault := _unknown(what, value, known):
        raise SpecError(fault)


def _is_count(value: object) -> bool:
    """Whether it is an int above 0. Not numpy's: those neither reach JSON nor hash alike."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_zero(value: object) -> bool:
    """Whether it is 0 and no other number that equals it: 0.0 and False have other digests."""
    return type(value) is int and value == 0
