"""Maps that are flattened for dense layers, and maps that dense layers make.

Between the reshape and the layer no position means anything of itself: instead of transposing the
map, the layer has its weights in the order in which the map is stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from models.layout.labels import Label, order, reshape_groups

if TYPE_CHECKING:
    from models.graph import Graph, Op
    from models.ops import Shape

Order = npt.NDArray[np.int64]
"""Of each stored value of a vector, its place in the source's."""

_OF_ONE = ("act", "unary", "cast", "clip", "leakyrelu", "elu")
_OF_CONSTANTS = (
    *("add", "sub", "mul", "div", "maximum", "minimum", "pow"),
    *("prelu", "batchnorm"),
)


def flattened_for_layers(graph: Graph) -> frozenset[str]:
    """Return the reshapes of maps into vectors that only dense layers read in the end."""
    readers = _readers(graph)
    outputs = set(graph.outputs)

    def only_for_layers(name: str) -> bool:
        return name not in outputs and all(
            op.kind == "dense" or (_passes(op, name) and only_for_layers(op.name))
            for op in readers.get(name, ())
        )

    return frozenset(
        op.name
        for op in graph.ops
        if op.kind == "reshape"
        and _becomes_vector(op.in_shapes[0], op.out_shape)
        and only_for_layers(op.name)
    )


def spread_by_layers(graph: Graph) -> frozenset[str]:
    """Return the reshapes of what dense layers give into maps."""
    return frozenset(
        op.name
        for op in graph.ops
        if op.kind == "reshape"
        and _becomes_vector(op.out_shape, op.in_shapes[0])
        and layer_chain(graph, op)
    )


def layer_chain(graph: Graph, reshape: Op) -> list[Op]:
    """Return the ops from a dense layer to what a reshape reads; empty if that is another's too."""
    made, readers = {op.name: op for op in graph.ops}, _readers(graph)
    chain: list[Op] = []
    name = reshape.inputs[0]
    while True:
        op = made.get(name)
        if op is None or len(readers[name]) != 1 or name in graph.outputs:
            return []
        chain.append(op)
        if op.kind == "dense":
            return chain[::-1] if len(op.out_shape) == 2 else []
        if op.kind == "concat" or not _passes(op, op.inputs[0]):
            return []
        name = op.inputs[0]


def stored_order(label: Label, shape: Shape) -> Order | None:
    """Return the order of a tensor's values as a label stores them; None if it is the source's."""
    axes = order(label)
    if axes == tuple(sorted(axes)):
        return None
    sizes = [shape[axis] for axis in sorted(axes)]
    ranks = [sorted(axes).index(axis) for axis in axes]
    return np.arange(np.prod(sizes)).reshape(sizes).transpose(ranks).ravel()


def joined(orders: list[Order | None], sizes: list[int]) -> Order | None:
    """Return the order of vectors that are put together."""
    if all(order_ is None for order_ in orders):
        return None
    starts = np.cumsum([0, *sizes[:-1]])
    parts = [
        start + (np.arange(size) if part is None else part)
        for part, size, start in zip(orders, sizes, starts, strict=True)
    ]
    return np.concatenate(parts)


def reordered(value: npt.NDArray[Any], by: Order | None) -> npt.NDArray[Any]:
    """Return a constant of as many values as a vector has, or one for all, in an order."""
    return value if by is None or value.shape[-1] == 1 else value[..., by]


def _becomes_vector(before: Shape, after: Shape) -> bool:
    if len(after) != 2 or after[0] != 1:
        return False
    groups = reshape_groups(before, after)
    return len(groups) == 1 and len(groups[0][0]) > 1


def _passes(op: Op, name: str) -> bool:
    """Tell whether an op treats every value of the vector `name` by itself."""
    if op.kind == "concat":
        return bool(op.attributes.axis == 1)
    others = [other for other in op.inputs if other != name]
    if op.kind in _OF_CONSTANTS:
        first = op.kind not in ("prelu", "batchnorm") or op.inputs[0] == name
        return first and len(others) == len(op.inputs) - 1 and set(others) <= set(op.constants)
    return op.kind in _OF_ONE


def _readers(graph: Graph) -> dict[str, list[Op]]:
    found: dict[str, list[Op]] = {}
    for op in graph.ops:
        for name in op.inputs:
            found.setdefault(name, []).append(op)
    return found
