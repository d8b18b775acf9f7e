"""Who reads a tensor as it was made, and who reads what its codes mean.

In a file these are two tensors, one on each side of what quantises. In the graph they are one, of
which ops with codes read the codes, and real ops what an op like them made as it was made
(`models.quantization`). So a reader puts a copy wherever its file quantises: those that are not
needed are taken away again (`without_copies`) before the model is arranged; when it is, real ops
that are to read the meaning of codes are given it (`with_codes_read`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from models.graph import Graph, Op
from models.ops import Clip

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from models.codes import QParams
    from models.model import Model
    from models.ops import Shape
    from models.quantization import Quantization

_SAME_VALUES = ("reshape", "transpose")


def without_copies(
    graph: Graph, copies: Iterable[str], params: Mapping[str, QParams]
) -> tuple[Graph, dict[str, QParams], dict[str, str]]:
    """Take away the copies of tensors of which everything reads the same codes.

    A tensor that is read as it was made as well, or quantised in two ways, keeps its copies and
    has no codes of its own: what makes it is real.

    Args:
        graph: as it was read.
        copies: ops that change nothing, and whose parameters are those that the file quantises by.
        params: tensor -> what its codes mean.

    Returns:
        The graph, the parameters, and copy that is gone -> the tensor that it was one of.
    """
    known = _Known(graph, copies, params)
    made, held, gone = known.made, known.held, dict[str, str]()
    for copy in (op for op in graph.ops if op.name in known.copies):
        source, item = copy.inputs[0], held[copy.name]
        if copy.name in gone or not known.can_hold(source, item):
            continue
        gone.update((op.name, source) for op in known.readers[source] if op.name in known.copies)
        while source not in held and known.only_codes(source, item):
            held[source] = item
            if source not in made or made[source].kind not in _SAME_VALUES:
                break
            source = made[source].inputs[0]
    return (
        _without(graph, gone),
        {name: item for name, item in held.items() if name not in gone},
        gone,
    )


class _Known:
    """What a graph makes, and who reads it."""

    def __init__(self, graph: Graph, copies: Iterable[str], params: Mapping[str, QParams]) -> None:
        self.graph = graph
        self.made = {op.name: op for op in graph.ops}
        self.readers: dict[str, list[Op]] = {name: [] for name in graph.tensors}
        for op in graph.ops:
            for name in op.inputs:
                self.readers[name].append(op)
        self.held = {name: item for name, item in params.items() if name in self.readers}
        self.copies = {name for name in copies if name in self.made}
        self.inputs = {tensor.name for tensor in graph.inputs}

    def only_codes(self, name: str, item: QParams) -> bool:
        """Tell whether all that reads a tensor, in whatever shape, reads it quantised so."""
        return name not in self.graph.outputs and all(
            (
                self.held[op.name] == item
                and not (name in self.inputs and op.name in self.graph.outputs)
                if op.name in self.copies
                else op.kind in _SAME_VALUES and self.only_codes(op.name, item)
            )
            for op in self.readers[name]
        )

    def can_hold(self, name: str, item: QParams) -> bool:
        """Tell whether a tensor can have these codes itself, and all that it is a view of.

        A view is settled away with what is known of it: where its origin is read otherwise, the
        copy is all that tells of the codes.
        """
        while self.held.get(name, item) == item and self.only_codes(name, item):
            if name not in self.made or self.made[name].kind not in _SAME_VALUES:
                return True
            name = self.made[name].inputs[0]
        return False


def _without(graph: Graph, gone: Mapping[str, str]) -> Graph:
    ops = tuple(
        replace(op, inputs=tuple(gone.get(name, name) for name in op.inputs))
        for op in graph.ops
        if op.name not in gone
    )
    return Graph(graph.inputs, ops, tuple(gone.get(name, name) for name in graph.outputs))


def with_codes_read(model: Model) -> Model:
    """Return a model whose real ops and outputs read what codes mean, wherever there are codes.

    Of a tensor that is made as real numbers and has parameters they are given a copy that is
    codes. Only for a model in which nothing is to read such a tensor as it was made.
    """
    held, graph = model.quantization, model.graph
    if held is None or not held.number_format.is_static:
        return model
    exact = set(held.made_as_codes(graph)) | {tensor.name for tensor in graph.constants}
    read = {name for op in graph.ops if not held.is_integer(op) for name in op.inputs}
    wanted = (read | {*graph.outputs}) & held.tensors.keys()
    taken, copies = set(graph.tensors), dict[str, str]()
    ops: list[Op] = []

    def copied(name: str, shape: Shape) -> None:
        copies[name] = _free_name(f"{name}.coded", taken)
        ops.append(Op("clip", copies[name], (name,), (shape,), Clip()))

    for tensor in graph.inputs:
        if tensor.name in wanted - exact:
            copied(tensor.name, tensor.shape)
    for op in graph.ops:
        if held.is_integer(op):
            ops.append(op)
            continue
        ops.append(replace(op, inputs=tuple(copies.get(name, name) for name in op.inputs)))
        if _keeps_codes(op, held) and op.inputs[0] in exact | copies.keys():
            exact.add(op.name)
        if op.name in wanted - exact:
            copied(op.name, op.out_shape)
    tensors = {copy: held.tensors[name] for name, copy in copies.items()}
    outputs = tuple(copies.get(name, name) for name in graph.outputs)
    renamed = dict(zip(graph.outputs, outputs, strict=True))
    return replace(
        model,
        graph=Graph(graph.inputs, tuple(ops), outputs),
        quantization=replace(
            held,
            tensors={**held.tensors, **tensors},
            ends={renamed.get(name, name): dtype for name, dtype in held.ends.items()},
        ),
    )


def _keeps_codes(op: Op, held: Quantization) -> bool:
    """Tell whether the values of an op are those of what it reads, on the same scale."""
    same = op.kind in _SAME_VALUES
    return same and held.tensors.get(op.name) == held.tensors.get(op.inputs[0])


def _free_name(name: str, taken: set[str]) -> str:
    """Return a name that no tensor has, and keep it."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name
