"""TFLite files: a whole one is told from a damaged one, and what goes in and comes out is read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from device_agents.model_files.flatbuffer import DamagedError, Reader
from device_agents.model_files.values import MOST_DIMS, NAME_BYTES, Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

IDENTIFIER = b"TFL3"

_SCHEMA = {
    "Model": {
        0: "u32",
        1: "[OperatorCode]",
        2: "[SubGraph]",
        3: "string",
        4: "[Buffer]",
        5: "[i32]",
        6: "[Metadata]",
        7: "[SignatureDef]",
    },
    "OperatorCode": {0: "i8", 1: "string", 2: "i32", 3: "i32"},
    "SubGraph": {0: "[Tensor]", 1: "[i32]", 2: "[i32]", 3: "[Operator]", 4: "string"},
    "Tensor": {
        0: "[i32]",
        1: "i8",
        2: "u32",
        3: "string",
        4: "Quantization",
        5: "u8",
        6: "Sparsity",
        7: "[i32]",
        8: "u8",
        9: "[any]",
    },
    "Quantization": {
        0: "[f32]",
        1: "[f32]",
        2: "[f32]",
        3: "[i64]",
        4: "u8",
        5: "any",
        6: "i32",
    },
    "Sparsity": {0: "[i32]", 1: "[i32]", 2: "[any]"},
    "Operator": {
        0: "u32",
        1: "[i32]",
        2: "[i32]",
        3: "u8",
        4: "any",
        5: "[u8]",
        6: "i8",
        7: "[u8]",
        8: "[i32]",
        9: "u64",
        10: "u64",
        11: "u8",
        12: "any",
    },
    "Buffer": {0: "[u8]", 1: "u64", 2: "u64"},
    "Metadata": {0: "string", 1: "u32"},
    "SignatureDef": {0: "[TensorMap]", 1: "[TensorMap]", 2: "string", 4: "u32"},
    "TensorMap": {0: "string", 1: "u32"},
}
DTYPES = (
    *("float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64"),
    *("int8", "float64", "complex128", "uint64", "resource", "variant", "uint32", "uint16"),
    *("int4", "bfloat16", "int2", "uint4"),
)
"""Numpy's names of the types of tensors, by their number in the schema, or what numpy has not."""


def inputs_outputs(content: Any) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the inputs and outputs of a file (bytes or mmap).

    Raises:
        DamagedError: it is not whole: something points outside the file, or to what is not there.
    """
    reader = Reader(content, _SCHEMA)
    root = reader.root()
    reader.verify(root, "Model")
    graphs = reader.tables(root, 2)
    if not graphs:
        raise DamagedError("it holds no network")
    buffers = reader.tables(root, 4)
    # A vector may name a table as often as it likes: each is looked at once.
    for buffer in dict.fromkeys(buffers):
        start, size = _data(reader, buffer)
        if start + size > len(content):
            raise DamagedError(f"its weights would end at byte {start + size} of {len(content)}")
    codes = len(reader.tables(root, 1))
    for graph in dict.fromkeys(graphs):
        _check_indices(reader, graph, buffers=len(buffers), codes=codes)
    return _ends(reader, graphs[0], 1), _ends(reader, graphs[0], 2)


def constants(content: Any) -> list[tuple[str, str, tuple[int, ...], int, int]]:
    """Return (name, type, dims, first byte, bytes) of every tensor that has data in the file.

    Dims are empty where there are more than 8, and names are cut: tables may share them, and a
    small file say much.

    Raises:
        DamagedError: as `inputs_outputs`.
    """
    reader = Reader(content, _SCHEMA)
    root = reader.root()
    reader.verify(root, "Model")
    buffers = reader.tables(root, 4)
    found = []
    for graph in dict.fromkeys(reader.tables(root, 2)):
        for tensor in dict.fromkeys(reader.tables(graph, 0)):
            number, code = reader.number(tensor, 2, "u32"), reader.number(tensor, 1, "i8")
            _check(number, len(buffers), "buffer")
            start, size = _data(reader, buffers[number])
            if size and 0 <= code < len(DTYPES) and start + size <= len(content):
                known = reader.span(tensor, 0, 4)[1] <= MOST_DIMS
                dims = (reader.numbers(tensor, 0, "i32") or ()) if known else ()
                name = reader.text(tensor, 3, most=NAME_BYTES)
                found.append((name, DTYPES[code], dims, start, size))
    return found


def _data(reader: Reader, buffer: int) -> tuple[int, int]:
    """Return (first byte, bytes) of a buffer, which lies behind the tables of large files."""
    start, size = reader.number(buffer, 1, "u64"), reader.number(buffer, 2, "u64")
    return (start, size) if start > 1 else reader.span(buffer, 0)


def _ends(reader: Reader, graph: int, field: int) -> tuple[Tensor, ...]:
    """Return the inputs (field 1) or outputs (field 2) of a subgraph."""
    tensors = reader.tables(graph, 0)
    named = [tensors[n] for n in reader.numbers(graph, field, "i32") or ()]
    read = {tensor: _tensor(reader, tensor) for tensor in dict.fromkeys(named)}
    return tuple(read[tensor] for tensor in named)


def _check_indices(reader: Reader, graph: int, *, buffers: int, codes: int) -> None:
    tensors = reader.tables(graph, 0)
    for tensor in dict.fromkeys(tensors):
        _check(reader.number(tensor, 2, "u32"), buffers, "buffer")
    for number in (1, 2):
        _check_all(reader.numbers(graph, number, "i32"), len(tensors), optional=False)
    for op in dict.fromkeys(reader.tables(graph, 3)):
        _check(reader.number(op, 0, "u32"), codes, "kind of op")
        _check_all(reader.numbers(op, 1, "i32"), len(tensors), optional=True)
        _check_all(reader.numbers(op, 2, "i32"), len(tensors), optional=False)
        _check_all(reader.numbers(op, 8, "i32"), len(tensors), optional=True)


def _check_all(indices: Sequence[int] | None, count: int, *, optional: bool) -> None:
    for index in indices or ():
        if not (optional and index == -1):
            _check(index, count, "tensor")


def _check(index: int, count: int, what: str) -> None:
    if not 0 <= index < count:
        raise DamagedError(f"it names {what} {index} of {count}")


def _tensor(reader: Reader, tensor: int) -> Tensor:
    shape = reader.numbers(tensor, 0, "i32") or ()
    signature = reader.numbers(tensor, 7, "i32") or ()
    code = reader.number(tensor, 1, "i8")
    if not 0 <= code < len(DTYPES):
        raise DamagedError(f"it names type {code}, which is none of TFLite")
    # In the signature -1 is open, and the shape holds a 1 there.
    dims = signature if len(signature) == len(shape) else shape
    scale, zero_point = None, None
    quantization = reader.table(tensor, 4)
    if quantization is not None:
        scales = reader.numbers(quantization, 2, "f32")
        zeros = reader.numbers(quantization, 3, "i64")
        # TFLite takes a scale of 0 for none, and some converters write it.
        if scales and scales[0]:
            scale, zero_point = scales[0], zeros[0] if zeros else 0
            if not (math.isfinite(scale) and scale > 0 and abs(zero_point) < 1 << 31):
                raise DamagedError(f"it has the scale {scale:g} with zero point {zero_point}")
    return Tensor(
        name=reader.text(tensor, 3),
        dtype=DTYPES[code],
        dims=tuple(n if n > 0 else "" for n in dims),
        scale=scale,
        zero_point=zero_point,
    )
