"""The signal-to-quantisation-noise ratio in decibels."""

from __future__ import annotations

import math

NOTHING = 1e-30
"""A difference so small is none: kernels may take such numbers for 0."""


def to_decibels(signal: float, noise: float) -> float:
    """Return 10 log10 of a power over another.

    Infinite without noise, whatever the signal. Noise that is no number gives no number, which no
    limit lets pass, nor the median of values that holds one. Endless noise, of what overflowed,
    gives minus infinity, and so does no signal beside some noise.
    """
    if noise == 0:
        return math.inf
    if math.isnan(noise):
        return math.nan
    ratio = signal / noise
    return 10 * math.log10(ratio) if ratio > 0 else -math.inf
