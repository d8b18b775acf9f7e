"""An op as a model of its own, so that it can be timed.

A model's input is one image of three dimensions. An op that reads something else (a vector, a map
and its gate) stands behind a mean that makes it, and what the mean takes alone is subtracted. So
does a hard-sigmoid behind a convolution, which the formats fold half of it into.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from models.graph import INPUT, Graph, Op, Tensor
from models.ops import FLOAT, Conv, Mean

if TYPE_CHECKING:
    from collections.abc import Iterable

    from models.ops import Shape

_OP, _FEEDER = "op", "feeder"
"""One name for all, so that equal ops give equal graphs and are measured once."""


@dataclass(frozen=True, slots=True)
class Isolated:
    """A graph with the op in it, and the graph without: the op takes the difference.

    `without` is `EMPTY` where the op is all there is.
    """

    graph: Graph
    without: Graph


def isolate(op: Op) -> Isolated:
    """Return the op as a model. An op of two tensors of one shape reads the one input twice.

    One of tensors of other shapes, or of other than real numbers, has an input for each.
    """
    names = [name for name in op.inputs if name not in op.constants]
    shapes = [op.in_shapes[op.inputs.index(name)] for name in names]
    dtypes = [op.in_dtypes[op.inputs.index(name)] for name in names]
    if set(dtypes) != {FLOAT}:
        return _alone(op, dict.fromkeys(map(Tensor, names, shapes, dtypes)))
    if len(shapes[0]) == 2 and len(set(shapes)) == 1:  # a vector: a dense layer, or its activation
        batch, units = shapes[0]
        feeder = _feeder("mean", (batch, 1, 1, units), Mean(keepdims=False))
        read = dict.fromkeys(names, _FEEDER)
    elif _is_gated(shapes):
        feeder = _feeder("mean", shapes[0], Mean())
        read = dict(zip(names, (INPUT, _FEEDER), strict=True))
    elif op.act == "hardsigmoid":
        feeder = _feeder("conv", shapes[0], Conv(out=shapes[0][-1]))
        read = dict.fromkeys(names, _FEEDER)
    elif len(set(shapes)) == 1:
        return Isolated(_graph(shapes[0], _reading(op, dict.fromkeys(names, INPUT))), EMPTY)
    else:
        return _alone(op, map(Tensor, names, shapes))
    behind = _graph(feeder.in_shapes[0], feeder, _reading(op, read))
    return Isolated(behind, isolate(feeder).graph)


def _alone(op: Op, inputs: Iterable[Tensor]) -> Isolated:
    return Isolated(Graph(tuple(inputs), (replace(op, name=_OP),), (_OP,)), EMPTY)


def _is_gated(shapes: list[Shape]) -> bool:
    """Whether the shapes are those of a map and of one value for each of its channels."""
    return len(set(shapes)) == 2 and shapes[1] == (1, 1, 1, shapes[0][-1])


def _feeder(kind: str, shape: Shape, attributes: Any) -> Op:
    return Op(kind, _FEEDER, (INPUT,), (shape,), attributes)


def _reading(op: Op, read: dict[str, str]) -> Op:
    """Return the op under the one name, with other tensors in place of those it reads."""
    inputs = tuple(read.get(name, name) for name in op.inputs)
    return replace(op, name=_OP, inputs=inputs)


def _graph(shape: Shape, *ops: Op) -> Graph:
    return Graph((Tensor(INPUT, shape),), ops, (ops[-1].name,))


EMPTY = _graph((1, 1, 1, 8), Op("conv", _OP, (INPUT,), ((1, 1, 1, 8),), Conv(out=8)))
"""Next to no work: what is left is what an inference costs whatever the network."""
