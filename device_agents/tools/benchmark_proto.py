"""Reads the binary result of benchmark_model (`--result_file_path`), a proto2 `BenchmarkResult`.

A small reader of the wire format instead of a dependency: four messages of numbers. The tool writes
the file before it returns its status, so also when every invoke failed: it proves nothing alone.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agents.tools.count_line import Stat

if TYPE_CHECKING:
    from collections.abc import Iterator

_LIMIT_BYTES = 1 << 20
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LATENCY = (
    *("avg", "min", "max", "std", "median", "p5", "p95"),
    *("init", "first", "warmup"),
)


@dataclass(frozen=True, slots=True)
class Result:
    """The fields of `BenchmarkResult` that the tool set; None for those that it did not."""

    name: str
    measured: Stat
    warmup_count: int | None
    warmup_ms: float | None
    init_ms: float | None
    first_ms: float | None
    init_footprint_kb: int | None
    overall_footprint_kb: int | None
    peak_mb: float | None
    model_size_mb: float | None


def parse_result(data: bytes) -> Result:
    """Read the file; raises ValueError when it is cut, too long, or not such a message."""
    if len(data) > _LIMIT_BYTES:
        raise ValueError(f"a result of {len(data)} bytes is too long")
    outer = dict(_fields(data))
    latency, memory, misc = (dict(_fields(_bytes(outer, number))) for number in (2, 3, 4))
    times = {name: _float(latency, number) for number, name in enumerate(_LATENCY, 1)}
    runs = _integer(misc, 2)
    if runs is None or times["avg"] is None:
        raise ValueError("the result lacks the number of runs or their average")
    first, warmup, init = times.pop("first"), times.pop("warmup"), times.pop("init")
    return Result(
        name=_bytes(outer, 1).decode("utf-8", "replace"),
        measured=Stat(runs, **{f"{name}_ms": value for name, value in times.items()}),
        warmup_count=_integer(misc, 3),
        warmup_ms=warmup,
        init_ms=init,
        first_ms=first,
        init_footprint_kb=_integer(memory, 1),
        overall_footprint_kb=_integer(memory, 2),
        peak_mb=_float(memory, 3),
        model_size_mb=_float(misc, 1),
    )


def _fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Yield number and value of each field; a later value of a number replaces an earlier one."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        value: int | float | bytes
        if kind == _VARINT:
            value, at = _varint(data, at)
        elif kind == _BYTES:
            size, at = _varint(data, at)
            value, at = _taken(data, at, size), at + size
        elif kind == _FIXED32:
            (value,) = struct.unpack("<f", _taken(data, at, 4))
            at += 4
        elif kind == _FIXED64:
            (value,) = struct.unpack("<d", _taken(data, at, 8))
            at += 8
        else:
            raise ValueError(f"wire type {kind} at byte {at} is not of a proto2 message")
        if number == 0:
            raise ValueError(f"field number 0 at byte {at}")
        yield number, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for position, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return value, at + position + 1
    raise ValueError(f"a number at byte {at} has no end")


def _taken(data: bytes, at: int, size: int) -> bytes:
    taken = data[at : at + size]
    if len(taken) != size:
        raise ValueError(f"the result is cut: {len(data)} bytes, {at + size} were announced")
    return taken


def _bytes(message: dict[int, int | float | bytes], number: int) -> bytes:
    value = message.get(number, b"")
    if not isinstance(value, bytes):
        raise ValueError(f"field {number} should be text or a message")  # noqa: TRY004
    return value


def _float(message: dict[int, int | float | bytes], number: int) -> float | None:
    value = message.get(number)
    if value is None:
        return None
    if not isinstance(value, float) or not math.isfinite(value):
        raise ValueError(f"field {number} should be a finite number")
    # A float32 has 7 digits; more are noise of its conversion.
    return float(f"{value:.7g}")


def _integer(message: dict[int, int | float | bytes], number: int) -> int | None:
    value = message.get(number)
    if value is None:
        return None
    if not isinstance(value, int):
        raise ValueError(f"field {number} should be an integer")  # noqa: TRY004
    return value - (1 << 64) if value >> 63 else value
