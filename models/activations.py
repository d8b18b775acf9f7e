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


def _softplus(x: Array) -> Array:
    soft: Array = np.logaddexp(x, x.dtype.type(0))
    return soft


def _gelu(x: Array) -> Array:
    from scipy.special import erf  # only who needs it waits for its import

    half: Array = 0.5 * x * (1 + erf(x * x.dtype.type(0.5**0.5)))
    return half.astype(x.dtype)


def _gelu_tanh(x: Array) -> Array:
    half: Array = 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))
    return half.astype(x.dtype)


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "hardswish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "silu": lambda x: x * _sigmoid(x),
    "sigmoid": _sigmoid,
    "hardsigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "tanh": np.tanh,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "softplus": _softplus,
    "mish": lambda x: x * np.tanh(_softplus(x)),
}
