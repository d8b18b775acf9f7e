"""Which ops of a network stay real when the others come to compute with codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.quantization import float_tensors, hardsigmoid_sources

if TYPE_CHECKING:
    from collections.abc import Collection

    from models.graph import Graph, Op


def find_float_ops(graph: Graph, asked: Collection[str] = ()) -> frozenset[str]:
    """Return the ops that compute with real numbers: those asked for and those that must.

    An op must where no runtime has an integer kernel for it (`models.ops`). One that costs little
    and is read by real ops alone does too: its codes would be turned back at once, and what is
    made of their error may be anything, as of powers whose logarithm is taken next, or of a
    residual stream between layer norms. One that only moves values about, such as a reshape, stays
    as real as what it reads; on its way from an input of the network, as real as what reads it.
    """
    gates = hardsigmoid_sources(graph, None)
    floats = {op.name for op in graph.ops if op.name in asked or _must(op, gates)}
    for op in graph.ops:  # a gate is computed by two ops together
        if _ends_gate(op, gates) and floats & {op.name, op.inputs[0]}:
            floats |= {op.name, op.inputs[0]}
    given = _add_read_as_real(graph, floats, gates)
    for op in graph.ops:
        read = [name for name in float_tensors(op)[:-1] if name not in op.constants]
        if _moves(op) and read and given.union(floats).issuperset(read):
            floats.add(op.name)
    return frozenset(floats)


def _ends_gate(op: Op, gates: Collection[str]) -> bool:
    return op.act == "hardsigmoid" and op.inputs[0] in gates


def _must(op: Op, gates: Collection[str]) -> bool:
    alone = op.act == "hardsigmoid" and not _ends_gate(op, gates)
    return bool(float_tensors(op)) and (alone or not op.rules.integer(op))


def _moves(op: Op) -> bool:
    """Tell whether the values that an op gives are all among those that it reads."""
    return op.keeps_scale or op.rules.shares_scale


def _add_read_as_real(graph: Graph, floats: set[str], gates: Collection[str]) -> frozenset[str]:
    """Add the ops that cost little and that ops of real numbers alone read, the last op first.

    What stands between may keep codes as they are: that loses nothing.

    Returns:
        The inputs of the graph that are read so.
    """
    read_as_codes = set(graph.outputs)
    for op in reversed(graph.ops):
        if op.name not in read_as_codes and op.name not in floats:
            cheap = not op.keeps_scale and op.rules.macs(op) == 0
            if float_tensors(op) and cheap and not _ends_gate(op, gates):
                floats.add(op.name)
        if op.name not in floats and (not op.keeps_scale or op.name in read_as_codes):
            read_as_codes.update(op.inputs)
    return frozenset(tensor.name for tensor in graph.inputs if tensor.name not in read_as_codes)
