"""What a node of an ONNX file reads and says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import onnx

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from models.ops import Shape

Array = npt.NDArray[Any]


class UnknownError(ValueError):
    """A node that the graph cannot say; the text is why."""


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """The integers that a tensor is in the file: real = scale * (code - zero point).

    Attributes:
        scales: one, or one for each entry along `axis`.
        zero_points: of the type of the codes, likewise.
        axis: None where there is one scale.
        values: of a constant; None of what the network computes.
    """

    scales: Array
    zero_points: Array
    axis: int | None = None
    values: Array | None = None


@dataclass(frozen=True, slots=True, eq=False)
class HeldCodes:
    """What a layer's weights are in the file: codes around 0, in the layout of the graph.

    Attributes:
        weight: int8, of `Op.weight_shape`.
        scales: one for each output channel, or one for the whole of a dense layer.
        bias: int32, where it is codes too.
    """

    weight: Array
    scales: Array
    bias: Array | None


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A tensor of the file.

    Attributes:
        name: of the tensor of the graph; of a known one what a constant of it will be called.
        shape: of the tensor.
        dtype: of the tensor in the graph.
        array: the value of a known one.
        codes: of a real tensor that is integers in the file.
        stored: numpy's type of the codes, where the tensor of the file is these and not the real
            numbers; else empty.
        raw: a constant as the file holds it, where that is integers.
    """

    name: str
    shape: Shape
    dtype: str
    array: Array | None = None
    codes: Codes | None = None
    stored: str = ""
    raw: Array | None = None

    @property
    def rank(self) -> int:
        """The number of its axes."""
        return len(self.shape)


_FIELDS = {
    onnx.AttributeProto.INT: "i",
    onnx.AttributeProto.FLOAT: "f",
    onnx.AttributeProto.STRING: "s",
    onnx.AttributeProto.TENSOR: "t",
    onnx.AttributeProto.INTS: "ints",
    onnx.AttributeProto.FLOATS: "floats",
}
_LISTS = (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS)


class Node:
    """A node of the file with the tensors that it reads; None for one that is left out.

    `read` are the tensors that anything of the file reads, or else all.
    """

    def __init__(
        self,
        proto: onnx.NodeProto,
        opset: int,
        inputs: Sequence[Value | None],
        read: Container[str] | None = None,
    ) -> None:
        self.proto = proto
        self.opset = opset
        self.inputs = tuple(inputs)
        self._read = proto.output if read is None else read
        self.name = next(filter(None, proto.output), proto.name)
        """Of the first tensor that it gives."""

        self._attributes = {item.name: item for item in proto.attribute}

    def attribute(self, name: str, otherwise: Any = None) -> Any:
        """Return an attribute's value: a number, text, a list of such, or a stored tensor."""
        item = self._attributes.get(name)
        if item is None:
            return otherwise
        if item.ref_attr_name:
            raise UnknownError(f"has its {name} from a function that is not written out")
        if item.type not in _FIELDS:
            raise UnknownError(f"has an attribute {name} of a kind that is not known")
        value = getattr(item, _FIELDS[item.type])
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        return tuple(value) if item.type in _LISTS else value

    def input(self, place: int) -> Value:
        """Return an input that must be there. Raises UnknownError if it is not."""
        found = self.optional(place)
        if found is None:
            raise UnknownError(f"lacks input {place}")
        return found

    def optional(self, place: int) -> Value | None:
        """Return an input, None where it is left out."""
        return self.inputs[place] if place < len(self.inputs) else None

    def gives_only(self, count: int = 1) -> None:
        """Refuse a node that is asked for more than its first outputs. Raises UnknownError."""
        if more := [name for name in self.proto.output[count:] if name and name in self._read]:
            raise UnknownError(f"is asked for {more[0]!r} beside its result")


def known(value: Value, what: str) -> Array:
    """Return the value of a tensor that must be known. Raises UnknownError if it is not."""
    if value.array is None:
        raise UnknownError(f"computes its {what} while it runs")
    return value.array


def known_ints(value: Value, what: str) -> tuple[int, ...]:
    """Return whole numbers that must be known. Raises UnknownError if they are not."""
    array = known(value, what)
    return tuple(int(number) for number in array.reshape(-1))


def axis_of(axis: int, rank: int) -> int:
    """Return an axis counted from the start. Raises UnknownError if there is none."""
    if not -rank <= axis < rank:
        raise UnknownError(f"names axis {axis} of {rank}")
    return axis % rank
