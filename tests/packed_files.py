"""Bytes and packed files for the tests of coding."""

from __future__ import annotations

import io
from functools import cache

import numpy as np

from device_agents.agent.packed import container
from device_agents.model_files.weights import Weights
from pipeline.coding import pack
from scripts._weight_kinds import tensor_kinds


def unpacked(content: bytes) -> bytes:
    """Return what a packed file holds."""
    target = io.BytesIO()
    container.unpack(io.BytesIO(content), len(content), target)
    return target.getvalue()


@cache
def small_packed() -> tuple[bytes, bytes]:
    """Return a file and what it is packed: with a piece of every coding, and little of each."""
    rng = np.random.default_rng(7)
    kinds = [codes for _, codes in tensor_kinds(16, 80, rng)]
    spread = next(tensor_kinds(16, 300, rng))[1].astype(np.int16)
    spread = np.round(spread / np.geomspace(1, 60, 16)[:, None]).astype(np.int8)
    floats = rng.standard_normal((16, 80)).astype(np.float32)
    shared = rng.choice(floats.reshape(-1)[:30], (16, 80))
    sparse = rng.standard_normal((16, 300)) * (rng.random((16, 300)) < 0.1)
    more = (spread, spread.T.copy(), floats, shared, sparse.astype(np.float32))
    content, found = bytearray(b"head"), []
    for number, array in enumerate([*kinds, *more]):
        size, dims = array.nbytes, array.shape
        found.append(
            Weights(f"t{number}", str(array.dtype), array.itemsize, dims, len(content), size)
        )
        content += array.tobytes() + b"gap"
    packed = pack(bytes(content), found)
    return bytes(content), packed.content
