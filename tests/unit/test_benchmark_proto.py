"""The reader of benchmark_model's binary result."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.tools.benchmark_proto import parse_result
from device_agents.tools.count_line import Stat


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def real(number: int, value: float) -> bytes:
    return varint(number << 3 | 5) + struct.pack("<f", value)


def integer(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value % (1 << 64))


def message(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


LATENCY = b"".join(
    real(number, value)
    for number, value in enumerate((5.1, 4.9, 9.5, 0.5, 5.0, 4.95, 6.0, 12.5, 8.7, 5.8), 1)
)
MISC = real(1, 1.5) + integer(2, 50) + integer(3, 9) + real(4, 27.46)
MEMORY = integer(1, 3584) + integer(2, -4) + real(3, 70.25)
WHOLE = message(1, b"net") + message(2, LATENCY) + message(3, MEMORY) + message(4, MISC)


def test_every_field() -> None:
    result = parse_result(WHOLE)
    assert result.name == "net"
    assert result.measured == Stat(
        50,
        None,
        min_ms=4.9,
        max_ms=9.5,
        avg_ms=5.1,
        std_ms=0.5,
        p5_ms=4.95,
        median_ms=5.0,
        p95_ms=6.0,
    )
    assert (result.init_ms, result.first_ms, result.warmup_ms, result.warmup_count) == (
        *(12.5, 8.7, 5.8, 9),
    )
    assert (result.init_footprint_kb, result.overall_footprint_kb, result.peak_mb) == (
        *(3584, -4, 70.25),
    )


def test_unknown_fields_are_skipped_and_absent_ones_are_none() -> None:
    future = integer(29, 7) + real(30, 1.0) + message(31, b"x") + varint(32 << 3 | 1) + bytes(8)
    latency = message(2, future + real(1, 5.0))
    result = parse_result(future + latency + message(4, integer(2, 3) + future))
    assert result.measured == Stat(3, avg_ms=5.0)
    assert (result.warmup_count, result.peak_mb) == (None, None)


def test_cut_anywhere_is_an_error_or_lacks_its_count() -> None:
    for end in range(len(WHOLE)):
        with pytest.raises(ValueError, match=r"is cut|has no end|lacks the number of runs"):
            parse_result(WHOLE[:end])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "lacks the number of runs or their average"),
        (b"\x00", "a number at byte 1 has no end"),
        (b"INFO: STARTING!\n", "is cut: 16 bytes, 95 were announced"),
        (b"\xff" * 20, "a number at byte 0 has no end"),
        (message(2, real(1, float("nan"))) + message(4, MISC), "field 1 should be a finite number"),
        (message(2, integer(1, 5)) + message(4, MISC), "field 1 should be a finite number"),
        (message(2, LATENCY) + message(4, real(2, 50.0)), "field 2 should be an integer"),
        (integer(2, 5) + message(4, MISC), "field 2 should be text or a message"),
        (bytes(2 << 20), "a result of 2097152 bytes is too long"),
    ],
)
def test_what_is_no_result(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_result(data)


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_result_or_a_value_error(data: bytes) -> None:
    try:
        parse_result(data)
    except ValueError:
        # Any other exception, or an endless loop, would be the fault.
        return
