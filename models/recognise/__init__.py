"""Functions that a source writes out in arithmetic, as the one op that they are.

Exporters write a GELU as five ops and a layer normalisation as nine; as one op each a file format
may have a kernel for it, and quantisation one scale in place of many.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from models.graph import Graph, Op
from models.recognise.activations import activation
from models.recognise.arithmetic import Arithmetic
from models.recognise.norms import length, scaled_norm, standard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from models.model import Model

_LOOKS: dict[str, tuple[Callable[[Arithmetic, Op], Sequence[Op] | None], ...]] = {
    "mul": (activation, standard, scaled_norm),
    "div": (activation, standard, length),
    "add": (scaled_norm,),
}
"""What an op may be the end of, by its kind."""


def recognise(model: Model) -> Model:
    """Return a model with ops in place of the arithmetic that means the same.

    A model with codes stays as it is: its scales are of the arithmetic.
    """
    if model.quantization is not None:
        return model
    at, changed = Arithmetic(model), False
    ops: list[Op] = []
    for op in model.graph.ops:
        found = _read(at, op)
        changed = changed or found != (op,)
        ops.extend(found)
    if not changed:
        return model
    outputs = model.graph.outputs
    wanted, kept = set(outputs), []
    for op in reversed(ops):
        if op.name in wanted:
            kept.append(op)
            wanted.update(op.inputs)
    graph = Graph(model.graph.inputs, tuple(kept[::-1]), outputs)
    weights = {name: value for name, value in at.weights.items() if name in wanted}
    return replace(model, graph=graph, weights=weights)


def _read(at: Arithmetic, op: Op) -> Sequence[Op]:
    """Return the ops that stand for one: itself, or what it is the end of."""
    for look in _LOOKS.get(op.kind, ()):
        if (found := look(at, op)) is not None:
            at.made.update((new.name, new) for new in found)
            return found
    return (op,)
