"""Reads what is quantised: its tensors are real in the graph, with their scales beside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from models.graph import Graph
    from models.ops import Shape
    from models.quantization import Quantization
    from pipeline.formats.onnx.node import Node, Value
    from pipeline.formats.onnx.reading import Reading


def keep_layer_codes(
    reading: Reading,
    layer: str,
    weight: Value,
    bias: Value | None,
    shape: Shape,
    axes: tuple[int, ...],
) -> None:
    """Keep the codes that a layer's weights are in the file."""


def quantization_of(reading: Reading, graph: Graph) -> Quantization | None:
    """Return the number formats of what was read, None where all is real."""
    del reading, graph
    return None


CODES: Mapping[str, Callable[[Reading, Node], Any]] = {}
