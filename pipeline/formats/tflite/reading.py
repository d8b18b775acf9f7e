"""The graph that is made of a file, op by op: where each of the file's tensors is in it.

A tensor of the file is a tensor of the graph, or known: a constant, or computed of constants
alone, as shapes are. Quantised tensors are real numbers in the graph, and their scales are kept
beside it. What reads an op is in the families: `read_layers`, `read_arithmetic`, ….
"""

from __future__ import annotations

from collections import defaultdict
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents.model_files.flatbuffer import DamagedError
from models.codes import QParams
from models.graph import GraphBuilder, Op
from models.ops import KINDS, Clip, Reshape, compute
from models.window import Window
from pipeline.formats.tflite import constants

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.codes import WeightCodes
    from models.ops import Shape
    from pipeline.formats.tflite.file import File, FileOp, FileTensor

Array = npt.NDArray[Any]

_HALF_RANGE = 128
_LARGEST_RANK = 16
# What constants may take beside the file: many tensors may share the same few bytes of it.
_DECODED_BYTES = 1 << 27
_DECODED_SHARE = 16
_FOLDED_MACS = 1 << 28
_SAME_SCALE = 1e-5
"""Share by which scales may differ that a converter computed twice."""
_SAME_DTYPES = ("float32", "int32", "int64", "bool")
_FUSED = {0: "none", 1: "relu", 2: "relu_n1_to_1", 3: "relu6", 4: "tanh"}
"""The schema's numbers of fused activations."""
CLIPS = {"relu_n1_to_1": Clip(-1.0, 1.0), "relu_0_to_1": Clip(0.0, 1.0)}
"""Activations that are limits."""


class UnknownError(ValueError):
    """An op that the graph cannot say; the text is why."""


class Reading:
    """A file on its way into a graph.

    Attributes:
        file: what is read.
        builder: the ops so far.
        weights: layer -> (weight, bias), constant -> (value,), as `Model.weights`.
        params: tensor of the graph -> what its codes mean.
        codes: layer -> the codes that its weights are in the file.
        halves: layers whose weights are float16 in the file.
        turned_back: layer with codes -> whether an op of the file makes real weights of them.
        float_ops: ops that the file computes with real numbers.
        at: tensor of the file -> its name in the graph, constants among them once they are read.
        skipped: tensor of the file -> what stands for it until the op that reads it takes it up.
        sources: known tensor -> the constant of the file that it is a copy of.
        readers: tensor of the file -> the ops that read it.
        names: of the file's tensors, each once.
    """

    def __init__(self, file: File) -> None:
        self.file = file
        self.builder = GraphBuilder()
        self.weights: dict[str, tuple[Array, ...]] = {}
        self.params: dict[str, QParams] = {}
        self.codes: dict[str, WeightCodes] = {}
        self.halves: set[str] = set()
        self.turned_back: dict[str, bool] = {}
        self.float_ops: set[str] = set()
        self.at: dict[int, str] = {}
        self.skipped: dict[int, Any] = {}
        self.sources: dict[int, int] = {}
        self.readers: dict[int, list[FileOp]] = defaultdict(list)
        for op in file.ops:
            for number in set(op.inputs) - {-1}:
                self.readers[number].append(op)
        self._made = {number for op in file.ops for number in op.outputs} | set(file.inputs)
        self._outputs = set(file.outputs)
        self._left_bytes = _DECODED_BYTES + _DECODED_SHARE * len(file.content)
        self._values: dict[int, Array] = {}
        self._held: dict[int, Array] = {}
        self._names: dict[str, int] = {}
        self.names = [
            self.unique(tensor.name or f"tensor_{tensor.number}") for tensor in file.tensors
        ]

    # What is known of the file's tensors.

    def tensor(self, number: int) -> FileTensor:
        """Return a tensor of the file."""
        return self.file.tensors[number]

    def only_reader(self, number: int) -> FileOp | None:
        """Return the op that alone reads a tensor, once; None where there is no such one."""
        readers = self.readers[number]
        alone = len(readers) == 1 and number not in self._outputs
        return readers[0] if alone and readers[0].inputs.count(number) == 1 else None

    def value(self, number: int) -> Array | None:
        """Return the value of a tensor that is known: real numbers, or whole ones."""
        if number not in self._values and self._is_constant(number):
            tensor = self.tensor(number)
            self._values[number] = constants.real(tensor, self.held(number))
        return self._values.get(number)

    def held(self, number: int) -> Array:
        """Return what a constant of the file holds: codes where it is quantised."""
        if number not in self._held:
            tensor = self.tensor(number)
            if not constants.is_readable(tensor):
                raise UnknownError(f"reads a constant of type {tensor.dtype}")
            self.spend_bytes(tensor.name, constants.decoded_bytes(tensor))
            self._held[number] = constants.codes(self.file.reader, tensor)
        return self._held[number]

    def needed(self, op: FileOp, place: int, what: str) -> Array:
        """Return the value of an input that must be known. Raises UnknownError."""
        number = op.input(place)
        value = None if number is None else self.value(number)
        if value is None:
            raise UnknownError(f"has no constant {what}, which is computed while the file runs")
        return value

    def ints(self, op: FileOp, place: int, what: str) -> tuple[int, ...]:
        """Return an input that must be known whole numbers, one or a list. Raises UnknownError."""
        value = self.needed(op, place, what)
        if value.dtype.kind not in "iub" or value.size > 1 << 16:
            raise UnknownError(f"has a {what} that is no list of whole numbers")
        return tuple(int(n) for n in value.reshape(-1))

    def all_known(self, op: FileOp) -> list[Array] | None:
        """Return the values of all that an op reads; None where one is not known."""
        found = [None if number < 0 else self.value(number) for number in op.inputs]
        known = [value for value in found if value is not None]
        return known if len(known) == len(found) else None

    def know(self, number: int, value: Array, source: int | None = None) -> None:
        """Say that a tensor has this value; `source` is the constant that it is a copy of."""
        self._values[number] = value
        if source is not None:
            self.sources[number] = self.sources.get(source, source)

    def shape(self, number: int) -> Shape:
        """Return a tensor's shape in the graph. Raises UnknownError if it is not made yet."""
        if number in self.at:
            return self.builder.shapes[self.at[number]]
        value = self.value(number)
        if value is None:
            raise UnknownError(f"reads {self.names[number]!r}, which nothing before it makes")
        return value.shape

    def input_of(self, op: FileOp, place: int = 0) -> int:
        """Return the tensor that an op reads at a place. Raises UnknownError where none is."""
        number = op.input(place)
        if number is None:
            raise UnknownError(f"reads {len(op.inputs)} tensors, and lacks number {place}")
        return number

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

    def spend_bytes(self, name: str, size_bytes: int) -> None:
        """Count memory that the value of a tensor takes.

        Raises:
            DamagedError: all of them take more than those of any real file.
        """
        self._left_bytes -= size_bytes
        if self._left_bytes < 0:
            raise DamagedError(
                f"tensor {name!r} is a constant of {size_bytes} bytes, more "
                f"than a file of {len(self.file.content)} bytes means"
            )

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
        if KINDS[kind].keeps_scale:
            self._check_kept(inputs[0], number)
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

    def scale(self, number: int) -> QParams | None:
        """Return what the codes of a tensor mean, as int8 or int16; None for plain numbers.

        Raises:
            UnknownError: codes that have several scales, or are of another type.
        """
        tensor = self.tensor(number)
        if not tensor.quantized or (tensor.scales.size > 1 and self._is_constant(number)):
            return None
        if tensor.scales.size > 1 or tensor.dtype == "int4":
            raise UnknownError(f"has {tensor.dtype} activations with {tensor.scales.size} scales")
        zero = int(tensor.zero_points[0]) if tensor.zero_points.size else 0
        if tensor.dtype == "uint8":
            zero -= _HALF_RANGE
        return QParams(
            float(tensor.scales[0]), zero, "int16" if tensor.dtype == "int16" else "int8"
        )

    def activation(self, op: FileOp) -> str:
        """Return the fused activation among an op's options. Raises UnknownError."""
        number = op.option("act")
        if number not in _FUSED:
            raise UnknownError(f"has the fused activation {number}")
        return _FUSED[number]

    def _check_kept(self, source: str, number: int) -> None:
        """Refuse codes that are moved as they are and mean something else where they arrive."""
        before, after = self.params.get(source), self.scale(number)
        if before is None or after is None or before == after:
            return
        near = abs(before.scale / after.scale - 1) <= _SAME_SCALE
        if not near or before.zero_point != after.zero_point:
            raise UnknownError("gives codes another scale than those it moves")

    def _is_constant(self, number: int) -> bool:
        tensor = self.tensor(number)
        return number not in self._made and (tensor.data is not None or not prod(tensor.shape))
