"""Seven kinds of quantised weights that coders are held against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt


def tensor_kinds(
    rows: int, columns: int, rng: np.random.Generator
) -> Iterator[tuple[str, npt.NDArray[np.int8]]]:
    """Yield them by name, (rows, columns) each."""
    shape = (rows, columns)

    def per_channel(weights: npt.NDArray[np.float64], most: int) -> npt.NDArray[np.int8]:
        top = np.abs(weights).max(axis=1, keepdims=True)
        return np.asarray(np.round(weights / top * most), np.int8)

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
