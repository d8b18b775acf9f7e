"""The graph that is made of a file, op by op: where each of the file's tensors is in it.

A tensor of the file is a tensor of the graph, or known: a constant, or computed of constants
alone, as shapes are. Quantised tensors are real numbers in the graph, and their scales are kept
beside it. What reads an op is in the families: `read_layers`, `read_arithmetic`, ….
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.codes import QParams
from models.graph import GraphBuilder, Op
from models.ops import KINDS, Clip, Reshape, compute
from models.window import Window
from pipeline.formats.tflite.values import UnknownError, Values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.codes import WeightCodes
    from models.ops import Shape
    from pipeline.formats.tflite.file import File, FileOp

Array = npt.NDArray[Any]

_LARGEST_RANK = 16
_FOLDED_MACS = 1 << 28
_SAME_SCALE = 1e-5
"""Share by which scales may differ that a converter computed twice."""
_SAME_DTYPES = ("float32", "int32", "int64", "bool")
CLIPS = {"relu_n1_to_1": Clip(-1.0, 1.0), "relu_0_to_1": Clip(0.0, 1.0)}
"""Activations that are limits."""


class Reading(Values):
    """A file on its way into a graph.

    Attributes:
        builder: the ops so far.
        weights: layer -> (weight, bias), constant -> (value,), as `Model.weights`.
        params: tensor of the graph -> what its codes mean.
        codes: layer -> the codes that its weights are in the file.
        halves: layers whose weights are float16 in the file.
        turned_back: layer with codes -> whether an op of the file makes real weights of them.
        float_ops: ops that the file computes with real numbers.
        coded: tensor of the graph, and what codes of it mean -> the copy of it with such codes.
        copies: those of tensors that are made as real numbers.
        at: tensor of the file -> its name in the graph, constants among them once they are read.
        skipped: tensor of the file -> what stands for it until the op that reads it takes it up.
        names: of the file's tensors, each once.
    """

    def __init__(self, file: File) -> None:
        super().__init__(file)
        self.builder = GraphBuilder()
        self.weights: dict[str, tuple[Array, ...]] = {}
        self.params: dict[str, QParams] = {}
        self.codes: dict[str, WeightCodes] = {}
        self.halves: set[str] = set()
        self.turned_back: dict[str, bool] = {}
        self.float_ops: set[str] = set()
        self.coded: dict[tuple[str, QParams], str] = {}
        self.copies: set[str] = set()
        self.at: dict[int, str] = {}
        self.skipped: dict[int, Any] = {}
        self._names: dict[str, int] = {}
        self.names = [
            self.unique(tensor.name or f"tensor_{tensor.number}") for tensor in file.tensors
        ]

    def shape(self, number: int) -> Shape:
        """Return a tensor's shape in the graph. Raises UnknownError if it is not made yet."""
        if number in self.at:
            return self.builder.shapes[self.at[number]]
        value = self.value(number)
        if value is None:
            raise UnknownError(f"reads {self.names[number]!r}, which nothing before it makes")
        return value.shape

    # What is read of the graph.

    def name(self, number: int) -> str:
        """Return a tensor's name in the graph; a known one becomes a constant of it."""
        if number not in self.at:
            value = self.value(number)
            if value is None:
                self.shape(number)  # says why
            else:
                self.at[number] = self.constant(self.names[number], value)
                self.note(self.at[number], number)
        return self.at[number]

    def operand(self, number: int, shape: Shape) -> str:
        """Return a tensor's name in the graph, reshaped where it has another shape."""
        if self.shape(number) == shape:
            return self.name(number)
        value, name = self.value(number), self.unique(f"{self.names[number]}.reshaped")
        if value is not None and number not in self.at:
            name = self.constant(name, value.reshape(shape))
        else:
            name = self.apply("reshape", name, [self.name(number)], Reshape(shape))
        self.note(name, number)
        return name

    def ranked(self, number: int, rank: int) -> str:
        """Return a tensor's name in the graph, with dimensions of 1 before it up to a rank."""
        shape = self.shape(number)
        return self.operand(number, (1,) * (rank - len(shape)) + shape)

    def constant(self, name: str, value: Array) -> str:
        """Add a constant to the graph; return its name."""
        dtype = str(value.dtype)
        if dtype not in _SAME_DTYPES or not value.size:
            raise UnknownError(f"reads a constant of type {dtype} and shape {value.shape}")
        self.weights[name] = (value,)
        return self.builder.constant(name, value.shape, dtype)

    def unique(self, name: str) -> str:
        """Return a name that no tensor has, the given one if that is free."""
        found = name
        while found in self._names:
            self._names[name] += 1
            found = f"{name}.{self._names[name]}"
        self._names[found] = 0
        return found

    # What is added to the graph.

    def emit(
        self,
        op: FileOp,
        kind: str,
        inputs: Sequence[str],
        attributes: Any = None,
        *,
        act: str = "none",
        own: tuple[Array, Array] | None = None,
        output: int = 0,
    ) -> str:
        """Add what an op of the file is; return the name of the op that has `kind`.

        Args:
            op: of the file.
            kind: of the op of the graph.
            inputs: names in the graph.
            attributes: of the op of the graph.
            act: fused activation; an op of its own where the kind has none such.
            own: a layer's weight and bias.
            output: which of the op's outputs it is.
        """
        number = op.outputs[output]
        rules = KINDS[kind]
        if rules.keeps_scale:
            self.check_kept(inputs[0], number)
        if act in rules.fixed_scale:
            self._check_fixed(number, QParams(*rules.fixed_scale[act]))
        name = last = self.names[number]
        if act not in KINDS[kind].activations:
            name = self.unique(f"{last}.before")
        made = self.apply(
            kind, name, inputs, attributes, act=act if name == last else "none", own=own
        )
        self.note(made, number)
        if name != last:
            clip = CLIPS.get(act)
            kind, act = ("act", act) if clip is None else ("clip", "none")
            self.note(self.apply(kind, last, [made], clip, act=act), number)
        self.place(number, last)
        return made

    def step(
        self,
        op: FileOp,
        what: str,
        kind: str,
        inputs: Sequence[str],
        attributes: Any = None,
        *,
        like: int | None = None,
    ) -> str:
        """Add an op on the way to the output of one of the file; return its name.

        With `like` it has the number format of that tensor; without, it is real.
        """
        name = self.unique(f"{self.names[op.outputs[0]]}.{what}")
        made = self.apply(kind, name, inputs, attributes)
        if like is not None:
            self.note(made, like)
        return made

    def apply(
        self,
        kind: str,
        name: str,
        inputs: Sequence[str],
        attributes: Any = None,
        *,
        act: str = "none",
        own: tuple[Array, Array] | None = None,
    ) -> str:
        """Add an op under a name of its own, or its value where all that it reads is constant."""
        if all(source in self.builder.constants for source in inputs):
            return self._folded(kind, name, inputs, attributes, act)
        self.builder.op(kind, name, inputs, attributes, act=act)
        self._check_rank(name)
        if own is not None:
            self.weights[name] = own
        return name

    def _folded(
        self, kind: str, name: str, inputs: Sequence[str], attributes: Any, act: str
    ) -> str:
        """Add the value of an op that reads constants alone. Raises UnknownError for a large op."""
        shapes = tuple(self.builder.shapes[source] for source in inputs)
        dtypes = tuple(self.builder.dtypes[source] for source in inputs)
        op = Op(kind, name, tuple(inputs), shapes, attributes, act, in_dtypes=dtypes)
        if isinstance(attributes, Window) or op.has_weights or op.rules.macs(op) > _FOLDED_MACS:
            raise UnknownError("computes with constants alone")
        self.spend_bytes(name, 8 * prod(op.out_shape))
        with np.errstate(all="ignore"):
            result = compute(op, [self.weights[source][0] for source in inputs])
        made = self.constant(name, np.asarray(result, op.out_dtype).reshape(op.out_shape))
        self._check_rank(made)
        return made

    def _check_rank(self, name: str) -> None:
        if len(self.builder.shapes[name]) > _LARGEST_RANK:
            raise UnknownError(f"has more than {_LARGEST_RANK} axes")

    def place(self, number: int, name: str) -> None:
        """Say that a tensor of the file is this one of the graph."""
        self.at[number] = name
        if name in self.builder.constants:
            self._values[number] = self.weights[name][0]

    def note(self, name: str, number: int) -> None:
        """Say that a tensor of the graph has the number format of one of the file."""
        params = self.scale(number)
        if params is not None:
            self.params[name] = params
        elif self.builder.ops and self.builder.ops[-1].name == name:
            self.float_ops.add(name)

    def check_kept(self, source: str, number: int) -> None:
        """Refuse codes that a kernel moves as they are and that mean something else elsewhere.

        Raises:
            UnknownError: the tensor of the graph and that of the file have two scales.
        """
        before, after = self.params.get(source), self.scale(number)
        if before is not None and after is not None and not _alike(before, after):
            raise UnknownError("gives codes another scale than those it moves")

    def _check_fixed(self, number: int, fixed: QParams) -> None:
        """Refuse a scale where kernels give codes of one of their own, whatever the file says."""
        params = self.scale(number)
        if params is not None and params.dtype == fixed.dtype and not _alike(params, fixed):
            raise UnknownError(
                f"gives codes of scale {params.scale:g}, where kernels give {fixed.scale:g}"
            )


def _alike(one: QParams, other: QParams) -> bool:
    near = abs(one.scale / other.scale - 1) <= _SAME_SCALE
    return near and one.zero_point == other.zero_point
