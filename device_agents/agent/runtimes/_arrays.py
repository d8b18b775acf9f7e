"""Random inputs for the runtimes; needs numpy, which every runtime brings."""

from typing import Any, Sequence

import numpy as np


def random_array(seed: int, dtype: Any, shape: Sequence[int]) -> Any:
    """Return a seeded array: floats in [0, 1), 8-bit integers over their range, others 0 or 1."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return rng.random(tuple(shape), np.float32).astype(kind)
    if kind.itemsize == 1 and kind.kind in "iu":
        limits = np.iinfo(kind)
        return rng.integers(limits.min, limits.max, tuple(shape), kind, endpoint=True)
    # Wider integers are usually indices: 0 and 1 are in range of nearly every table.
    return rng.integers(0, 2, tuple(shape)).astype(kind)
