"""What a network is: ops with shapes, in execution order.

Cost counting, latency tables, writers, quantisers and coders all read this op list, so they
cannot disagree about it. In a lowered spec batch normalisation does not appear: a convolution
there is the folded one. What each kind of op is and means is said once, in `models.ops`. No torch.

Shapes are whole: they hold the batch dimension, which is 1, where a tensor has one: (1, height,
width, channels) for maps, (1, units) for vectors. Values are float32 unless a tensor says
otherwise. Every op has one output, named like the op. In
a lowered spec the input is named ``input``, and op names are the module paths in `models.build`,
which is how weights find their op; nothing else is read out of a name.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from device_agents.errors import ConfigError
from models.ops import DTYPES, FLOAT, KINDS, Attributes, Conv, Layer, OpKind, Shape

if TYPE_CHECKING:
    from collections.abc import Sequence

INPUT = "input"
"""The name of a lowered spec's input."""

SQUEEZE_EXCITE = "squeeze-excite"
"""The role of the ops of a squeeze-and-excite."""


class GraphError(ConfigError):
    """Ops that cannot be, or do not fit together; the sentence names the op."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor; `dtype` is one of `models.ops.DTYPES`."""

    name: str
    shape: Shape
    dtype: str = FLOAT

    def __post_init__(self) -> None:
        """Refuse unknown types."""
        if self.dtype not in DTYPES:
            known = ", ".join(DTYPES)
            raise GraphError(f"tensor {self.name!r} is {self.dtype!r}; known: {known}")


@dataclass(frozen=True, slots=True)
class Op:
    """One operation.

    Attributes:
        kind: one of `models.ops.KINDS`.
        name: unique; also the name of its output tensor.
        inputs: names of the tensors read.
        in_shapes: their shapes.
        in_dtypes: their types; float32 throughout if left out.
        attributes: of the class that the kind's row names; None for a kind without any.
        act: fused activation, one of those in the kind's row; for kind `act` the function itself.
        constants: which of `inputs` the model holds a value of, as it does of weights.
        role: what the op is a part of, where someone counts that apart (`SQUEEZE_EXCITE`).
        block: the part of the network that it belongs to, for reports; empty if none is known.
        out_shape: shape of the output, by the kind's rule.
        out_dtype: its type, by the kind's rule.

    Raises:
        GraphError: on construction, if there is no such op.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    in_shapes: tuple[Shape, ...]
    attributes: Any = None
    act: str = "none"
    constants: tuple[str, ...] = ()
    role: str = ""
    block: str = ""
    in_dtypes: tuple[str, ...] = ()
    out_shape: Shape = field(init=False)
    out_dtype: str = field(init=False)

    def __post_init__(self) -> None:
        """Find the output's shape; refuse what cannot be."""
        if self.kind not in KINDS:
            raise GraphError(f"op {self.name!r} is a {self.kind!r}; known: {', '.join(KINDS)}")
        rules = KINDS[self.kind]
        if self.attributes is None and rules.attributes is Attributes:
            object.__setattr__(self, "attributes", Attributes())
        if type(self.attributes) is not rules.attributes:
            self._refuse(f"has {self.attributes!r} where it needs a {rules.attributes.__name__}")
        if not self.in_dtypes:
            object.__setattr__(self, "in_dtypes", (FLOAT,) * len(self.inputs))
        count, given = rules.inputs, len(self.inputs)
        if given != (count or max(given, 1)) or not given == len(self.in_shapes) == len(
            self.in_dtypes
        ):
            self._refuse(f"reads {given} tensors; it needs {count or 'at least one'}")
        if self.act not in rules.activations:
            self._refuse(f"has activation {self.act!r}; known: {', '.join(rules.activations)}")
        if not set(self.constants) <= set(self.inputs):
            self._refuse(f"has constants {self.constants}, and reads {self.inputs}")
        try:
            shape = rules.shape(self.in_shapes, self.attributes)
            dtype = rules.dtype(self.in_dtypes, self.attributes)
        except ValueError as error:
            self._refuse(str(error))
        if min(shape, default=1) < 1:
            self._refuse(f"gives the shape {shape}, which holds nothing")
        object.__setattr__(self, "out_shape", shape)
        object.__setattr__(self, "out_dtype", dtype)

    def _refuse(self, why: str) -> None:
        raise GraphError(f"op {self.name!r} ({self.kind}) {why}")

    @property
    def rules(self) -> OpKind:
        """What holds for all ops of the kind."""
        return KINDS[self.kind]

    @property
    def has_weights(self) -> bool:
        """Whether the op owns a weight and a bias."""
        return self.rules.layer is not None

    @property
    def keeps_scale(self) -> bool:
        """Whether the output's values are among those of the first input, in its number format."""
        return self.rules.keeps_scale or self.rules.keeps_scale_of(self)

    @property
    def layer(self) -> Layer:
        """What a layer's weights are like. Raises GraphError for an op that has none."""
        if self.rules.layer is None:
            raise GraphError(f"op {self.name!r} ({self.kind}) has no weights")
        return self.rules.layer

    @property
    def pointwise(self) -> bool:
        """Whether it is a convolution with a 1x1 window."""
        return isinstance(self.attributes, Conv) and self.attributes.kernel == (1, 1)

    @property
    def weight_shape(self) -> Shape:
        """The shape of a layer's weight, in TFLite's layout. Raises GraphError without one."""
        return self.layer.shape(self)

    @property
    def key(self) -> str:
        """What its cost on a device depends on, as a string: the key of latency tables.

        It says nothing of a batch dimension of 1, so that it is what it was before shapes had one.
        """
        shapes = "+".join(
            ("c" if name in self.constants else "")
            + _text(shape)
            + ("" if dtype == FLOAT else dtype)
            for name, shape, dtype in zip(self.inputs, self.in_shapes, self.in_dtypes, strict=True)
        )
        return f"{self.kind}:{shapes}->{_text(self.out_shape)}:{self.attributes.key}:{self.act}"


@dataclass(frozen=True, slots=True)
class Graph:
    """Ops in execution order.

    Attributes:
        inputs: what is given, by name.
        ops: each reads inputs, constants and outputs of ops before it.
        outputs: names of the ops whose outputs are the network's.

    Raises:
        GraphError: on construction, if ops do not fit together.
    """

    inputs: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    outputs: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse ops that do not fit together."""
        made_of = {tensor.name: (tensor.shape, tensor.dtype) for tensor in self.inputs}
        constants: dict[str, tuple[Shape, str]] = {}
        for op in self.ops:
            read = zip(op.in_shapes, op.in_dtypes, strict=True)
            for name, wanted in zip(op.inputs, read, strict=True):
                held = name in op.constants
                known = constants.setdefault(name, wanted) if held else made_of.get(name)
                if known != wanted:
                    says = "no tensor of that name comes before it"
                    if known is not None:
                        says = _typed(*known)
                    raise GraphError(f"op {op.name!r} reads {name!r} as {_typed(*wanted)}: {says}")
            if op.name in made_of:
                raise GraphError(f"two tensors of the network are named {op.name!r}")
            made_of[op.name] = (op.out_shape, op.out_dtype)
        if twice := made_of.keys() & constants.keys():
            raise GraphError(f"two tensors of the network are named {min(twice)!r}")
        made = {op.name for op in self.ops}
        if not self.outputs or not made.issuperset(self.outputs):
            raise GraphError(f"the network's outputs {self.outputs} are not all made by its ops")

    @property
    def output(self) -> Op:
        """The op whose output is the network's only one. Raises GraphError if it has several."""
        if len(self.outputs) != 1:
            raise GraphError(f"the network has the outputs {', '.join(self.outputs)}, not one")
        return self[self.outputs[0]]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the only input. Raises GraphError if that is no image."""
        if len(self.inputs) != 1 or len(self.inputs[0].shape) != 4:
            shown = ", ".join(f"{tensor.name} {tensor.shape}" for tensor in self.inputs)
            raise GraphError(f"the network reads {shown}, not one image")
        _, height, width, channels = self.inputs[0].shape
        return height, width, channels

    @property
    def constants(self) -> tuple[Tensor, ...]:
        """The constants that ops read, each once, in the order of first use."""
        found = {
            name: (shape, dtype)
            for op in self.ops
            for name, shape, dtype in zip(op.inputs, op.in_shapes, op.in_dtypes, strict=True)
            if name in op.constants
        }
        return tuple(Tensor(name, *typed) for name, typed in found.items())

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of all tensors that have values: inputs, constants, outputs of ops."""
        given = (*self.inputs, *self.constants)
        return (*(tensor.name for tensor in given), *(op.name for op in self.ops))

    def shape(self, tensor: str) -> Shape:
        """Return the shape of a tensor by name; KeyError if there is none."""
        for given in (*self.inputs, *self.constants):
            if given.name == tensor:
                return given.shape
        return self[tensor].out_shape

    def dtype(self, tensor: str) -> str:
        """Return the type of a tensor by name; KeyError if there is none."""
        for given in (*self.inputs, *self.constants):
            if given.name == tensor:
                return given.dtype
        return self[tensor].out_dtype

    @property
    def keeps_batch(self) -> bool:
        """Whether N samples in place of the batch dimension of 1 go through all ops at once."""
        given = all(tensor.shape[:1] == (1,) for tensor in self.inputs)
        return given and all(
            op.out_shape[:1] == (1,) and op.rules.keeps_batch(op) for op in self.ops
        )

    def __getitem__(self, name: str) -> Op:
        """Return the op of that name; KeyError if there is none."""
        for op in self.ops:
            if op.name == name:
                return op
        raise KeyError(name)

    def readers(self) -> Counter[str]:
        """Return how many read each tensor: ops, and whoever takes the network's outputs."""
        return Counter(self.outputs) + Counter(name for op in self.ops for name in op.inputs)

    def digest(self) -> str:
        """Return a 16-digit hash of all that latency can depend on: op keys and wiring."""
        wiring = [f"{op.key}@{','.join(op.inputs)}>{op.name}" for op in self.ops]
        # What every network that a spec lowers to has in common is left out.
        if tuple(tensor.name for tensor in self.inputs) != (INPUT,):
            given = (f"{t.name}:{_text(t.shape)}" for t in self.inputs)
            wiring.append("inputs " + ",".join(given))
        if self.outputs != (self.ops[-1].name,):
            wiring.append(f"outputs {','.join(self.outputs)}")
        return hashlib.sha256("\n".join(wiring).encode()).hexdigest()[:16]


@dataclass(slots=True)
class GraphBuilder:
    """Appends ops and keeps the shapes of what they can read."""

    inputs: list[Tensor] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    constants: set[str] = field(default_factory=set)

    def input(self, name: str, shape: Shape, dtype: str = FLOAT) -> str:
        """Add an input of the network; return its name."""
        self.inputs.append(Tensor(name, shape, dtype))
        return self._add(name, shape, dtype)

    def constant(self, name: str, shape: Shape, dtype: str = FLOAT) -> str:
        """Add a tensor that the model will hold the value of; return its name."""
        self.constants.add(name)
        return self._add(name, shape, dtype)

    def op(
        self,
        kind: str,
        name: str,
        inputs: Sequence[str],
        attributes: Any = None,
        *,
        act: str = "none",
        role: str = "",
        block: str = "",
    ) -> str:
        """Append an op (see `Op`); return its name.

        Raises:
            GraphError: there is no such op, or it reads what is not there.
        """
        if missing := [tensor for tensor in inputs if tensor not in self.shapes]:
            raise GraphError(f"op {name!r} reads {missing[0]!r}, which is not there")
        constants = tuple(tensor for tensor in inputs if tensor in self.constants)
        shapes = tuple(self.shapes[tensor] for tensor in inputs)
        dtypes = tuple(self.dtypes[tensor] for tensor in inputs)
        op = Op(kind, name, tuple(inputs), shapes, attributes, act, constants, role, block, dtypes)
        self.ops.append(op)
        return self._add(name, op.out_shape, op.out_dtype)

    def _add(self, name: str, shape: Shape, dtype: str) -> str:
        self.shapes[name], self.dtypes[name] = shape, dtype
        return name

    def graph(self, *outputs: str) -> Graph:
        """Return the graph with these outputs, the last op's if none are named."""
        return Graph(tuple(self.inputs), tuple(self.ops), outputs or (self.ops[-1].name,))


def _typed(shape: Shape, dtype: str) -> str:
    """Return a shape as sentences show it, with its type where that is not float32."""
    return str(shape) if dtype == FLOAT else f"{dtype} {shape}"


def _text(shape: Shape) -> str:
    """Return a shape without its batch dimension of 1, or whole in brackets if it has none."""
    if len(shape) > 1 and shape[0] == 1:
        return "x".join(map(str, shape[1:]))
    return f"[{'x'.join(map(str, shape))}]"
