"""ONNX files without the onnx package: inputs and outputs, and which files hold their weights.

A walk over the protobuf of the file that skips what it does not look for, weights above all. The
numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from device_agents.model_files.flatbuffer import DamagedError
from device_agents.model_files.protobuf import BYTES, NUMBER, CutError, fields, last, numbers, text
from device_agents.model_files.values import MOST_DIMS, Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from device_agents.model_files.protobuf import Place

# Message -> field -> message: the ways that lead to tensors.
_TENSORS = {
    "Model": {7: "Graph", 25: "Function", 20: "Training"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
}
_MODEL_FIELDS = {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}
_DTYPES = dict(
    enumerate(
        (
            *("float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool"),
            *("float16", "float64", "uint32", "uint64", "complex64", "complex128", "bfloat16"),
        ),
        1,
    )
)
_DEEPEST = 64
_DATA = {4, 9, 10}
"""Fields of a tensor with its data as they are in memory: floats, bytes of any type, doubles."""


def looks_like(content: Any) -> bool:
    """Tell whether a file begins as an ONNX file does; it may still be cut short."""
    try:
        found = fields(content, 0, len(content))
        first = next(found, None)
        if first is None or first[0] not in (1, 2, 7) or (first[0] == 1) != (first[1] == NUMBER):
            return False
        if first[0] == 1 and not 0 < first[2] < 1000:
            return False
        return all(number in _MODEL_FIELDS for number, *_ in found)
    except CutError:
        return True
    except DamagedError:
        return False


def inputs_outputs(content: Any) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return inputs (without those that are weights) and outputs. Raises DamagedError."""
    graph = last(content, (0, len(content)), 7)
    if graph is None:
        raise DamagedError("it holds no network")
    weights, ends = set(), {11: [], 12: []}  # type: ignore[var-annotated]
    for number, kind, start, end in fields(content, *graph):
        if kind == BYTES and number == 5:
            weights.add(text(content, last(content, (start, end), 8)))
        elif kind == BYTES and number in ends:
            ends[number].append(_tensor(content, start, end))
    inputs = tuple(item for item in ends[11] if item.name not in weights)
    return inputs, tuple(ends[12])


def locations(content: Any) -> tuple[str, ...]:
    """Return the names of the files that hold weights, as the file gives them, each once."""
    named = (_location(content, *place) for place in _tensors(content))
    return tuple(sorted({location for location in named if location is not None}))


def constants(content: Any) -> list[tuple[str, str, tuple[int, ...], int, int]]:
    """Return (name, type, dims, first byte, bytes) of tensors whose data lie in one piece.

    Dims are empty where there are more than 8.

    Raises:
        DamagedError: something points outside what it lies in.
    """
    found = []
    for begin, stop in _tensors(content):
        dims: list[int] = []
        name, code, data = "", 0, None
        for number, kind, start, end in fields(content, begin, stop):
            if number == 1 and len(dims) > MOST_DIMS:
                continue
            if number == 1 and kind == NUMBER:
                dims.append(start)
            elif number == 1 and kind == BYTES:
                dims += numbers(content, (start, end), MOST_DIMS + 1)
            elif number == 2 and kind == NUMBER:
                code = start
            elif number == 8 and kind == BYTES:
                name = text(content, (start, end))
            elif number in _DATA and kind == BYTES:
                data = (start, end - start)
        if data is not None and code in _DTYPES:
            known = tuple(dims) if len(dims) <= MOST_DIMS else ()
            found.append((name, _DTYPES[code], known, *data))
    return found


def _tensors(content: Any) -> Iterator[Place]:
    """Yield where every tensor of a file lies, in graphs, their nodes and functions."""
    waiting = [("Model", 0, len(content), 0)]
    while waiting:
        message, begin, stop, depth = waiting.pop()
        if depth > _DEEPEST:
            raise DamagedError(f"its graphs lie more than {_DEEPEST} deep in each other")
        if message == "Tensor":
            yield begin, stop
            continue
        for number, kind, start, end in fields(content, begin, stop):
            below = _TENSORS[message].get(number)
            if below is not None and kind == BYTES:
                waiting.append((below, start, end, depth + 1))


def _location(content: Any, begin: int, stop: int) -> str | None:
    outside, location = False, None
    for number, kind, start, end in fields(content, begin, stop):
        if number == 14 and kind == NUMBER:
            outside = start == 1
        elif number == 13 and kind == BYTES:
            key = text(content, last(content, (start, end), 1))
            if key == "location":
                location = text(content, last(content, (start, end), 2))
    return location if outside else None


def _tensor(content: Any, start: int, end: int) -> Tensor:
    name = text(content, last(content, (start, end), 1))
    kind = last(content, (start, end), 2)
    tensor = kind and last(content, kind, 1)
    if not tensor:
        return Tensor(name, "something that is no tensor", None)
    code = next((at for n, wire, at, _ in fields(content, *tensor) if (n, wire) == (1, 0)), 0)
    shape = last(content, tensor, 2)
    dims = None
    if shape is not None:
        places = [f for f in fields(content, *shape) if f[:2] == (1, BYTES)]
        dims = tuple(_dim(content, begin, stop) for _, _, begin, stop in places)
    return Tensor(name, _DTYPES.get(code, f"ONNX type {code}"), dims)


def _dim(content: Any, start: int, end: int) -> int | str:
    for number, kind, begin, stop in fields(content, start, end):
        if number == 1 and kind == NUMBER and 0 < begin < 1 << 63:
            return begin
        if number == 2 and kind == BYTES:
            return text(content, (begin, stop))
    return ""
