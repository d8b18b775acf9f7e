"""How many layers are left in float32, and how many files are tried to find it."""

from __future__ import annotations

from itertools import pairwise
from math import ceil, log2

import numpy as np
import pytest

from device_agents.errors import TargetError
from models.fold import random_weights
from models.graph import GraphBuilder
from models.model import Model
from models.ops import Dense
from pipeline.compress.back_off import back_off
from pipeline.compress.judging import Lost
from pipeline.compress.passes.ptq import calibrate_all
from pipeline.compress.sensitivity import LayerLoss

LAYERS = 13


def chain() -> Model:
    builder = GraphBuilder()
    names = [builder.input("x", (1, 4)), *(f"layer{n}" for n in range(LAYERS))]
    for before, name in pairwise(names):
        builder.op("dense", name, [before], Dense(4))
    rng = np.random.default_rng(0)
    model = Model(builder.graph(), random_weights(builder.graph(), rng))
    return calibrate_all(model, {"x": rng.standard_normal((8, 4), np.float32)})


def losses() -> list[LayerLoss]:
    """Return all layers, the first the costliest, each by its weights alone."""
    return [
        LayerLoss(f"layer{n}", "dense", -1, 1, 0.01, "int8", 20, 20, 0.1, weight_share=1)
        for n in range(LAYERS)
    ]


@pytest.mark.parametrize("needed", range(LAYERS + 1))
def test_as_few_layers_as_it_takes_are_left_by_a_bounded_number_of_files(needed: int) -> None:
    model, asked = chain(), []

    def judge(candidate: Model) -> Lost:
        assert candidate.quantization is not None
        asked.append(len(candidate.quantization.float_ops))
        return Lost(0.0 if asked[-1] >= needed else 50.0)

    found = back_off(model, judge, losses, most=1)
    assert found.left == tuple(f"layer{n}" for n in range(needed))
    assert [count for count, _ in found.tried] == asked
    assert len(asked) <= 2 * ceil(log2(LAYERS)) + 2
    assert found.lost.points == 0


def test_what_no_layer_helps_is_refused_with_the_number_of_files() -> None:
    with pytest.raises(TargetError, match=r"loses 50\.00 points, at most 1 points .* 6 files"):
        back_off(chain(), lambda _: Lost(50.0), losses, most=1)
