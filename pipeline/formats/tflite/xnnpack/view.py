"""An op as a rule sees it, and what rules ask of tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.formats.tflite.contents import FileOp, FileTensor, Subgraph

MOST_DIMS = 6
FLOATS = ("float32", "float16")
_FUSED = (0, 1, 2, 3)  # none, relu, relu between -1 and 1, relu6
_LEAST_NORMAL = 2.0**-126


class _Defaults:
    """Options of an op that has none in its file: every field is 0."""

    def __getattr__(self, name: str) -> int:
        return 0


class LeftError(Exception):
    """An op is not taken; the text says why."""


@dataclass(frozen=True, slots=True)
class View:
    """An op with its tensors.

    `unpacked` are outputs of DEQUANTIZE and DENSIFY of constants, which are unpacked before
    anything runs and then read like constants; `halves` those of them that stay float16.
    """

    graph: Subgraph
    op: FileOp
    unpacked: set[int] = field(default_factory=set)
    halves: set[int] = field(default_factory=set)

    def input(self, place: int) -> FileTensor:
        """Return an input that must be there."""
        need(met=self.has(place), reason=f"input {place} is left out")
        return self.graph.tensors[self.op.inputs[place]]

    @property
    def options(self) -> Any:
        """The options of the op, as the generated schema names them."""
        return self.op.options or _Defaults()

    @property
    def output(self) -> FileTensor:
        """The first output."""
        return self.graph.tensors[self.op.outputs[0]]

    def has(self, place: int) -> bool:
        """Tell whether an optional input is there."""
        return place < len(self.op.inputs) and self.op.inputs[place] >= 0

    def dtype(self, place: int) -> str:
        """Return the type of an input as it is after unpacking."""
        return "float16" if self.op.inputs[place] in self.halves else self.input(place).dtype

    def need_counts(self, inputs: tuple[int, ...], outputs: tuple[int, ...] = (1,)) -> None:
        """Require numbers of inputs and outputs."""
        need(len(self.op.inputs) in inputs, f"it has {len(self.op.inputs)} inputs")
        need(len(self.op.outputs) in outputs, f"it has {len(self.op.outputs)} outputs")

    def need_fixed(self, place: int, what: str) -> None:
        """Require a constant, or what is unpacked from one."""
        fixed = self.input(place).data is not None or self.op.inputs[place] in self.unpacked
        need(fixed, f"its {what} are not constant")

    def need_fused(self) -> None:
        """Require a fused activation that XNNPACK clamps by."""
        found = getattr(self.op.options, "fusedActivationFunction", 0)
        need(found in _FUSED, "its fused activation is no clamp")

    def table(self, place: int, what: str, *types: str) -> Any:
        """Return the values of an operand that must be a constant of the file itself."""
        tensor = self.input(place)
        need(tensor.data is not None, f"its {what} are not constant")
        need(not types or tensor.dtype in types, f"its {what} are {tensor.dtype}")
        need(tensor.values is not None, f"its {what} cannot be read")
        return tensor.values

    def need_ratio(self, places: tuple[int, ...], least: float, below: float) -> None:
        """Require the ratio of scales of inputs, multiplied, to the output's, of integers."""
        tensors = [*(self.input(place) for place in places), self.output]
        if any(tensor.dtype in FLOATS for tensor in tensors):
            return
        ratio = math.prod(tensor.scales[0] for tensor in tensors[:-1]) / tensors[-1].scales[0]
        need(least <= ratio < below, f"the ratio {ratio:.3g} of its scales is out of range")


def need(met: bool, reason: str) -> None:  # noqa: FBT001 - reads as the sentence it is
    """Leave the op for this reason unless the condition is met."""
    if not met:
        raise LeftError(reason)


def need_shape(tensor: FileTensor, least: int, most: int) -> None:
    """Require a number of dimensions, none of them empty or unknown."""
    dims = len(tensor.shape)
    need(least <= dims <= most, f"it is not taken with {dims} dimensions")
    need(all(length > 0 for length in tensor.shape), "a tensor of it is empty, or of open shape")


def need_type(tensor: FileTensor, *types: str) -> None:
    """Require one of some types: `qs8` is int8 of one scale, `q8` that or uint8 of one scale."""
    if tensor.dtype in types:
        return
    integers = {"int8": ("q8", "qs8"), "uint8": ("q8",)}.get(tensor.dtype, ())
    need(any(kind in types for kind in integers), f"it is not taken in {tensor.dtype}")
    one = len(tensor.scales) == 1 and not tensor.axis and not tensor.blockwise
    need(one, f"it is {tensor.dtype} without one scale")


def need_weight(tensor: FileTensor, axis: int) -> None:
    """Require weights: float32, int8 with scales along an axis, uint8 with one scale."""
    if tensor.dtype == "float32":
        return
    if tensor.dtype == "uint8":
        need_type(tensor, "q8")
    need(tensor.dtype in ("int8", "uint8"), f"its weights are {tensor.dtype}")
    need(bool(tensor.scales) and not tensor.blockwise, "its weights have no plain scales")
    if len(tensor.scales) > 1:
        need(tensor.axis == axis, f"scales of its weights run along axis {tensor.axis}")
        need(not tensor.zero_points[0], "a zero point of its weights is not 0")
    need(all(map(is_normal, tensor.scales)), "a scale of its weights is too small")


def need_bias(view: View, weight: int, bias: int) -> None:
    """Require a bias that suits the weights: float, or int32 with scales."""
    tensor = view.input(bias)
    if tensor.dtype not in FLOATS:
        need(tensor.dtype == "int32", f"its bias is {tensor.dtype}")
        need(bool(tensor.scales) and not tensor.axis, "its bias has no scales")
        zero = len(tensor.scales) > 1 or not tensor.zero_points[0]
        need(zero, "the zero point of its bias is not 0")
        need(all(map(is_normal, tensor.scales)), "a scale of its bias is too small")
    if view.dtype(weight) in FLOATS:
        types = view.dtype(weight), view.dtype(bias)
        need(types[0] == types[1], f"its weights are {types[0]}, its bias {types[1]}")


def need_same(source: FileTensor, other: FileTensor) -> None:
    """Require one type of two tensors."""
    need(source.dtype == other.dtype, f"it mixes {source.dtype} and {other.dtype}")


def is_normal(value: float) -> bool:
    """Tell whether a number is positive, finite and not denormal in float32."""
    return math.isfinite(value) and value >= _LEAST_NORMAL
