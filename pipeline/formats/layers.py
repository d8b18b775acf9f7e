"""What every writer asks of a graph before it writes: known ops, fitting weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.graph import FUSED_ACTIVATIONS, INPUT, Graph, Op
from pipeline.formats.api import ExportError

if TYPE_CHECKING:
    from models.fold import Weights

KINDS = ("conv", "depthwise", "dense", "add", "mul", "mean", "maxpool", "act")
FUNCTIONS = ("hardswish", "silu", "sigmoid", "hardsigmoid")

FloatArray = npt.NDArray[np.float32]


def check_op(op: Op) -> None:
    """Refuse by name an op that no writer expresses.

    Raises:
        ExportError: an unknown kind, or an activation that its kind cannot have.
    """
    if op.kind not in KINDS:
        raise ExportError(f"op {op.name!r} is a {op.kind!r}; known: {', '.join(KINDS)}")
    known: tuple[str, ...] = FUSED_ACTIVATIONS
    if op.kind == "act":
        known = FUNCTIONS
    elif op.kind in ("mean", "maxpool"):
        known = ("none",)
    if op.act not in known:
        raise ExportError(
            f"op {op.name!r} ({op.kind}) has activation {op.act!r}; known: {', '.join(known)}"
        )


def check_gate(graph: Graph, op: Op) -> None:
    """Require of a hard-sigmoid that it reads a linear layer that nothing else reads.

    The layer then computes relu6(x + 3), see `models.quantization`.

    Raises:
        ExportError: it reads something else.
    """
    source = op.inputs[0]
    layer = None if source == INPUT else graph[source]
    readers = graph.consumers()[source]
    if layer is None or not layer.has_weights or layer.act != "none" or readers != 1:
        raise ExportError(
            f"op {op.name!r}: a hard-sigmoid must follow a convolution or dense layer without "
            f"activation that nothing else reads, not {source!r}"
        )


def layer_weights(op: Op, weights: Weights) -> tuple[FloatArray, FloatArray]:
    """Return an op's (weight, bias).

    Raises:
        ExportError: there are none, or of another shape.
    """
    if op.name not in weights:
        raise ExportError(f"op {op.name!r} has no weights; the weights are of another network")
    weight, bias = weights[op.name]
    if weight.shape != op.weight_shape or bias.shape != op.out_shape[-1:]:
        raise ExportError(
            f"op {op.name!r} has weights {weight.shape} and bias {bias.shape}; the network needs "
            f"{op.weight_shape} and {op.out_shape[-1:]}"
        )
    return weight, bias
