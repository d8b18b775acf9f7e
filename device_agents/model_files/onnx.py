"""ONNX files without the onnx package: inputs and outputs, and which files hold their weights.

A walk over the protobuf of the file that skips what it does not look for, weights above all. The
numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from device_agents.model_files.flatbuffer import DamagedError
from device_agents.model_files.values import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

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
_NUMBER, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
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

_Field = tuple[int, int, int, int]
"""(number, wire type, start, end) of a field; of a number `start` is its value."""


def looks_like(content: Any) -> bool:
    """Tell whether a file begins as an ONNX file does; it may still be cut short."""
    try:
        fields = _fields(content, 0, len(content))
        first = next(fields, None)
        if first is None or first[0] not in (1, 2, 7) or (first[0] == 1) != (first[1] == _NUMBER):
            return False
        if first[0] == 1 and not 0 < first[2] < 1000:
            return False
        return all(number in _MODEL_FIELDS for number, *_ in fields)
    except _CutError:
        return True
    except DamagedError:
        return False


def inputs_outputs(content: Any) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return inputs (without those that are weights) and outputs. Raises DamagedError."""
    graph = _only(content, 0, len(content), 7)
    if graph is None:
        raise DamagedError("it holds no network")
    weights, ends = set(), {11: [], 12: []}  # type: ignore[var-annotated]
    for number, kind, start, end in _fields(content, *graph):
        if kind == _BYTES and number == 5:
            weights.add(_text(content, _only(content, start, end, 8)))
        elif kind == _BYTES and number in ends:
            ends[number].append(_tensor(content, start, end))
    inputs = tuple(item for item in ends[11] if item.name not in weights)
    return inputs, tuple(ends[12])


def locations(content: Any) -> tuple[str, ...]:
    """Return the names of the files that hold weights, as the file gives them, each once."""
    found: dict[str, None] = {}
    waiting = [("Model", 0, len(content), 0)]
    while waiting:
        message, begin, stop, depth = waiting.pop()
        if depth > _DEEPEST:
            raise DamagedError(f"its graphs lie more than {_DEEPEST} deep in each other")
        if message == "Tensor":
            location = _location(content, begin, stop)
            if location is not None:
                found[location] = None
            continue
        for number, kind, start, end in _fields(content, begin, stop):
            below = _TENSORS[message].get(number)
            if below is not None and kind == _BYTES:
                waiting.append((below, start, end, depth + 1))
    return tuple(sorted(found))


def _location(content: Any, begin: int, stop: int) -> str | None:
    outside, location = False, None
    for number, kind, start, end in _fields(content, begin, stop):
        if number == 14 and kind == _NUMBER:
            outside = start == 1
        elif number == 13 and kind == _BYTES:
            key = _text(content, _only(content, start, end, 1))
            if key == "location":
                location = _text(content, _only(content, start, end, 2))
    return location if outside else None


def _tensor(content: Any, start: int, end: int) -> Tensor:
    name = _text(content, _only(content, start, end, 1))
    kind = _only(content, start, end, 2)
    tensor = kind and _only(content, *kind, 1)
    if not tensor:
        return Tensor(name, "something that is no tensor", None)
    code = next((at for n, wire, at, _ in _fields(content, *tensor) if (n, wire) == (1, 0)), 0)
    shape = _only(content, *tensor, 2)
    dims = None
    if shape is not None:
        places = [f for f in _fields(content, *shape) if f[:2] == (1, _BYTES)]
        dims = tuple(_dim(content, begin, stop) for _, _, begin, stop in places)
    return Tensor(name, _DTYPES.get(code, f"ONNX type {code}"), dims)


def _dim(content: Any, start: int, end: int) -> int | str:
    for number, kind, begin, stop in _fields(content, start, end):
        if number == 1 and kind == _NUMBER and 0 < begin < 1 << 63:
            return begin
        if number == 2 and kind == _BYTES:
            return _text(content, (begin, stop))
    return ""


def _only(content: Any, start: int, end: int, wanted: int) -> tuple[int, int] | None:
    """Return (start, end) of the last message or text of this number, as protobuf takes it."""
    found = None
    for number, kind, begin, stop in _fields(content, start, end):
        if number == wanted and kind == _BYTES:
            found = begin, stop
    return found


def _text(content: Any, place: tuple[int, int] | None) -> str:
    return "" if place is None else bytes(content[slice(*place)]).decode("utf-8", "replace")


class _CutError(DamagedError):
    """A field that goes on behind the end."""


def _fields(content: Any, start: int, end: int) -> Iterator[_Field]:
    """Yield the fields of a message; raises DamagedError."""
    at = start
    while at < end:
        tag, at = _varint(content, at, end)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise DamagedError(f"byte {at} of it is not of the format")
        if kind == _NUMBER:
            value, at = _varint(content, at, end)
            yield number, kind, value, at
            continue
        if kind == _BYTES:
            size, at = _varint(content, at, end)
        elif kind in (_EIGHT, _FOUR):
            size = 8 if kind == _EIGHT else 4
        else:
            raise DamagedError(f"byte {at} of it is not of the format")
        if at + size > end:
            raise _CutError(f"something at byte {at} would end at byte {at + size} of {end}")
        yield number, kind, at, at + size
        at += size


def _varint(content: Any, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise _CutError(f"it ends within a number, at byte {end}")
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise DamagedError(f"byte {at} of it is not of the format")
