"""What every writer asks of a graph before it writes: ops that it knows, fitting weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.formats.api import ExportError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.fold import Weights
    from models.graph import Graph, Op
    from models.ops import Shape

FloatArray = npt.NDArray[np.float32]

_Emitter = TypeVar("_Emitter")


def emitter(known: Mapping[str, _Emitter], op: Op, format_: str) -> _Emitter:
    """Return what writes an op in a format.

    Raises:
        ExportError: the format has nothing for the op's kind.
    """
    if op.kind not in known:
        raise ExportError(
            f"op {op.name!r} is a {op.kind!r}, which is not written as {format_}; known: "
            f"{', '.join(known)}"
        )
    return known[op.kind]


def activation_emitter(known: Mapping[str, _Emitter], op: Op, format_: str) -> _Emitter:
    """Return what writes an activation of its own in a format.

    Raises:
        ExportError: the format has nothing for it.
    """
    if op.act not in known:
        raise ExportError(
            f"op {op.name!r} is the activation {op.act!r}, which is not written as {format_}; "
            f"known: {', '.join(known)}"
        )
    return known[op.act]


def check_gate(graph: Graph, op: Op) -> None:
    """Require of a hard-sigmoid that it reads a linear layer that nothing else reads.

    The layer then computes relu6(x + 3), see `models.quantization`.

    Raises:
        ExportError: it reads something else.
    """
    source = op.inputs[0]
    layer = next((made for made in graph.ops if made.name == source), None)
    alone = graph.readers()[source] == 1
    if layer is None or not layer.has_weights or layer.act != "none" or not alone:
        raise ExportError(
            f"op {op.name!r}: a hard-sigmoid must follow a convolution or dense layer without "
            f"activation that nothing else reads, not {source!r}"
        )


def find_needed(graph: Graph) -> set[str]:
    """Return the tensors that some output of a graph is made of."""
    needed = set(graph.outputs)
    for op in reversed(graph.ops):
        if op.name in needed:
            needed.update(op.inputs)
    return needed


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


def constant_value(op: Op, name: str, shape: Shape, weights: Weights) -> FloatArray:
    """Return the value of a constant that an op reads.

    Raises:
        ExportError: there is none, or of another shape.
    """
    if name not in weights:
        raise ExportError(f"op {op.name!r} reads the constant {name!r}, which has no value")
    (value,) = weights[name]
    if value.shape != shape:
        raise ExportError(
            f"the constant {name!r} has shape {value.shape}; the network says {shape}"
        )
    return value
