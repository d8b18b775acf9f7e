"""An exported program of torch as our graph: op by op, by the forms of the modules beside this.

What depends on no input is computed here, by torch itself. Ops are named by the path of the
module that they are the work of; parameters keep their paths.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.export.graph_signature import InputKind, OutputKind

from models.graph import GraphError
from models.model import Input, Model, Output
from models.ops import Reshape
from pipeline.formats.api import UnknownOp, Unsupported
from pipeline.formats.torch import (
    activations,
    elementwise,
    functions,
    layers,
    lookups,
    reducing,
    resampling,
    shaping,
)
from pipeline.formats.torch.calls import (
    Call,
    OpOverload,
    bind,
    flatten,
    kind_of,
    masks,
    name_ops,
    name_outputs,
)
from pipeline.formats.torch.writer import Unsaid, Value, Writer, dtype_of, held

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch.export import ExportedProgram
    from torch.fx import Node


FORMS: Mapping[str, Callable[[Writer, Call], Any]] = {
    **layers.FORMS,
    **elementwise.FORMS,
    **functions.FORMS,
    **activations.FORMS,
    **shaping.FORMS,
    **reducing.FORMS,
    **resampling.FORMS,
    **lookups.FORMS,
}
"""Torch's name of an op, without its library and overload -> what writes it."""

_FILLED = ("full_like", "zeros_like", "ones_like", "new_full", "new_zeros", "new_ones")
"""Ops whose values do not depend on their input."""

_EMPTY = ("empty", "empty_like", "empty_strided", "empty_permuted", "new_empty")
"""Ops whose values are whatever was in memory: 0 here."""


def translate(program: ExportedProgram, name: str) -> Model | Unsupported:
    """Return the network of a program that `program.decompose` prepared.

    Args:
        program: of torch.export, on the CPU.
        name: of what it was made of, for the sentence.

    Raises:
        GraphError: it has no outputs that are computed.
    """
    return _Translation(program).result(name)


class _Translation:
    """The walk over one program."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.writer = Writer()
        self.values: dict[Node, Any] = {}
        self.unknown: list[UnknownOp] = []
        self.places = name_ops(program)
        self.open: set[Node] = set()
        """Ops that were named since values decide how much they give, and all after them."""

    def result(self, name: str) -> Model | Unsupported:
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._given(node)
            elif node.op == "call_function":
                self.values[node] = self._called(node)
        self.unknown += [
            UnknownOp("copy_", str(item.target), "it keeps a state between calls")
            for item in self.program.graph_signature.output_specs
            if item.kind is OutputKind.BUFFER_MUTATION
        ]
        if self.unknown:
            return Unsupported(name, tuple(self.unknown))
        return self._model()

    def _model(self) -> Model:
        outputs: list[Value] = []
        (returned,) = (node for node in self.program.graph.nodes if node.op == "output")
        specs = self.program.graph_signature.output_specs
        given_back = [
            given
            for given, item in zip(returned.args[0], specs, strict=True)
            if item.kind is OutputKind.USER_OUTPUT
        ]
        kept = []
        for given, output in zip(given_back, name_outputs(self.program), strict=True):
            value = self.values.get(given) if isinstance(given, torch.fx.Node) else None
            if not isinstance(value, Value):
                continue  # None, or a number: nothing is computed for it
            made = {op.name for op in self.writer.builder.ops}
            if value.name not in made or any(value.name == other.name for other in outputs):
                self.writer.begin(output)
                value = self.writer.op("reshape", [value], Reshape(value.shape))
                self.writer.end()
            outputs.append(value)
            kept.append(Output(output))
        if not outputs:
            raise GraphError("the module gives no tensor")
        graph = self.writer.graph(outputs)
        inputs = tuple(Input(tensor.name, layout="") for tensor in graph.inputs)
        return Model(graph, self.writer.weights, None, inputs, tuple(kept))

    def _given(self, node: Node) -> Value:
        """Return what a placeholder stands for: a parameter, a buffer or an input."""
        (item,) = (
            item
            for item in self.program.graph_signature.input_specs
            if getattr(item.arg, "name", None) == node.name
        )
        if item.kind is not InputKind.USER_INPUT:
            target = str(item.target)
            tensor = self.program.state_dict.get(target, self.program.constants.get(target))
            if isinstance(tensor, torch.Tensor):
                return held(tensor, target)
            raise GraphError(f"{target!r} of the module is a {type(tensor).__name__}, not a tensor")
        meta = node.meta["val"]
        if not isinstance(meta, torch.Tensor):
            return held(torch.tensor(meta))
        dtype = dtype_of(meta.dtype)
        if dtype is None:
            said = str(meta.dtype).removeprefix("torch.")
            raise GraphError(f"its input {node.name!r} is {said}, which the graph does not have")
        return self.writer.input(node.name, tuple(map(int, meta.shape)), dtype)

    def _called(self, node: Node) -> Any:
        if node.target is operator.getitem:
            source, place = (cast("Any", arg) for arg in node.args)
            several = self.values.get(source)
            return several[place] if isinstance(several, tuple) else several
        kind = kind_of(node)
        if kind.startswith(("_assert", "sym_", "_functional_assert")):
            return None
        if not isinstance(node.target, OpOverload) and isinstance(
            node.meta.get("val"), torch.SymInt | torch.SymBool | torch.SymFloat
        ):
            return None  # a size that depends on values, which the op that gives it is named for
        try:
            return self._written(node, kind)
        except (Unsaid, GraphError) as error:
            if self.open.isdisjoint(node.all_input_nodes):
                place = self.places[node] or node.name
                self.unknown.append(UnknownOp(kind, place, str(error)))
            if _is_open(node):
                self.open.add(node)
            return self._placeholder(node)

    def _written(self, node: Node, kind: str) -> Any:
        if not isinstance(node.target, OpOverload):
            raise Unsaid("control flow is not known")
        args = bind(node, self.values)
        read = [value for value in flatten(args) if isinstance(value, Value)]
        meta = node.meta.get("val")
        first = meta[0] if isinstance(meta, tuple | list) else meta
        if not isinstance(first, torch.Tensor):
            raise Unsaid("it gives no tensor")
        known = all(value.constant is not None for value in read)
        if known or kind in _FILLED or kind in _EMPTY:
            return self._computed(node, args, read)
        shape, dtype = _sizes(first), dtype_of(first.dtype)
        if dtype is None:
            said = str(first.dtype).removeprefix("torch.")
            raise Unsaid(f"it computes in {said}; the graph has float32, int32, int64 and bool")
        if kind not in FORMS:
            raise Unsaid("")
        parts = [user for user in node.users if user.target is operator.getitem and user.users]
        used = frozenset(place for user in parts if isinstance(place := user.args[1], int))
        self.writer.begin(self.places[node])
        call = Call(node.target, args, shape, dtype, used, masks(node))
        made = FORMS[kind](self.writer, call)
        self.writer.end()
        result = made[0] if isinstance(made, tuple) else made
        if (result.shape, result.dtype) != (shape, dtype):
            raise Unsaid(
                f"it was read as {result.dtype} {result.shape}, and torch says {shape}: a fault "
                "of edgewright"
            )
        return made

    def _computed(self, node: Node, args: dict[str, Any], read: Sequence[Value]) -> Any:
        """Return what an op gives that depends on no input."""
        target: Any = node.target
        meta, empty = node.meta["val"], kind_of(node) in _EMPTY
        # Of another tensor's shape only; what is empty is filled later on.
        if empty or any(value.constant is None for value in read):
            fill = args.get("fill_value", 1.0 if "ones" in kind_of(node) else 0.0)
            return held(torch.full(_sizes(meta), 0 if empty else fill, dtype=meta.dtype))
        plain = torch.fx.map_arg(
            (node.args, dict(node.kwargs)), lambda given: _exact(self.values[given], given)
        )

        # Attention draws numbers only where it is told to.
        if torch.Tag.nondeterministic_seeded in target.tags and args.get("dropout_p") != 0:
            raise Unsaid("its values are random")
        with torch.no_grad():
            result = target(*plain[0], **plain[1])
        if isinstance(result, tuple | list):
            return tuple(held(each) for each in result)
        # What only changes the shape of a parameter is that parameter.
        source = read[0].source if len(read) == 1 and result.numel() == _count(read[0]) else ""
        return held(result, source)

    def _placeholder(self, node: Node) -> Any:
        """Return stand-ins for what an unknown op gives: the ops after it are looked at, too."""
        meta: Any = node.meta.get("val")
        several = isinstance(meta, tuple | list)
        found: list[Value | None] = []
        for place, each in enumerate(meta if several else [meta]):
            if isinstance(each, torch.Tensor):
                dtype = dtype_of(each.dtype) or "float32"
                shape = tuple(size if isinstance(size, int) else 1 for size in each.shape)
                found.append(self.writer.input(f"{node.name}:{place}", shape, dtype))
            else:
                found.append(None)
        return tuple(found) if several else found[0]


def _sizes(meta: torch.Tensor) -> tuple[int, ...]:
    """Return the shape of a result. Raises Unsaid where values decide it."""
    if not all(isinstance(size, int) for size in meta.shape):
        raise Unsaid("how much it gives depends on values")
    return tuple(meta.shape)


def _is_open(node: Node) -> bool:
    """Tell whether values decide how much an op gives, or a number that it gives."""
    meta = node.meta.get("val")
    several = meta if isinstance(meta, tuple | list) else [meta]
    return any(
        not all(isinstance(size, int) for size in each.shape)
        if isinstance(each, torch.Tensor)
        else isinstance(each, torch.SymInt | torch.SymFloat | torch.SymBool)
        for each in several
    )


def _exact(value: Any, node: Node) -> Any:
    """Return a constant in the type that torch says it has, for torch to compute with."""
    if isinstance(value, tuple):
        return tuple(_exact(each, node) for each in value)
    if not isinstance(value, Value) or value.constant is None:
        raise Unsaid("it reads what is no tensor")
    meta = node.meta.get("val")
    return value.constant.to(meta.dtype) if isinstance(meta, torch.Tensor) else value.constant


def _count(value: Value) -> int:
    return value.constant.numel() if value.constant is not None else 0
