"""What a network costs before anyone has timed it: MACs, parameters, activation memory.

Counted on the lowered ops, so they cannot disagree with what is exported. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from models.graph import SQUEEZE_EXCITE, Graph, Op
from models.lower import lower

if TYPE_CHECKING:
    from collections.abc import Iterator

    from models.spec import ArchSpec


@dataclass(frozen=True, slots=True)
class OpCost:
    """The cost of one op.

    Attributes:
        name: of the op.
        kind: of the op.
        macs: multiply-accumulates; only layers have any.
        params: trained numbers (see `Cost.params`); a constant's are those of its first reader.
        out_elements: size of its output.
    """

    name: str
    kind: str
    macs: int
    params: int
    out_elements: int


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one inference of one image.

    Attributes:
        per_op: op by op, in execution order.
        macs: of convolutions and dense layers, without squeeze-and-excite: what papers print.
        se_macs: of the 1x1 layers inside squeeze-and-excite.
        params: as papers count them, before folding: weights, scale and shift of every batch
            normalisation, biases of dense and squeeze-and-excite layers; no running statistics.
            Constants count as weights do.
        peak_activation_bytes: the most that is alive at once: while an op runs, its inputs, its
            output and whatever a later op still reads. Weights and scratch space not counted.
    """

    per_op: tuple[OpCost, ...]
    macs: int
    se_macs: int
    params: int
    peak_activation_bytes: int


def cost(network: ArchSpec | Graph, *, bytes_per_element: int = 4) -> Cost:
    """Count a network; `bytes_per_element` is 4 for float32 activations, 1 for int8."""
    graph = network if isinstance(network, Graph) else lower(network)
    per_op = tuple(_op_costs(graph))
    se_macs = sum(
        item.macs for op, item in zip(graph.ops, per_op, strict=True) if op.role == SQUEEZE_EXCITE
    )
    return Cost(
        per_op=per_op,
        macs=sum(item.macs for item in per_op) - se_macs,
        se_macs=se_macs,
        params=sum(item.params for item in per_op),
        peak_activation_bytes=_peak_elements(graph) * bytes_per_element,
    )


def _op_costs(graph: Graph) -> Iterator[OpCost]:
    counted: set[str] = set()
    for op in graph.ops:
        params = _layer_params(op) if op.has_weights else 0
        for name, shape in zip(op.inputs, op.in_shapes, strict=True):
            if name in op.constants and name not in counted:
                counted.add(name)
                params += prod(shape)
        yield OpCost(op.name, op.kind, op.rules.macs(op), params, prod(op.out_shape))


def _layer_params(op: Op) -> int:
    channels = op.out_shape[-1]
    normalised = op.layer.normalised and op.role != SQUEEZE_EXCITE
    return prod(op.weight_shape) + (2 * channels if normalised else channels)


def _peak_elements(graph: Graph) -> int:
    readers = graph.readers()
    alive = {tensor.name: prod(tensor.shape) for tensor in graph.inputs}
    peak = 0
    for op in graph.ops:
        alive[op.name] = prod(op.out_shape)
        peak = max(peak, sum(alive.values()))
        for name in op.inputs:
            readers[name] -= 1
            if not readers[name] and name not in op.constants:
                del alive[name]
    return peak
