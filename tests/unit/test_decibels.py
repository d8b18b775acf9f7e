"""What ratios are worth in decibels, those of no number and without end included."""

from __future__ import annotations

import math

import pytest

from pipeline.formats.decibels import to_decibels


@pytest.mark.parametrize(
    ("signal", "noise", "wanted_db"),
    [
        (100.0, 1.0, 20.0),
        (0.0, 0.0, math.inf),
        (0.0, 1.0, -math.inf),
        (1.0, math.inf, -math.inf),
        (math.inf, math.inf, -math.inf),
        (1e-300, 1e300, -math.inf),
        (1.0, math.nan, math.nan),
    ],
)
def test_a_ratio_in_decibels(signal: float, noise: float, wanted_db: float) -> None:
    assert to_decibels(signal, noise) == pytest.approx(wanted_db, nan_ok=True)
