"""Ops that the graph cannot say whatever they read: state, loops, sequences, text, chance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.formats.api import UnknownOp

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

_KINDS = frozenset(
    (
        *("LSTM", "GRU", "RNN", "Loop", "Scan", "NonMaxSuppression", "Unique"),
        *("Optional", "OptionalGetElement", "OptionalHasElement"),
        *("SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert"),
        *("SequenceLength", "SequenceMap", "SplitToSequence", "ConcatFromSequence"),
        *("StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch", "TfIdfVectorizer"),
        *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"),
        *("RandomUniformLike", "ImageDecoder"),
    )
)


def never_known(graph: onnx.GraphProto) -> Iterator[UnknownOp]:
    """Yield such ops of a graph and of those within it, with their places."""
    for node in graph.node:
        if node.op_type in _KINDS:
            yield UnknownOp(node.op_type, place_of(node))
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from never_known(inner)


def place_of(node: onnx.NodeProto) -> str:
    """Say where a node stands: its name, or that of what it gives."""
    return node.name or next(filter(None, node.output), "")
