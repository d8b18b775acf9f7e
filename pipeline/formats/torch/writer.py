"""What the forms of torch's ops write with: values, the graph that grows, its names.

Shapes are torch's here, channels first, and so are the ops that are written, with transposes
around those that want channels last; `models.layout` does away with the transposes afterwards.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from models.graph import Graph, GraphBuilder
from models.ops import Cast, Reshape, Transpose

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from models.ops import Shape

DTYPES: Mapping[torch.dtype, str] = {
    torch.float32: "float32",
    torch.int32: "int32",
    torch.int64: "int64",
    torch.bool: "bool",
    torch.uint8: "uint8",
    torch.int8: "int8",
}
"""Types that both know."""


def dtype_of(dtype: torch.dtype) -> str | None:
    """Return the graph's name of a type; real numbers of any width are computed in float32."""
    return "float32" if dtype.is_floating_point else DTYPES.get(dtype)


_MOVING = ("transpose", "reshape", "cast")
"""Kinds that are not what an op of torch's is named after, if it is written as several."""


class Unsaid(Exception):
    """An op that our graph cannot say; the message is the end of a sentence, or empty."""


@dataclass(frozen=True, eq=False, slots=True)
class Value:
    """A tensor of the program.

    Attributes:
        shape: torch's, whole.
        dtype: one of `models.ops.DTYPES`.
        name: in the graph that grows; empty for a constant.
        constant: its value, if that is known.
        source: the path of the parameter or buffer that the constant is.
    """

    shape: Shape
    dtype: str
    name: str = ""
    constant: torch.Tensor | None = None
    source: str = ""


def held(tensor: torch.Tensor, source: str = "") -> Value:
    """Return a value that is known, in a type that the graph has.

    Raises:
        Unsaid: complex numbers.
    """
    tensor = tensor.detach()
    if tensor.is_floating_point():
        tensor = tensor.float()
    elif tensor.dtype not in DTYPES or tensor.dtype in (torch.uint8, torch.int8):
        if tensor.is_complex():
            raise Unsaid("its values are complex numbers")
        tensor = tensor.long()
    return Value(tuple(tensor.shape), DTYPES[tensor.dtype], constant=tensor, source=source)


@dataclass(slots=True)
class Writer:
    """The graph that grows, under names that are put right at its end."""

    builder: GraphBuilder = field(default_factory=GraphBuilder)
    weights: dict[str, tuple[npt.NDArray[Any], ...]] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)
    _constants: dict[int, tuple[Value, str]] = field(default_factory=dict)
    _taken: Counter[str] = field(default_factory=Counter)
    _place: str = ""
    _written: list[str] = field(default_factory=list)

    def begin(self, place: str) -> None:
        """Begin with an op of torch's that is named `place`."""
        self._place, self._written = place, []

    def end(self) -> None:
        """Name what was written of an op: the main one like it, the others after it."""
        kinds = {op.name: op.kind for op in self.builder.ops[-len(self._written) :]}
        ours = [name for name in self._written if kinds[name] not in _MOVING] or self._written
        for name in self._written:
            if name == ours[-1]:
                self._names[name] = self._unique(self._place)
        for name in self._written:
            if name != ours[-1]:
                self._names[name] = self._unique(f"{self._place}.{kinds[name]}")

    def input(self, name: str, shape: Shape, dtype: str) -> Value:
        """Add an input of the network."""
        return Value(shape, dtype, self.builder.input(self._unique(name), shape, dtype))

    def op(
        self, kind: str, inputs: Sequence[Value], attributes: Any = None, act: str = ""
    ) -> Value:
        """Append an op. Raises GraphError if there is no such one."""
        name = f"%{len(self.builder.ops)}"
        reads = [self._tensor(value) for value in inputs]
        self.builder.op(kind, name, reads, attributes, act=act or "none")
        self._written.append(name)
        return Value(self.builder.shapes[name], self.builder.dtypes[name], name)

    def layer(
        self, kind: str, x: Value, weight: torch.Tensor, bias: torch.Tensor, attributes: Any
    ) -> Value:
        """Append a layer with weights in the layout of its row."""
        made = self.op(kind, [x], attributes)
        self.weights[made.name] = (_array(weight.float()), _array(bias.float()))
        return made

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """Return the same values in another shape."""
        shape = tuple(int(size) for size in shape)
        if x.shape == shape:
            return x
        if x.constant is not None:
            return replace(x, shape=shape, constant=x.constant.reshape(shape))
        return self.op("reshape", [x], Reshape(shape))

    def transpose(self, x: Value, permutation: Sequence[int]) -> Value:
        """Return the axes in another order."""
        permutation = tuple(permutation)
        if permutation == tuple(range(len(permutation))):
            return x
        if x.constant is not None:
            turned = x.constant.permute(permutation)
            return replace(x, shape=tuple(turned.shape), constant=turned)
        return self.op("transpose", [x], Transpose(permutation))

    def to_last(self, x: Value) -> Value:
        """Return a tensor (N, C, …) as (N, …, C)."""
        return self.transpose(x, (0, *range(2, len(x.shape)), 1))

    def to_first(self, x: Value) -> Value:
        """Return a tensor (N, …, C) as (N, C, …)."""
        rank = len(x.shape)
        return self.transpose(x, (0, rank - 1, *range(1, rank - 1)))

    def cast(self, x: Value, dtype: str) -> Value:
        """Return the values in another type."""
        if x.dtype == dtype:
            return x
        if x.constant is not None:
            return held(x.constant.to(torch_dtype(dtype)), x.source)
        return self.op("cast", [x], Cast(dtype))

    def fit(self, values: Sequence[Value]) -> list[Value]:
        """Return tensors of one rank that broadcast as torch would: axes of 1 put before."""
        rank = max(len(value.shape) for value in values)
        return [self.reshape(v, (1,) * (rank - len(v.shape)) + v.shape) for v in values]

    def graph(self, outputs: Sequence[Value]) -> Graph:
        """Return the graph of what leads to the outputs; every name is right now."""
        built = self.builder.graph(*(value.name for value in outputs))
        names, needed = self._names, set(built.outputs)
        for op in reversed(built.ops):
            if op.name in needed:
                needed.update(op.inputs)
        self.weights = {
            names.get(name, name): arrays for name, arrays in self.weights.items() if name in needed
        }
        ops = tuple(
            replace(
                op,
                name=names.get(op.name, op.name),
                inputs=tuple(names.get(name, name) for name in op.inputs),
                constants=tuple(names.get(name, name) for name in op.constants),
            )
            for op in built.ops
            if op.name in needed
        )
        return Graph(built.inputs, ops, tuple(names.get(name, name) for name in built.outputs))

    def _tensor(self, value: Value) -> str:
        """Return a value's name in the graph, a constant's too."""
        if value.constant is None:
            return value.name
        # The value is kept beside its name, for its identity not to be another's later on.
        if id(value) not in self._constants:
            name = self._unique(value.source or f"{self._place}.constant")
            self.builder.constant(name, value.shape, value.dtype)
            self.weights[name] = (_array(value.constant),)
            self._constants[id(value)] = (value, name)
        return self._constants[id(value)][1]

    def _unique(self, name: str) -> str:
        self._taken[name] += 1
        number = self._taken[name]
        return name if number == 1 else self._unique(f"{name}_{number - 1}")


def torch_dtype(dtype: str) -> torch.dtype:
    """Return torch's name of a type of the graph."""
    found: torch.dtype = getattr(torch, dtype)
    return found


def known(value: Value | None, what: str) -> torch.Tensor:
    """Return the value of a constant. Raises Unsaid where it is computed."""
    if value is None or value.constant is None:
        raise Unsaid(f"its {what} is computed by the network, not a constant")
    return value.constant


def _array(tensor: torch.Tensor) -> npt.NDArray[Any]:
    array: npt.NDArray[np.generic] = tensor.detach().contiguous().numpy().copy()
    return array
