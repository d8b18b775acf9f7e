"""What a row of the table of ops says; see `models.ops`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.activations import FUSED_ACTIVATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from models.graph import Op
    from models.window import Window

Shape = tuple[int, ...]
Shapes = tuple[Shape, ...]
Dtypes = tuple[str, ...]
Array = npt.NDArray[Any]

FLOAT, BOOL = "float32", "bool"
INTEGERS = ("int32", "int64")
INPUTS_ONLY = ("int8", "uint8")
"""What a network may be fed beside the types that it computes with."""
DTYPES = (FLOAT, *INTEGERS, BOOL, *INPUTS_ONLY)


@dataclass(frozen=True, slots=True)
class Attributes:
    """Of a kind whose ops have none. `key` is the part of attributes in `Op.key`."""

    @property
    def key(self) -> str:
        """Return what stands in the key of an op without a window."""
        return "k1s1p0.0.0.0"


@dataclass(frozen=True, slots=True)
class Named(Attributes):
    """Of a kind whose attributes stand in its key by their names."""

    @property
    def key(self) -> str:
        """Return the attributes as `axis=3,keepdims=True`."""
        return ",".join(f"{item.name}={_text(getattr(self, item.name))}" for item in fields(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What the weight of a layer is like; its bias has one value for each output channel.

    Attributes:
        shape: of the weight of an op, in TFLite's layout.
        channel_axis: its axis that holds output channels.
        from_torch: how torch's axes, which are ONNX's, are permuted into this layout.
        normalised: whether a batch normalisation is folded into it, as far as papers count.
        one_scale: whether a runtime may want one scale for all its outputs.
    """

    shape: Callable[[Op], Shape]
    channel_axis: int
    from_torch: tuple[int, ...]
    normalised: bool = True
    one_scale: bool = False

    @property
    def to_torch(self) -> tuple[int, ...]:
        """Return how this layout's axes are permuted into torch's."""
        return tuple(self.from_torch.index(axis) for axis in range(len(self.from_torch)))


def float_only(dtypes: Dtypes, _: Any) -> str:
    """Return the type of what is computed of real numbers; ValueError for anything else."""
    if other := [dtype for dtype in dtypes if dtype != FLOAT]:
        raise ValueError(f"reads {other[0]} where it computes with {FLOAT}")
    return FLOAT


def one_dtype(dtypes: Dtypes, _: Any) -> str:
    """Return the type that all inputs have; ValueError if they differ."""
    if len(set(dtypes)) > 1:
        raise ValueError(f"reads {' and '.join(dtypes)}, and needs one type")
    return dtypes[0]


def first_dtype(dtypes: Dtypes, _: Any) -> str:
    """Return the type of the first input, whatever the others have."""
    return dtypes[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpKind:
    """A row of the table.

    Attributes:
        shape: the output's shape for those of the inputs and attributes; raises ValueError with
            the end of a sentence that says why there is none.
        reference: what an op computes before its fused activation, from the values of its inputs
            and a layer's weight and bias; with any number of samples in place of the batch
            dimension where `keeps_batch` says so.
        dtype: the output's type for those of the inputs and attributes; raises as `shape` does.
        attributes: the class of its attributes.
        inputs: how many tensors it reads, a layer's weights not counted; None for one or more.
        layer: what its weights are like; None if it has none.
        macs: counts multiply-accumulates.
        activations: those that it can be fused with.
        keeps_batch: whether the first axis of an op's inputs and output stays the batch.
        integer: whether runtimes compute such an op with codes; one that they do not stays real
            between ops with codes (`models.islands`).
        keeps_scale: whether its values are among those of its input, in the same number format.
        keeps_scale_of: the same of a kind of which only some ops do.
        shares_scale: whether integer kernels want one number format for all inputs and the output.
        keeps_range: whether, without data, the range of its input is the best guess of its own.
        fixed_scale: activation -> the output's (scale, zero point) that integer kernels fix.
        finest_scale: activation -> the smallest output scale, as a share of the largest of its
            inputs, that integer kernels take.
    """

    shape: Callable[[Shapes, Any], Shape]
    reference: Callable[[Op, Sequence[Array]], Array]
    dtype: Callable[[Dtypes, Any], str] = float_only
    attributes: type[Attributes | Window] = Attributes
    inputs: int | None = 1
    layer: Layer | None = None
    macs: Callable[[Op], int] = lambda _: 0
    activations: tuple[str, ...] = ("none",)
    keeps_batch: Callable[[Op], bool] = lambda _: True
    integer: Callable[[Op], bool] = lambda _: True
    keeps_scale: bool = False
    keeps_scale_of: Callable[[Op], bool] = lambda _: False
    shares_scale: bool = False
    keeps_range: bool = False
    fixed_scale: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    finest_scale: Mapping[str, float] = field(default_factory=dict)


FUSED = FUSED_ACTIVATIONS


def never(_: Op) -> bool:
    """Say no, of any op."""
    return False


def layer_macs(op: Op) -> int:
    """Count what a layer does: its whole weight once for each position of its output."""
    return prod(op.weight_shape) * (prod(op.out_shape) // op.out_shape[-1])


def map_shape(shapes: Shapes) -> tuple[int, int, int]:
    """Return (height, width, channels) of the first input; ValueError if it is no map."""
    if len(shapes[0]) != 4:
        raise ValueError(f"reads {shapes[0]}, which is no map (batch, height, width, channels)")
    return shapes[0][1:]


def broadcast_shape(shapes: Shapes, _: Any) -> Shape:
    """Dimensions are equal or 1. One rank, so that the batch of all stands at one place."""
    for shape in shapes[1:]:
        first = shapes[0]
        equal_or_one = all(a == b or 1 in (a, b) for a, b in zip(first, shape, strict=False))
        if len(first) != len(shape) or not equal_or_one:
            raise ValueError(f"reads {first} and {shape}, whose dimensions are neither equal nor 1")
    widest = np.broadcast_shapes(*shapes)
    return tuple(int(size) for size in widest)


def same_shape(shapes: Shapes, _: Any) -> Shape:
    """Return the shape of the first input."""
    return shapes[0]


def check_axes(shapes: Shapes, *axes: int) -> None:
    """Refuse axes that the first input does not have, or has named twice."""
    rank = len(shapes[0])
    if len(set(axes)) != len(axes) or not all(0 <= axis < rank for axis in axes):
        raise ValueError(f"names the axes {axes} of {shapes[0]}")


def check_function(name: str, known: Mapping[str, Any]) -> None:
    """Refuse a function that a row does not have."""
    if name not in known:
        raise ValueError(f"has the function {name!r}; known: {', '.join(known)}")


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ".".join(map(_text, value)) + ")"
    return str(value)
