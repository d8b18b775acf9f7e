"""What kinds of op there are: one row each, and all that is asked of a kind is in its row.

A row says which attributes an op of the kind has, the shape and type of what it gives, the shape
and axes of its weights, what it computes (a numpy reference that every executor and every file is
held against), which activations it can be fused with, and what integer kernels fix about its
scales. Adding a kind is a row in one of the modules here and a few lines in each writer;
`models.execute` and `models.integer` fall back to the reference where they have no faster or
exact form of their own. No torch.

Shapes are whole, the batch dimension included, and channels are last: (1, height, width,
channels) for maps, (1, units) for vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.activations import ACTIVATIONS
from models.ops import activating, arithmetic, layers, normalising, reducing, shaping
from models.ops.activating import Elu, LeakyRelu, Softmax
from models.ops.api import DTYPES, FLOAT, Array, Attributes, Layer, OpKind, Shape, Shapes
from models.ops.arithmetic import Cast, Clip, Compare, Logical, Matmul, Unary
from models.ops.layers import Conv, Deconv, Dense, Depthwise
from models.ops.normalising import BatchNorm, L2Norm, LayerNorm
from models.ops.reducing import Arg, AvgPool, Mean, Reduce
from models.ops.resizing import Resize
from models.ops.shaping import (
    Concat,
    DepthToSpace,
    Gather,
    Pad,
    Reshape,
    Slice,
    SpaceToDepth,
    Tile,
    Transpose,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.graph import Op

__all__ = [
    "DTYPES",
    "FLOAT",
    "KINDS",
    "Arg",
    "Array",
    "Attributes",
    "AvgPool",
    "BatchNorm",
    "Cast",
    "Clip",
    "Compare",
    "Concat",
    "Conv",
    "Deconv",
    "Dense",
    "DepthToSpace",
    "Depthwise",
    "Elu",
    "Gather",
    "L2Norm",
    "Layer",
    "LayerNorm",
    "LeakyRelu",
    "Logical",
    "Matmul",
    "Mean",
    "OpKind",
    "Pad",
    "Reduce",
    "Reshape",
    "Resize",
    "Shape",
    "Shapes",
    "Slice",
    "Softmax",
    "SpaceToDepth",
    "Tile",
    "Transpose",
    "Unary",
    "compute",
]

KINDS: Mapping[str, OpKind] = {
    **layers.ROWS,
    **arithmetic.ROWS,
    **reducing.ROWS,
    **activating.ROWS,
    **normalising.ROWS,
    **shaping.ROWS,
}


def compute(op: Op, arrays: Sequence[Array]) -> Array:
    """Return what an op gives, its fused activation included, by the reference.

    Args:
        op: the op.
        arrays: the values of its inputs, shaped as it says, but for N samples in place of the
            batch dimension where it keeps that (`OpKind.keeps_batch`); a layer's weight and bias.
    """
    return ACTIVATIONS[op.act](op.rules.reference(op, arrays))
