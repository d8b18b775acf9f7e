"""Packed files: bit for bit what was packed, or one sentence, whatever the bytes are."""

from __future__ import annotations

import io
import tracemalloc
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import device_agents.golden
import pipeline.coding.container
from device_agents import model_files
from device_agents.agent.packed import BLOCK_BYTES, MAGIC, VERSION, container, pieces
from device_agents.agent.packed.cursor import Cursor, Damaged, Newer
from device_agents.errors import ConfigError
from device_agents.model_files.weights import Weights, find_weights
from pipeline.coding import pack, smallest
from pipeline.coding.figures import coding_figures
from pipeline.coding.files import pack_file, unpack_file
from pipeline.coding.varint import part, varint
from tests.packed_files import small_packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN = Path(device_agents.golden.__file__).parent


def header_of(content: bytes) -> container.Header:
    return container.read_header(io.BytesIO(content), len(content))


def with_header(content: bytes, change: Callable[[bytearray], object]) -> bytes:
    """Return a packed file with a changed header, under a checksum that is right."""
    start = len(MAGIC) + 5
    end = start + int.from_bytes(content[start - 4 : start], "little")
    header = bytearray(content[start:end])
    change(header)
    head = content[: start - 4] + len(header).to_bytes(4, "little") + bytes(header)
    return head + zlib.crc32(head).to_bytes(4, "little") + content[end + 4 :]


def test_a_file_comes_back_bit_for_bit_with_every_coding_in_it() -> None:
    content, packed = small_packed()
    assert unpacked(packed) == content
    assert len(packed) < 0.6 * len(content)
    found = set()
    source = io.BytesIO(packed)
    for block in container.read_header(source, len(packed)).blocks:
        found.add(pieces.NAMES[source.read(block.stored)[0]])
    assert found >= {"rans", "rows", "palette", "planes", "sparse"}


@settings(deadline=None, max_examples=30)
@given(
    content=st.binary(max_size=3000),
    cuts=st.lists(st.integers(0, 3000), max_size=8),
    width=st.sampled_from([1, 2, 4]),
)
def test_any_bytes_come_back_wherever_tensors_lie_in_them(
    content: bytes, cuts: list[int], width: int
) -> None:
    weights = []
    places = sorted(cut for cut in cuts if cut <= len(content))
    for number, (start, end) in enumerate(zip(places[::2], places[1::2], strict=False)):
        size = (end - start) // width * width
        weights.append(Weights(f"t{number}", "", width, (size // width,), start, size))
    packed = pack(content, weights)
    assert unpacked(packed.content) == content
    assert len(packed.content) <= len(content) + 80 + 32 * len(weights)


@pytest.mark.parametrize(
    ("dtype", "dims"),
    [("int4", (6000,)), ("int4", (5999, 1)), ("int8", ((1 << 64) - 1, 4)), ("int8", (4, 1 << 40))],
)
def test_a_tensor_comes_back_whatever_its_dimensions_say(
    dtype: str, dims: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = np.random.default_rng(0).integers(0, 256, 3008).astype(np.uint8).tobytes()
    weights = [Weights("w", dtype, 1, dims, 4, 3000)]
    for block_bytes in (BLOCK_BYTES, 1 << 10):
        monkeypatch.setattr("pipeline.coding.container.BLOCK_BYTES", block_bytes)
        packed = pack(content, weights)
        assert unpacked(packed.content) == content
        assert coding_figures(content, packed)[0].elements == 3000


def test_a_file_that_holds_next_to_nothing_stays_within_what_is_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(container, "_SMALL_BYTES", 1 << 16)
    monkeypatch.setattr("pipeline.coding.container.BLOCK_BYTES", 1 << 18)
    size = (1 << 20) + 77
    content = bytes(size)
    weights = [Weights("zeros", "float32", 4, (size // 8,), 4, size // 8 * 4)]
    packed = pack(content, weights)
    assert unpacked(packed.content) == content
    assert size / 1024 <= len(packed.content) < size / 200
    (tensor,) = packed.tensors
    assert "deflate" in tensor.codings
    blocks = header_of(packed.content).blocks
    assert tensor.stored_bytes == sum(block.stored for block in blocks if block.name)
    assert packed.rest_stored_bytes == sum(block.stored for block in blocks if not block.name)


def test_no_honest_header_is_longer_than_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    made = pipeline.coding.container
    longest = made._Block("é" * 300, container.MOST_BYTES, bytes(BLOCK_BYTES), bytes(BLOCK_BYTES))
    # Beside a last block of each tensor and of the rest, every one has half of a block at least.
    blocks = made._MOST_TENSORS + 3 * (container.MOST_BYTES // BLOCK_BYTES) + 1
    assert 50 + blocks * len(longest.entry()) <= container.HEADER_BYTES
    content = bytes(range(200)) * 4
    sizes = [(0, 50), (60, 300), (400, 20), (450, 200)]
    weights = [Weights(f"{at} {'n' * 200}", "", 1, (size,), at, size) for at, size in sizes]
    monkeypatch.setattr(made, "_MOST_TENSORS", 2)
    packed = pack(content, weights)
    assert unpacked(packed.content) == content
    assert [tensor.weights.offset for tensor in packed.tensors] == [60, 450]
    names = [block.name for block in header_of(packed.content).blocks]
    assert names == [f"60 {'n' * 77}", f"450 {'n' * 76}", ""]
    long = packed.content[:9] + ((1 << 21) + 1).to_bytes(4, "little") + packed.content[13:]
    with pytest.raises(Damaged, match="header would have 2097153 bytes"):
        unpacked(long)


@pytest.mark.parametrize("name", ["golden.tflite", "golden.onnx"])
def test_the_weights_of_a_model_file_are_found_and_coded(name: str) -> None:
    content, packed = pack_file(GOLDEN / name, lambda _: None)
    assert unpacked(packed.content) == content == (GOLDEN / name).read_bytes()
    assert packed.tensors
    for tensor in packed.tensors:
        count = int(np.prod(tensor.weights.dims)) * tensor.weights.width
        assert count == tensor.weights.size
        assert tensor.stored_bytes <= tensor.weights.size + len(tensor.codings)
    format_ = model_files.what_is(GOLDEN / name).name
    assert [tensor.weights for tensor in packed.tensors] == [*find_weights(content, format_)]


def test_figures_say_what_a_code_costs_that_was_made_for_another_distribution() -> None:
    # Large enough to be coded for itself: 0 and 1 in equal parts, and three zeros to a one.
    even, rare = np.tile([0, 1], 2000), np.tile([0, 0, 0, 1], 500)
    content, weights = b"", []
    for name, array in (("even", even), ("rare", rare)):
        data = array.astype(np.int8).tobytes()
        weights.append(Weights(name, "int8", 1, array.shape, len(content), len(data)))
        content += data
    first, second = coding_figures(content, pack(content, weights))
    assert (first.entropy_bits, second.entropy_bits) == pytest.approx((1.0, 0.811278), abs=1e-6)
    # All 256 bytes have a code of the largest, 2000 times the two that it has.
    assert first.largest_bits == pytest.approx(np.log2(4254 / 2000))
    assert second.largest_bits == pytest.approx(np.log2(4254 / 2000))
    # Both are 3500 zeros and 2500 ones.
    shares = -np.log2(np.array([3500, 2500]) / 6000)
    assert second.shared_bits == pytest.approx(0.75 * shares[0] + 0.25 * shares[1])
    # The median is 0 and the mean absolute deviation 1/4, so at least 1/2; q falls to both sides.
    q = np.exp(-np.abs(np.arange(-128, 128)) / 0.5)
    shares = -np.log2(q[[128, 129]] / q.sum())
    assert second.laplace_bits == pytest.approx(0.75 * shares[0] + 0.25 * shares[1])
    for one in (first, second):
        assert one.laplace_bits is not None
        assert min(one.laplace_bits, one.largest_bits, one.shared_bits) >= one.entropy_bits


def test_figures_say_what_codes_cost_beside_what_symbols_hold() -> None:
    rng = np.random.default_rng(0)
    narrow, wide = (np.round(rng.normal(0, s, (40, 100))).astype(np.int8) for s in (2, 30))
    floats = rng.standard_normal(2000).astype(np.float32)
    arrays = (narrow, wide, floats)
    content, weights = b"", []
    for name, array in zip(("narrow", "wide", "floats"), arrays, strict=True):
        weights.append(Weights(name, "", array.itemsize, array.shape, len(content), array.nbytes))
        content += array.tobytes()
    figures = coding_figures(content, pack(content, weights))
    small, large, real = figures
    assert small.entropy_bits == pytest.approx(0.5 * np.log2(2 * np.pi * np.e * 4), abs=0.05)
    assert large.entropy_bits == pytest.approx(0.5 * np.log2(2 * np.pi * np.e * 900), abs=0.05)
    for one in (small, large):
        assert one.divergence_bits == pytest.approx(one.shared_bits - one.entropy_bits)
        for cost in one.codes.values():
            assert cost is None or cost[1] == pytest.approx(cost[0] - one.entropy_bits)
        assert one.divergence_bits > 0.3
        assert one.given_channel_bits is not None
        assert one.given_channel_bits < one.entropy_bits
        assert one.entropy_bits < one.stored_bits < 1.06 * one.entropy_bits
    assert real.elements == 2000
    assert real.divergence_bits == 0
    assert real.given_channel_bits is None


def test_a_file_of_many_blocks_takes_the_memory_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    block_bytes = 1 << 17
    monkeypatch.setattr("pipeline.coding.container.BLOCK_BYTES", block_bytes)
    size = 8 * block_bytes + 12_345
    content = bytes(size)
    weights = [Weights("zeros", "int8", 1, (size - 20,), 10, size - 20)]
    packed = pack(content, weights).content
    assert len(header_of(packed).blocks) == 10
    tracemalloc.start()
    try:
        target = _Sink()
        with pytest.raises(Damaged, match="hash"):
            container.unpack(io.BytesIO(packed), len(packed), target)
        assert tracemalloc.get_traced_memory()[1] < 6 * block_bytes
    finally:
        tracemalloc.stop()
    assert target.written == size


class _Sink(io.RawIOBase):
    """Takes what is written and keeps none of it."""

    written = 0

    def seek(self, *_: int) -> int:
        return 0

    def write(self, content: object) -> int:
        size = memoryview(content).nbytes  # type: ignore[arg-type]
        self.written += size
        return size

    def read(self, _: int = -1) -> bytes:
        return b""


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_a_damaged_file_is_refused(data: st.DataObject) -> None:
    packed = bytearray(small_packed()[1])
    if data.draw(st.booleans()):
        del packed[data.draw(st.integers(0, len(packed) - 1)) :]
    else:
        at = data.draw(st.integers(0, len(packed) - 1))
        packed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises((Damaged, Newer)):
        unpacked(bytes(packed))


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_a_hostile_piece_makes_what_was_asked_or_is_refused(data: st.DataObject) -> None:
    """Checksums are no hindrance to who means harm: pieces are decoded without."""
    content = small_packed()[1]
    source = io.BytesIO(content)
    blocks = container.read_header(source, len(content)).blocks
    chosen = data.draw(st.integers(0, len(blocks) - 1))
    texts = [source.read(block.stored) for block in blocks]
    piece = bytearray(texts[chosen])
    # Heads of pieces are short and say most.
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(piece) - 1, data.draw(st.sampled_from([8, 400])))))
        piece[at] = data.draw(st.integers(0, 255))
    size = data.draw(st.sampled_from([blocks[chosen].size, 0, 1, 4097]))
    try:
        found = pieces.decode(Cursor(bytes(piece)), size)
    except Damaged:
        return
    assert found.shape == (size,)
    assert found.dtype == np.uint8


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=60), st.integers(0, BLOCK_BYTES))
@example(bytes([pieces.PALETTE, 8, 1, 255]) + bytes(8) + bytes([1, pieces.RAW]), BLOCK_BYTES)
def test_any_bytes_are_a_piece_or_are_refused(piece: bytes, size: int) -> None:
    try:
        found = pieces.decode(Cursor(piece), size)
    except Damaged:
        return
    assert found.shape == (size,)


def test_pieces_in_pieces_without_end_are_refused() -> None:
    piece = b""
    for _ in range(60):
        piece = bytes([pieces.PLANES, 1]) + bytes([len(piece)]) + piece
        if len(piece) > 120:
            break
    with pytest.raises(Damaged, match="more than 6 deep"):
        pieces.decode(Cursor(piece), 5)


def peak_bytes(piece: bytes, size: int) -> int:
    """Return what decoding takes at most."""
    tracemalloc.start()
    try:
        assert pieces.decode(Cursor(piece), size).shape == (size,)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def rows_piece(count: int, *, classes: int, lanes: int) -> bytes:
    """Return a piece of rows of zeros, each a cell, of which no word is stored."""
    head = bytes([pieces.ROWS, 0]) + varint(count) + varint(1) + bytes([classes])
    states = lanes * (1 << 31).to_bytes(8, "little")
    table = bytes([0, 0]) + varint(256)
    stream = bytes([8]) + classes * table + varint(lanes) + states
    return head + part(smallest(bytes(count))) + stream


def test_pieces_in_pieces_take_the_memory_of_a_few() -> None:
    size = 1 << 20
    piece = bytes([pieces.RAW]) + bytes(size)
    everywhere = part(smallest(b"\xff" * (size // 8)))
    for _ in range(5):
        piece = bytes([pieces.SPARSE, 1]) + varint(size) + everywhere + part(piece)
    assert peak_bytes(piece, size) < 4 * size
    assert peak_bytes(rows_piece(size, classes=16, lanes=4000), size) < 6 * size


def test_rows_of_more_classes_or_lanes_than_are_written_are_refused() -> None:
    with pytest.raises(Damaged, match="has 17 classes, and 16 are the most"):
        pieces.decode(Cursor(rows_piece(4096, classes=17, lanes=256)), 4096)
    # 4096 lanes of which one has a cell would hold four thousand times what is made.
    with pytest.raises(Damaged, match="says 4096 where 1 is the most"):
        pieces.decode(Cursor(rows_piece(1, classes=1, lanes=4096)), 10_000)


def test_a_deflated_bomb_is_cut_at_its_size() -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(bytes(1 << 26)) + packer.flush()
    tracemalloc.start()
    try:
        with pytest.raises(Damaged, match="makes 1001 bytes where 1000"):
            pieces.decode(Cursor(bytes([pieces.DEFLATE]) + bomb), 1000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_stream_with_one_lane_for_millions_of_symbols_is_refused() -> None:
    one = smallest(bytes(5000))
    with pytest.raises(Damaged, match="steps of 1 lanes"):
        pieces.decode(Cursor(bytes([pieces.RANS, 8, 0, 0, 0x80, 2, 1]) + one[-8:]), BLOCK_BYTES)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda head: head.__setitem__(slice(0, 8), (1 << 40).to_bytes(8, "little")), "the most"),
        (lambda head: head.__setitem__(slice(0, 8), (1 << 30).to_bytes(8, "little")), "do not mak"),
        (lambda head: head.__setitem__(8, head[8] ^ 1), "has not the hash"),
        (lambda head: head.append(0), "do not make the"),
        (lambda head: head.__setitem__(slice(40, None), b"\xff\x7f"), "is the most"),
        (lambda head: head.__setitem__(slice(40, None), b""), "bytes are missing"),
    ],
)
def test_a_header_that_lies_is_refused(change: Callable[[bytearray], object], said: str) -> None:
    packed = with_header(small_packed()[1], change)
    with pytest.raises(Damaged, match=said):
        unpacked(packed)


def test_a_file_that_would_fill_a_disk_is_refused_before_it_is_unpacked() -> None:
    content = bytes(1 << 20)
    packed = pack(content).content

    def grow(head: bytearray) -> None:
        entry = bytes(head[41:])
        head[:8] = (200 * (1 << 20)).to_bytes(8, "little")
        head[40:] = b"\xc8\x01" + 200 * entry

    lying = with_header(packed, grow) + 199 * packed[-header_of(packed).blocks[0].stored :]
    with pytest.raises(Damaged, match="say that they hold 209715200"):
        unpacked(lying)


def test_a_file_of_a_later_version_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.ewp"
    packed = bytearray(small_packed()[1])
    packed[len(MAGIC)] = VERSION + 1
    path.write_bytes(packed)
    with pytest.raises(ConfigError, match=r"version 2 .* up to version 1; update edgewright"):
        unpack_file(path, io.BytesIO())


def test_files_that_are_not_packed_are_told_what_packs_them(tmp_path: Path) -> None:
    path = tmp_path / "model.ewp"
    path.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"is no packed file .* `edgewright pack`"):
        unpack_file(path, io.BytesIO())
    path.write_bytes(small_packed()[1][:-1])
    with pytest.raises(ConfigError, match=r"cut short or damaged: .*; copy or download it again"):
        unpack_file(path, io.BytesIO())
    path.write_bytes(small_packed()[1])
    with pytest.raises(ConfigError, match="is packed already"):
        pack_file(path, lambda _: None)
