"""What follows from two latencies, in a sentence."""

from __future__ import annotations

import pytest

from pipeline.evaluate.two_files import TwoFiles


@pytest.mark.parametrize(
    ("ratio", "interval", "sentence"),
    [
        (0.5, (0.48, 0.52), "b is 2.00 times as fast on pi (5.0000 against 10.0000 ms"),
        (2.0, (1.9, 2.1), "a is 2.00 times as fast on pi"),
        (1.0, (0.99, 1.01), "both are as fast on pi"),
        (0.97, (0.9, 1.05), "they are not told apart on pi"),
        (0.985, (0.975, 0.99), "they are not told apart on pi"),
    ],
)
def test_a_person_can_act_on_it(ratio: float, interval: tuple[float, float], sentence: str) -> None:
    found = TwoFiles(10.0, 10 * ratio, ratio, interval, in_turns=True, verdict="valid")
    assert sentence in found.sentence("a", "b", "pi")
