"""What each activation means, fused into an op or an op of its own. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Array = npt.NDArray[Any]

FUSED_ACTIVATIONS = ("none", "relu", "relu6")
"""Those that runtimes fuse into the op before."""


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        gate: Array = 1 / (1 + np.exp(-x))
    return gate


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "silu": lambda x: x * _sigmoid(x),
    "sigmoid": _sigmoid,
    "hardsigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
}
