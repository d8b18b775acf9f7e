"""Where the weights of a model file lie in it, so that they can be coded as what they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from device_agents.model_files import onnx, tflite

if TYPE_CHECKING:
    from collections.abc import Iterable

WIDTHS = {
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 8),
    **dict.fromkeys(("float32", "int32", "uint32"), 4),
    **dict.fromkeys(("float16", "bfloat16", "int16", "uint16"), 2),
    **dict.fromkeys(("int8", "uint8", "bool", "int4", "uint4", "int2"), 1),
}
"""Bytes of an element; of the narrowest, several share one."""

_FEWEST_BYTES = 1024
"""Below, a tensor is coded with the rest: tables of its own would cost more than they save."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A constant tensor in a file: where it lies, the bytes of an element, its dimensions."""

    name: str
    dtype: str
    width: int
    dims: tuple[int, ...]
    offset: int
    size: int


def find_weights(content: Any, format_: str) -> tuple[Weights, ...]:
    """Return the larger constant tensors of a TFLite or ONNX file in order, apart from each other.

    None of other formats. The file has been found whole (`model_files.read`).

    Raises:
        DamagedError: it is not whole after all.
    """
    find = {"tflite": tflite.constants, "onnx": onnx.constants}.get(format_)
    return () if find is None else _apart(find(content))


def _apart(found: Iterable[tuple[str, str, tuple[int, ...], int, int]]) -> tuple[Weights, ...]:
    """Keep tensors that are large enough; of two that share bytes, the one that begins first."""
    kept: list[Weights] = []
    for name, dtype, dims, offset, size in sorted(found, key=lambda one: one[3]):
        width = WIDTHS.get(dtype)
        end = kept[-1].offset + kept[-1].size if kept else 0
        if width is not None and size >= _FEWEST_BYTES and offset >= end and not size % width:
            named = name or f"at byte {offset}"
            sizes = dims if all(length > 0 for length in dims) else ()
            kept.append(Weights(named, dtype, width, sizes, offset, size))
    return tuple(kept)
