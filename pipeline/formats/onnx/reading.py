"""The graph that is made of an ONNX file, node by node, and where each of its tensors is in it.

A tensor of the file is known (a constant, or computed of constants alone, as shapes are) or a
tensor of the graph. What reads a node is in the families: `read_layers`, `read_arithmetic`, ….
Tensors keep the axes of the file; ops that want channels last stand between transposes, which
`models.layout.settle` takes away afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from models.graph import GraphBuilder, Op
from models.ops import FLOAT, Cast, Reshape, Transpose, compute
from pipeline.formats.onnx.node import Array, Codes, HeldCodes, UnknownError, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.codes import QParams
    from pipeline.formats.onnx.file import File

MOST_VALUES = 1 << 28
"""Of a constant that is computed: a damaged file may ask for any number."""

_READ_AS = {"float16": FLOAT, "float64": FLOAT, "bfloat16": FLOAT}
_READ_AS |= dict.fromkeys(("int4", "uint4", "int8", "uint8", "int16", "uint16"), "int32")
_READ_AS |= dict.fromkeys(("uint32", "uint64"), "int64")
_COMPUTED = ("float32", "int32", "int64", "bool")
"""Types that graphs compute with."""

_WHOLE = ("int32", "int64")


@dataclass(slots=True)
class Reading:
    """A file on its way into a graph.

    Attributes:
        file: what is read.
        builder: the ops so far.
        weights: layer -> (weight, bias), constant -> (value,), as `Model.weights`.
        at: tensor of the file -> what it is here.
        params: tensor of the graph -> what its codes mean.
        codes: layer -> the codes that its weights are in the file.
        real_layers: layers whose weights are real in the file, whatever they read and give.
        constant_codes: constant -> its codes.
        ends: input or output that is codes in the file -> numpy's type of them.
        made: tensor of the graph -> the op that makes it; layers are left out.
        coded: real tensor, and what codes of it mean -> the copy of it that has such codes.
        copies: those of tensors that are read as they were made, for all that is known so far.
    """

    file: File
    builder: GraphBuilder = field(default_factory=GraphBuilder)
    weights: dict[str, tuple[Array, ...]] = field(default_factory=dict)
    at: dict[str, Value] = field(default_factory=dict)
    params: dict[str, QParams] = field(default_factory=dict)
    codes: dict[str, HeldCodes] = field(default_factory=dict)
    real_layers: set[str] = field(default_factory=set)
    constant_codes: dict[str, Codes] = field(default_factory=dict)
    ends: dict[str, str] = field(default_factory=dict)
    made: dict[str, Op] = field(default_factory=dict)
    coded: dict[tuple[str, QParams], str] = field(default_factory=dict)
    copies: set[str] = field(default_factory=set)
    _names: set[str] = field(default_factory=set)
    _constants: dict[int, tuple[Value, str]] = field(default_factory=dict)

    def unique(self, name: str) -> str:
        """Return a name that no tensor has, the given one if that is free."""
        found, number = name, 0
        while found in self._names:
            number += 1
            found = f"{name}.{number}"
        self._names.add(found)
        return found

    def constant(self, name: str, array: Any) -> Value:
        """Return a known tensor, of a type that graphs compute with.

        Raises:
            UnknownError: it holds something else than numbers.
        """
        value = np.asarray(array)
        dtype = _READ_AS.get(str(value.dtype), str(value.dtype))
        if dtype not in _COMPUTED:
            raise UnknownError(f"reads {name!r}, which holds {value.dtype}")
        return Value(name, value.shape, dtype, value.astype(dtype, copy=False))

    def held(self, name: str, array: Array) -> Value:
        """Return a constant of the file; small integers are kept, as they may be codes."""
        value = self.constant(name, array)
        return replace(value, raw=array) if value.dtype in _WHOLE else value

    def op(
        self,
        kind: str,
        inputs: Sequence[Value],
        attributes: Any = None,
        *,
        name: str,
        act: str = "none",
    ) -> Value:
        """Add an op to the graph, or compute it where all that it reads is known.

        Raises:
            GraphError: there is no such op.
        """
        if all(value.array is not None for value in inputs):
            return self._computed(kind, inputs, attributes, name=name, act=act)
        made = self.builder.op(
            kind, self.unique(name), [self.tensor(value) for value in inputs], attributes, act=act
        )
        self.made[made] = self.builder.ops[-1]
        return self.value(made)

    def layer(
        self, kind: str, x: Value, attributes: Any, weight: Array, bias: Array, *, name: str
    ) -> Value:
        """Add an op that owns a weight and a bias, in the layout of `Op.weight_shape`."""
        made = self.builder.op(kind, self.unique(name), [self.tensor(x)], attributes)
        self.weights[made] = (
            np.ascontiguousarray(weight, np.float32),
            np.ascontiguousarray(bias, np.float32),
        )
        return self.value(made)

    def value(self, name: str) -> Value:
        """Return what a tensor of the graph is to nodes that read it."""
        return Value(name, self.builder.shapes[name], self.builder.dtypes[name])

    def tensor(self, value: Value) -> str:
        """Return the graph's name of a tensor; a known one becomes a constant of it."""
        if value.array is None:
            return value.name
        key = id(value.array)
        if key not in self._constants:
            name = self.unique(value.name)
            self.builder.constant(name, value.shape, value.dtype)
            # Contiguous, and a scalar stays one: numpy's function for it makes a vector of that.
            self.weights[name] = (np.asarray(value.array, order="C"),)
            self._constants[key] = (value, name)  # keeps the array, and so its id
            if value.codes is not None and len(value.codes.scales) == 1:
                self.constant_codes[name] = value.codes
        return self._constants[key][1]

    def _computed(
        self, kind: str, inputs: Sequence[Value], attributes: Any, *, name: str, act: str
    ) -> Value:
        op = Op(
            kind,
            name,
            tuple(f"{place}" for place, _ in enumerate(inputs)),
            tuple(value.shape for value in inputs),
            attributes,
            act,
            in_dtypes=tuple(value.dtype for value in inputs),
        )
        if prod(op.out_shape) > MOST_VALUES:
            raise UnknownError(f"makes a constant of shape {op.out_shape}")
        with np.errstate(all="ignore"):
            result = compute(op, [value.array for value in inputs if value.array is not None])
        return Value(name, op.out_shape, op.out_dtype, np.asarray(result, op.out_dtype))

    # What several families need.

    def reshape(self, x: Value, shape: Sequence[int], *, name: str) -> Value:
        """Return a tensor in another shape; itself where it has that."""
        wanted = tuple(int(size) for size in shape)
        if x.shape == wanted:
            return x
        if x.array is not None:
            array = x.array.reshape(wanted)
            codes = x.codes if x.codes is not None and x.codes.axis is None else None
            return replace(x, name=name, shape=wanted, array=array, codes=codes, raw=None)
        return self.op("reshape", [self.before_reshape(x)], Reshape(wanted), name=name)

    def before_reshape(self, x: Value) -> Value:
        """Return what a tensor is the same values of in another shape; itself if there is none."""
        made = self.made.get(x.name)
        if made is None or made.kind != "reshape" or x.name in self.params:
            return x
        return self.value(made.inputs[0])

    def transpose(self, x: Value, permutation: Sequence[int], *, name: str) -> Value:
        """Return a tensor with its axes in another order; itself where that is the same."""
        order = tuple(int(axis) for axis in permutation)
        if order == tuple(range(x.rank)):
            return x
        return self.op("transpose", [x], Transpose(order), name=name)

    def channels_last(self, x: Value, *, name: str) -> Value:
        """Move axis 1 behind all others."""
        return self.transpose(x, (0, *range(2, x.rank), 1), name=f"{name}.last")

    def channels_first(self, x: Value, *, name: str) -> Value:
        """Move the last axis behind the first."""
        return self.transpose(x, (0, x.rank - 1, *range(1, x.rank - 1)), name=f"{name}.first")

    def ranked(self, x: Value, rank: int, *, name: str) -> Value:
        """Put axes of size 1 before a tensor, up to a rank."""
        shape = (1,) * (rank - x.rank) + x.shape
        return self.reshape(x, shape, name=f"{name}.{x.name}")

    def aligned(self, values: Sequence[Value], *, name: str) -> list[Value]:
        """Return tensors of one rank, as broadcasting aligns them."""
        rank = max(value.rank for value in values)
        return [self.ranked(value, rank, name=name) for value in values]

    def cast(self, x: Value, dtype: str, *, name: str) -> Value:
        """Return a tensor of another type; itself where it has that."""
        if x.dtype == dtype:
            return x
        return self.op("cast", [x], Cast(dtype), name=name)

    def number(self, x: Value, value: float) -> Value:
        """Return a known number of a tensor's type, and of its rank."""
        return Value("constant", (1,) * x.rank, x.dtype, np.full((1,) * x.rank, value, x.dtype))
