"""An op as a model of its own, so that it can be timed.

A model's input is one image of three dimensions. An op that reads something else (a vector, a map
and its gate) stands behind a mean that makes it, and what the mean takes alone is subtracted. So
does a hard-sigmoid behind a convolution, which the formats fold half of it into.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from models.graph import INPUT, Graph, Op

_OP, _FEEDER = "op", "feeder"
"""One name for all, so that equal ops give equal graphs and are measured once."""

EMPTY = Graph((1, 1, 8), (Op("conv", _OP, (INPUT,), ((1, 1, 8),), (1, 1, 8)),))
"""Next to no work: what is left is what an inference costs whatever the network."""


@dataclass(frozen=True, slots=True)
class Isolated:
    """A graph with the op in it, and the graph without: the op takes the difference.

    `without` is `EMPTY` where the op is all there is.
    """

    graph: Graph
    without: Graph


def isolated(op: Op) -> Isolated:
    """Return the op as a model. An op of two tensors of one shape reads the one input twice."""
    shapes = op.in_shapes
    if len(shapes[0]) == 1:  # a vector: a dense layer, or its activation
        feeder = Op("mean", _FEEDER, (INPUT,), ((1, 1, *shapes[0]),), shapes[0], keepdims=False)
        inputs: tuple[str, ...] = (_FEEDER,)
    elif len(set(shapes)) > 1:  # a map and its gate
        feeder = Op("mean", _FEEDER, (INPUT,), shapes[:1], shapes[1])
        inputs = (INPUT, _FEEDER)
    elif op.act == "hardsigmoid":
        feeder, inputs = Op("conv", _FEEDER, (INPUT,), shapes, shapes[0]), (_FEEDER,)
    else:
        return Isolated(_graph(replace(op, name=_OP, inputs=(INPUT,) * len(shapes))), EMPTY)
    behind = _graph(feeder, replace(op, name=_OP, inputs=inputs))
    return Isolated(behind, isolated(feeder).graph)


def _graph(*ops: Op) -> Graph:
    height, width, channels = ops[0].in_shapes[0]
    return Graph((height, width, channels), ops)
