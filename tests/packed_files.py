"""Bytes and packed files for the tests of coding."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from device_agents.agent.packed import container
from device_agents.model_files.weights import Weights
from pipeline.coding import pack

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt


def tensor_kinds(
    rows: int, columns: int, rng: np.random.Generator
) -> Iterator[tuple[str, npt.NDArray[np.int8]]]:
    """Yield the seven kinds of quantised weights that coders are held against, by name."""
    shape = (rows, columns)

    def per_channel(weights: npt.NDArray[np.float64], most: int) -> npt.NDArray[np.int8]:
        top = np.abs(weights).max(axis=1, keepdims=True)
        return np.round(weights / top * most).astype(np.int8)

    def pruned(share: float) -> npt.NDArray[np.int8]:
        weights = rng.standard_normal(shape)
        kept = np.abs(weights) >= np.quantile(np.abs(weights), share)
        codes = np.round(weights / np.abs(weights).max() * 15)
        codes[kept & (codes == 0)] = 1
        return np.where(kept, codes, 0).astype(np.int8)

    normal = rng.standard_normal(shape)
    spread = normal * np.exp(rng.standard_normal((rows, 1)))
    yield "int8 per channel, normal", per_channel(normal, 127)
    yield "int8 per channel, Laplace", per_channel(rng.laplace(size=shape), 127)
    yield (
        "int8 per tensor, spread channels",
        np.round(spread / np.abs(spread).max() * 127).astype(np.int8),
    )
    yield "int4 per channel, normal", per_channel(normal, 7)
    yield "60 % pruned, 5 bits", pruned(0.6)
    yield "90 % pruned, 5 bits", pruned(0.9)
    signs = np.sign(rng.standard_normal(shape))
    yield "ternary, 95 % zeros", (signs * (rng.random(shape) < 0.05)).astype(np.int8)


def unpacked(content: bytes) -> bytes:
    """Return what a packed file holds."""
    target = io.BytesIO()
    container.unpack(io.BytesIO(content), len(content), target)
    return target.getvalue()


@cache
def small_packed() -> tuple[bytes, bytes]:
    """Return a file and what it is packed: with a piece of every coding, and little of each."""
    rng = np.random.default_rng(7)
    kinds = [codes for _, codes in tensor_kinds(16, 300, rng)]
    spread = next(tensor_kinds(16, 300, rng))[1].astype(np.int16)
    spread = np.round(spread / np.geomspace(1, 60, 16)[:, None]).astype(np.int8)
    floats = rng.standard_normal((16, 300)).astype(np.float32)
    shared = rng.choice(floats.reshape(-1)[:30], (16, 300))
    sparse = np.where(rng.random((16, 300)) < 0.1, floats, 0).astype(np.float32)
    content, found = bytearray(b"head"), []
    for number, array in enumerate([*kinds, spread, spread.T.copy(), floats, shared, sparse]):
        size, dims = array.nbytes, array.shape
        found.append(
            Weights(f"t{number}", str(array.dtype), array.itemsize, dims, len(content), size)
        )
        content += array.tobytes() + b"gap"
    packed = pack(bytes(content), found)
    return bytes(content), packed.content
