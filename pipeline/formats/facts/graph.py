"""Facts of a model in our graph: of edgewright's own files, and of modules that are captured."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from device_agents.model_files import Tensor
from models.cost import cost
from pipeline.formats.facts.values import Facts, Weights, sort_counts

if TYPE_CHECKING:
    from models.model import Model

_TABLES = ("int32", "int64", "bool")


def model_facts(model: Model, *, format_: str, size_bytes: int) -> Facts:
    """Return the facts of a model; `format_` names what it was read from."""
    graph = model.graph
    weights = Weights()
    for arrays in model.weights.values():
        for array in arrays:
            table = str(array.dtype) in _TABLES
            weights.add(str(array.dtype), array.size, array.nbytes, table=table)
    width = 1 if model.number_format.activations == "int8" else 4
    counted = cost(graph, bytes_per_element=width)
    inputs = zip(model.inputs, graph.inputs, strict=True)
    outputs = zip(model.outputs, graph.outputs, strict=True)
    labels = next((output.labels for output in model.outputs if output.labels), ())
    return Facts(
        format=format_,
        version=str(model.number_format),
        producer="",
        size_bytes=size_bytes,
        inputs=tuple(
            Tensor(end.name, tensor.dtype, _laid_out(tensor.shape, end.layout))
            for end, tensor in inputs
        ),
        outputs=tuple(
            Tensor(end.name, graph.dtype(name), _laid_out(graph.shape(name), end.layout))
            for end, name in outputs
        ),
        ops=sort_counts(Counter(op.kind for op in graph.ops)),
        params=weights.params,
        weight_bytes=sort_counts(weights.weight_bytes),
        activations=sort_counts(Counter(op.out_dtype for op in graph.ops)),
        macs=counted.macs + counted.se_macs,
        peak_activation_bytes=counted.peak_activation_bytes,
        metadata={"history": "; ".join(model.history)} if model.history else {},
        labels=labels,
    )


def _laid_out(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """Return the shape as the user has it, of a graph's, which has channels last."""
    if layout.startswith("NC") and len(shape) == len(layout):
        return shape[0], shape[-1], *shape[1:-1]
    return shape
