"""What a network costs before anyone has timed it: MACs, parameters, activation memory.

Counted on the lowered ops, so they cannot disagree with what is exported. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from models.graph import INPUT, Graph, Op
from models.lower import lower

if TYPE_CHECKING:
    from models.spec import ArchSpec


@dataclass(frozen=True, slots=True)
class OpCost:
    """The cost of one op.

    Attributes:
        name: of the op.
        kind: of the op.
        macs: multiply-accumulates; only conv, depthwise and dense have any.
        params: trained numbers (see `Cost.params`).
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
    per_op = tuple(_op_cost(op) for op in graph.ops)
    se_macs = sum(item.macs for item in per_op if _in_squeeze_excite(item.name))
    return Cost(
        per_op=per_op,
        macs=sum(item.macs for item in per_op) - se_macs,
        se_macs=se_macs,
        params=sum(item.params for item in per_op),
        peak_activation_bytes=_peak_elements(graph) * bytes_per_element,
    )


def _in_squeeze_excite(name: str) -> bool:
    return ".se." in name


def _op_cost(op: Op) -> OpCost:
    out = prod(op.out_shape)
    if not op.has_weights:
        return OpCost(op.name, op.kind, 0, 0, out)
    weights, channels = prod(op.weight_shape), op.out_shape[-1]
    has_bias = op.kind == "dense" or _in_squeeze_excite(op.name)
    positions = out // channels
    params = weights + (channels if has_bias else 2 * channels)
    return OpCost(op.name, op.kind, weights * positions, params, out)


def _peak_elements(graph: Graph) -> int:
    readers = graph.consumers()
    alive = {INPUT: prod(graph.input_shape)}
    peak = 0
    for op in graph.ops:
        alive[op.name] = prod(op.out_shape)
        peak = max(peak, sum(alive.values()))
        for name in op.inputs:
            readers[name] -= 1
            if not readers[name]:
                del alive[name]
    return peak
