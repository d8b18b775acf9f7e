"""Values of a file's constants: real numbers of codes, halves and sparse tensors; whole numbers.

What an array may take is bounded by the bytes that the file spends on it.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from device_agents import bounded
from device_agents.model_files.flatbuffer import DamagedError
from pipeline.formats.tflite.sparse import densify

if TYPE_CHECKING:
    from device_agents.model_files.flatbuffer import Reader
    from pipeline.formats.tflite.file import FileTensor

Array = npt.NDArray[Any]

_AS_THEY_ARE = ("float32", "int32", "int64")
_PLAIN = ("float32", "float16", "float64", "int32", "int64", "bool", "int8", "uint8", "int16")


def is_readable(tensor: FileTensor) -> bool:
    """Tell whether the type of a constant is known."""
    return tensor.dtype in (*_PLAIN, "uint32", "uint16", "bfloat16", "int4")


def decoded_bytes(tensor: FileTensor) -> int:
    """Return how much memory a constant's value takes beside the file's own bytes."""
    plain = tensor.sparsity is None and not tensor.quantized and tensor.dtype in _AS_THEY_ARE
    return 0 if plain else 5 * prod(tensor.shape)


def codes(reader: Reader, tensor: FileTensor) -> Array:
    """Return what a constant holds: its codes where it is quantised, of its shape.

    Raises:
        DamagedError: its bytes are not those of its shape.
    """
    data = memoryview(b"") if tensor.data is None else tensor.data
    if tensor.sparsity is not None:
        _check_size(tensor, len(data))
        stored = _stored(tensor, data, None)
        return densify(reader, tensor.sparsity, stored, tensor.shape)
    return _stored(tensor, data, prod(tensor.shape)).reshape(tensor.shape)


def real(tensor: FileTensor, held: Array) -> Array:
    """Return the real numbers of codes, float32; other numbers in a type that the graph knows."""
    if tensor.quantized:
        scales, zeros = tensor.scales.astype(np.float32), tensor.zero_points
        shape = [1] * held.ndim
        if scales.size > 1:
            shape[tensor.axis] = -1
        centred = held.astype(np.float32)
        if zeros.any():
            centred -= zeros.astype(np.float32).reshape(shape if zeros.size > 1 else ())
        centred *= scales.reshape(shape if scales.size > 1 else ())
        return centred
    if held.dtype.kind == "f":
        return np.asarray(held, np.float32)
    if held.dtype.kind in "iu" and held.dtype not in (np.int32, np.int64):
        return held.astype(np.int64 if held.dtype == np.uint32 else np.int32)
    return held


def _stored(tensor: FileTensor, data: memoryview, count: int | None) -> Array:
    """Return the numbers that the file holds; `count` of them unless it is None."""
    if tensor.dtype == "int4":
        return _halves_of_bytes(tensor, data, count)
    wire = {"bfloat16": "uint16", "bool": "uint8"}.get(tensor.dtype, tensor.dtype)
    dtype = np.dtype(wire).newbyteorder("<")
    wanted = len(data) // dtype.itemsize if count is None else count
    if wanted * dtype.itemsize != len(data):
        raise _mismatch(tensor, len(data), wanted * dtype.itemsize)
    held: Array = np.frombuffer(data, dtype)
    if tensor.dtype == "bfloat16":
        return (held.astype(np.uint32) << 16).view(np.float32)
    return held != 0 if tensor.dtype == "bool" else held.astype(np.dtype(wire), copy=False)


def _halves_of_bytes(tensor: FileTensor, data: memoryview, count: int | None) -> Array:
    """Return codes of four bits, the lower half of a byte first."""
    both = np.frombuffer(data, np.uint8)
    wanted = 2 * len(both) if count is None else count
    if (wanted + 1) // 2 != len(both):
        raise _mismatch(tensor, len(data), (wanted + 1) // 2)
    halves = np.stack([both & 15, both >> 4], axis=1).reshape(-1)[:wanted].astype(np.int8)
    return np.where(halves > 7, halves - 16, halves).astype(np.int8)


def _mismatch(tensor: FileTensor, have: int, need: int) -> DamagedError:
    return DamagedError(
        f"tensor {tensor.name!r} holds {have} bytes, and {tensor.dtype} of shape {tensor.shape} "
        f"takes {need}"
    )


def _check_size(tensor: FileTensor, stored: int) -> None:
    """Refuse a sparse tensor whose zeros would fill the memory."""
    whole = 4 * prod(tensor.shape)
    try:
        bounded.refuse_expansion(stored, whole)
    except bounded.Undecodable as error:
        raise DamagedError(f"tensor {tensor.name!r} is sparse, and {error}") from error
