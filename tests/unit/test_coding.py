"""Coders: what is decoded is what was encoded, in about as many bits as it holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from device_agents.agent.packed import huffman as huffman_decoder
from device_agents.agent.packed import pieces
from device_agents.agent.packed import rans as rans_decoder
from device_agents.agent.packed.cursor import Cursor
from pipeline.coding import Shape, huffman, rans, smallest
from pipeline.coding.distributions import count_bytes, cross_entropy, entropy, to_frequencies
from scripts._weight_kinds import tensor_kinds

KINDS = dict(tensor_kinds(96, 1152, np.random.default_rng(0)))
SEVERAL = st.sampled_from([1, 2, 3, 17, 256])


@st.composite
def symbols(draw: st.DrawFn) -> np.ndarray:
    """Draw bytes of a skewed distribution: one to ten thousand of one to 256 different ones."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    different = draw(SEVERAL)
    shares = rng.dirichlet(np.full(different, draw(st.sampled_from([0.01, 0.3, 5.0]))))
    values = rng.permutation(256)[:different]
    return rng.choice(values, draw(st.integers(1, 10_000)), p=shares).astype(np.uint8)


def decoded(piece: bytes, size: int) -> np.ndarray:
    return np.asarray(pieces.decode(Cursor(piece), size))


@settings(deadline=None, max_examples=25)
@given(symbols())
def test_rans_gives_back_what_it_was_given_in_the_bits_of_its_entropy(data: np.ndarray) -> None:
    counts = count_bytes(data)
    code = rans.make_code(counts)
    stream = rans.encode(data, code)
    assert (rans_decoder.decode(Cursor(stream), len(data)) == data).all()
    tables = 3 * np.count_nonzero(counts) + 8
    lanes = 8 * code.lanes
    assert len(stream) <= 1.01 * entropy(counts) * len(data) / 8 + tables + lanes + 8


@settings(deadline=None, max_examples=25)
@given(symbols())
def test_huffman_gives_back_what_it_was_given_within_a_bit_of_entropy(data: np.ndarray) -> None:
    counts = count_bytes(data)
    code = huffman.make_code(counts)
    if code is None:
        assert len(np.unique(data)) == 1
        return
    stream = huffman.encode(data, code)
    assert (huffman_decoder.decode(Cursor(stream), len(data)) == data).all()
    assert np.sum(2.0 ** -code.lengths[code.lengths > 0]) == 1  # Kraft: the code is complete
    bits = cross_entropy(counts, np.where(code.lengths > 0, 2.0**-code.lengths, 0))
    assert entropy(counts) <= bits + 1e-9
    assert bits < entropy(counts) + 1
    assert len(stream) <= bits * len(data) / 8 + 130 + 12 * code.lanes


def test_huffman_codes_are_no_longer_than_the_decoder_takes() -> None:
    fibonacci = [1, 1]
    while len(fibonacci) < 22:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    data = np.repeat(np.arange(22, dtype=np.uint8), fibonacci)
    code = huffman.make_code(count_bytes(data))
    assert code is not None
    assert huffman._unbounded(count_bytes(data)).max() == 21
    assert 10 < code.lengths.max() <= huffman_decoder.MOST_BITS
    assert (huffman_decoder.decode(Cursor(huffman.encode(data, code)), len(data)) == data).all()


@settings(deadline=None, max_examples=25)
@given(symbols(), st.sampled_from([8, 10, 12, 14]))
def test_frequencies_are_whole_and_waste_little(data: np.ndarray, bits: int) -> None:
    counts = count_bytes(data)
    found = to_frequencies(counts, bits)
    assert found.sum() == 1 << bits
    assert ((found > 0) == (counts > 0)).all()
    # No unit would be better with another symbol.
    cost = cross_entropy(counts, found)
    for give, take in ((found.argmax(), found.argmin()), (found.argmin(), found.argmax())):
        if found[give] > 1 and counts[take]:
            moved = found.copy()
            moved[[give, take]] += [-1, 1]
            assert cost <= cross_entropy(counts, moved) + 1e-12


@settings(deadline=None, max_examples=40)
@given(
    arrays.arrays(
        st.sampled_from(["u1", "<u2", "<f4", "<u8"]),
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=12),
        fill=st.just(0),
    )
)
def test_any_array_comes_back_bit_for_bit(array: np.ndarray) -> None:
    piece = smallest(array.tobytes(), Shape(array.itemsize, array.shape))
    assert decoded(piece, array.nbytes).tobytes() == array.tobytes()
    assert len(piece) <= array.nbytes + 1


@settings(deadline=None, max_examples=8)
@given(
    rows=st.integers(8, 70),
    columns=st.integers(80, 700),
    by_column=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_channels_that_spread_come_back_bit_for_bit(
    *, rows: int, columns: int, by_column: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((rows, columns)) * rng.choice([1.5, 30], (rows, 1))
    codes = np.clip(np.round(weights), -127, 127).astype(np.int8)
    array = np.ascontiguousarray(codes.T) if by_column else codes
    piece = smallest(array.tobytes(), Shape(1, array.shape))
    assert decoded(piece, array.size).tobytes() == array.tobytes()


def test_channels_that_spread_are_smaller_than_their_entropy() -> None:
    codes = KINDS["int8 per tensor, spread channels"]
    for array in (codes, np.ascontiguousarray(codes.T)):
        piece = smallest(array.tobytes(), Shape(1, array.shape))
        assert pieces.NAMES[piece[0]] == "rows"
        assert len(piece) < 0.92 * entropy(count_bytes(array.view(np.uint8))) * array.size / 8


@pytest.mark.parametrize("name", KINDS)
def test_a_tensor_is_within_half_a_percent_and_4_kb_of_its_entropy(name: str) -> None:
    data = KINDS[name].view(np.uint8).reshape(-1)
    piece = smallest(data, Shape(1, KINDS[name].shape))
    assert (decoded(piece, len(data)) == data).all()
    assert len(piece) <= 1.005 * entropy(count_bytes(data)) * len(data) / 8 + 4096
    by_huffman = huffman.make_code(count_bytes(data))
    assert by_huffman is not None
    assert len(piece) <= 1 + len(huffman.encode(data, by_huffman))


def test_each_coding_is_chosen_where_it_is_smallest() -> None:
    rng = np.random.default_rng(0)
    floats = rng.standard_normal(5000).astype(np.float32)
    cases = {
        "raw": rng.integers(0, 256, 3000).astype(np.uint8),
        "huffman": rng.integers(0, 32, 3000).astype(np.uint8),
        "rans": KINDS["90 % pruned, 5 bits"],
        "deflate": np.tile(rng.integers(0, 256, 100), 40).astype(np.uint8),
        "planes": floats,
        "palette": rng.choice(floats[:30], 5000),
        "sparse": np.where(rng.random(5000) < 0.1, floats, 0).astype(np.float32),
    }
    found = {}
    for name, array in cases.items():
        piece = smallest(array.tobytes(), Shape(array.itemsize, array.shape))
        assert decoded(piece, array.nbytes).tobytes() == array.tobytes()
        found[name] = pieces.NAMES[piece[0]]
    assert found == {name: name for name in cases}


@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_zeros_in_a_pattern_cost_what_the_pattern_does(dtype: type) -> None:
    """2:4 has six ways to place four weights: 0.646 bits each, where a half by chance costs 1."""
    rng = np.random.default_rng(0)
    values = rng.permutation(np.arange(-20, 20))[:15]
    weights = rng.choice(values[values != 0], (128, 64, 4)).astype(dtype)
    order = np.argsort(rng.random(weights.shape), axis=-1)[..., :2]
    kept = np.zeros(weights.shape, bool)
    np.put_along_axis(kept, order, values=True, axis=-1)
    array = np.where(kept, weights, 0).astype(dtype)
    piece = smallest(array.tobytes(), Shape(array.itemsize, (128, 256)))
    assert pieces.NAMES[piece[0]] == "sparse"
    assert decoded(piece, array.nbytes).tobytes() == array.tobytes()
    of_values = entropy(np.unique(array[kept], return_counts=True)[1]) / 2
    assert len(piece) < 1.02 * (np.log2(6) / 4 + of_values) * array.size / 8 + 400


@pytest.mark.parametrize("zeros", [0.0, 0.9])
@pytest.mark.parametrize("count", [2, 32, 256])
def test_shared_weights_cost_their_codes_and_one_table(zeros: float, count: int) -> None:
    rng = np.random.default_rng(0)
    table = rng.standard_normal(count).astype(np.float32)
    weights = table[np.clip(rng.normal(count / 2, count / 6, (256, 300)), 0, count - 1).astype(int)]
    weights[rng.random(weights.shape) < zeros] = 0
    piece = smallest(weights.tobytes(), Shape(4, weights.shape))
    assert decoded(piece, weights.nbytes).tobytes() == weights.tobytes()
    held = entropy(np.unique(weights, return_counts=True)[1]) * weights.size / 8
    assert len(piece) <= 1.01 * held + 4 * (count + 1) + 3 * count + 300


def test_entropies_of_known_distributions() -> None:
    assert entropy([0, 0]) == 0
    assert entropy([5, 0]) == 0
    assert entropy([1, 1, 1, 1]) == 2
    assert cross_entropy([1, 1], [1, 3]) == pytest.approx((2 + np.log2(4 / 3)) / 2)
    assert cross_entropy([1, 1], [1, 0]) == np.inf
