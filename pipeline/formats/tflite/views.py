"""Reshapes that a file does without: of several in a row the last one is enough."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.graph import Graph, Op
    from models.quantization import Quantization


def keeps_order(op: Op) -> bool:
    """Tell whether an op gives the values of its input in their order, in whatever shape."""
    if op.kind == "transpose":
        wide = [axis for axis in op.attributes.permutation if op.in_shapes[0][axis] > 1]
        return wide == sorted(wide)
    return op.kind == "reshape"


def find_views(graph: Graph, quantization: Quantization) -> dict[str, str]:
    """Return the ops that need no operator -> the tensor that their readers read instead.

    These change nothing, or only ops read them that lay the same values out anew.
    """
    readers: dict[str, list[Op]] = defaultdict(list)
    for op in graph.ops:
        for name in op.inputs:
            readers[name].append(op)
    scales = quantization.tensors
    views: dict[str, str] = {}
    for op in graph.ops:
        source = op.inputs[0]
        if not keeps_order(op) or source in op.constants or op.name in graph.outputs:
            continue
        plain = op.out_shape == op.in_shapes[0] or all(map(keeps_order, readers[op.name]))
        if plain and scales.get(op.name) == scales.get(source):
            views[op.name] = views.get(source, source)
    return views
