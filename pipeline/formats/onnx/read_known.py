"""Reads what is known before the network runs: constants, shapes, and ops of such alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from models.ops import FLOAT
from pipeline.formats.onnx.node import Node, UnknownError, Value, known, known_ints
from pipeline.formats.onnx.reading import MOST_VALUES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pipeline.formats.onnx.reading import Reading


def _constant(reading: Reading, node: Node) -> Value:
    for name in ("value_float", "value_floats"):
        if (given := node.attribute(name)) is not None:
            return reading.constant(node.name, np.array(given, np.float32))
    for name in ("value_int", "value_ints"):
        if (given := node.attribute(name)) is not None:
            return reading.constant(node.name, np.array(given, np.int64))
    stored = node.attribute("value")
    if not isinstance(stored, onnx.TensorProto):
        raise UnknownError("holds something else than numbers")
    return reading.held(node.name, reading.file.array(stored))


def _shape(reading: Reading, node: Node) -> Value:
    shape = node.input(0).shape
    start, end = node.attribute("start", 0), node.attribute("end")
    return reading.constant(node.name, np.array(shape[start:end], np.int64))


def _size(reading: Reading, node: Node) -> Value:
    return reading.constant(node.name, np.array(np.prod(node.input(0).shape, dtype=np.int64)))


def _constant_of_shape(reading: Reading, node: Node) -> Value:
    shape = known_ints(node.input(0), "shape")
    if np.prod(shape, dtype=np.float64) > MOST_VALUES:
        raise UnknownError(f"fills a tensor of shape {shape}")
    stored = node.attribute("value")
    value = np.zeros(1, np.float32) if stored is None else reading.file.array(stored)
    return reading.constant(node.name, np.full(shape, value.reshape(-1)[0]))


def _range(reading: Reading, node: Node) -> Value:
    start, limit, step = (known(node.input(place), "bounds").item() for place in range(3))
    dtype = node.input(0).dtype
    count = max(int(np.ceil((limit - start) / step)), 0)
    if count > MOST_VALUES:
        raise UnknownError(f"counts from {start} to {limit} by {step}")
    return reading.constant(node.name, (start + np.arange(count) * step).astype(dtype))


def _trilu(reading: Reading, node: Node) -> Value:
    x, given = node.input(0), node.optional(1)
    shift = 0 if given is None else int(known(given, "diagonal").item())
    ones = np.ones(x.shape[-2:], bool)
    kept = np.triu(ones, shift) if node.attribute("upper", 1) else np.tril(ones, shift)
    mask = reading.constant(f"{node.name}.kept", kept.reshape((1,) * (x.rank - 2) + kept.shape))
    return reading.op("where", [mask, x, reading.number(x, 0)], name=node.name)


KNOWN: Mapping[str, Callable[[Reading, Node], Any]] = {
    "Constant": _constant,
    "Shape": _shape,
    "Size": _size,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Trilu": _trilu,
}


def by_reference(reading: Reading, node: Node) -> tuple[Value, ...]:
    """Compute a node that reads known tensors alone by the reference of the onnx package.

    Raises:
        UnknownError: it cannot be.
    """
    from onnx.reference import ReferenceEvaluator

    arrays = {
        name: value.array
        for name, value in zip(node.proto.input, node.inputs, strict=True)
        if value is not None and value.array is not None
    }
    outputs = [name for name in node.proto.output if name]
    ends = [onnx.helper.make_empty_tensor_value_info(name) for name in (*arrays, *outputs)]
    graph = onnx.helper.make_graph([node.proto], "node", ends[: len(arrays)], ends[len(arrays) :])
    imports = [onnx.helper.make_opsetid("", node.opset)]
    try:
        model = onnx.helper.make_model(graph, opset_imports=imports)
        found = ReferenceEvaluator(model).run(outputs, arrays)
    except Exception as error:  # it raises whatever numpy does
        raise UnknownError(f"cannot be computed: {' '.join(str(error).split())[:100]}") from error
    results = dict(zip(outputs, found, strict=True))
    return tuple(
        reading.constant(name, results.get(name, np.zeros((), FLOAT))) for name in node.proto.output
    )
