"""What a file does without: reshapes that another follows, channels put in order by themselves."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from models.graph import Graph, Op
    from models.quantization import Quantization


def keeps_order(op: Op) -> bool:
    """Tell whether an op gives the values of its input in their order, in whatever shape."""
    if op.kind == "transpose":
        wide = [axis for axis in op.attributes.permutation if op.in_shapes[0][axis] > 1]
        return wide == sorted(wide)
    return op.kind == "reshape"


def _lays_out(op: Op) -> bool:
    return keeps_order(op) or (op.kind == "dense" and len(op.in_shapes[0]) == 2)


def find_channel_orders(graph: Graph) -> dict[str, npt.NDArray[np.int64]]:
    """Return convolutions -> the order in which they are to give their channels.

    That is the one in which DEPTH_TO_SPACE takes blocks apart, where such an op with channels
    first is all that reads them.
    """
    turned = {op.inputs[0]: op for op in graph.ops if takes_channels_first(op)}
    if not turned:
        return {}
    readers = graph.readers()
    return {
        op.name: block_order(turned[op.name])
        for op in graph.ops
        if op.kind == "conv" and op.name in turned and readers[op.name] == 1
        if op.attributes.groups == 1
    }


def takes_channels_first(op: Op) -> bool:
    """Tell whether an op makes positions of channels in the order that TFLite has not."""
    return op.kind == "depthtospace" and op.attributes.order == "CRD"


def block_order(op: Op) -> npt.NDArray[np.int64]:
    """Return the channels of the input of such an op in the order that TFLite has."""
    channels, block = op.in_shapes[0][3], op.attributes.block
    return np.arange(channels).reshape(-1, block * block).T.reshape(-1)


def find_views(graph: Graph, quantization: Quantization) -> dict[str, str]:
    """Return the ops that need no operator -> the tensor that their readers read instead.

    These change nothing, or only ops read them that lay the same values out anew, as a dense layer
    of vectors does.
    """
    readers: dict[str, list[Op]] = defaultdict(list)
    for op in graph.ops:
        for name in op.inputs:
            readers[name].append(op)
    shapes = {tensor.name: tensor.shape for tensor in graph.inputs}
    shapes |= {op.name: op.out_shape for op in graph.ops}
    scales = quantization.tensors
    views: dict[str, str] = {}
    for op in graph.ops:
        source = op.inputs[0]
        if not keeps_order(op) or source in op.constants or op.name in graph.outputs:
            continue
        root = views.get(source, source)
        plain = op.out_shape == shapes[root] or all(map(_lays_out, readers[op.name]))
        if plain and scales.get(op.name) == scales.get(source):
            views[op.name] = root
    return views
