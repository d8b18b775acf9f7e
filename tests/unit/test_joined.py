"""Which layers are left in float32 first, where several cost about the same."""

from __future__ import annotations

from itertools import pairwise

import pytest

from models.graph import Graph, GraphBuilder
from models.ops import Dense
from pipeline.compress.joined import count_conversions, join_groups
from pipeline.compress.sensitivity import LayerLoss


def chain(count: int = 6) -> Graph:
    builder = GraphBuilder()
    names = [builder.input("x", (1, 4)), *(f"layer{n}" for n in range(count))]
    for before, name in pairwise(names):
        builder.op("dense", name, [before], Dense(4))
    return builder.graph()


def order(*shares: tuple[int, float], floats: tuple[str, ...] = ()) -> list[int]:
    """Return the numbers of layers in the order in which they are left."""
    losses = [
        LayerLoss(f"layer{n}", "dense", -1, 1, 0.01, "int8", 20, 20, share, weight_share=1)
        for n, share in shares
    ]
    groups = [frozenset({loss.name}) for loss in losses]
    found = join_groups(chain(), losses, groups, floats)
    return [int(min(group).removeprefix("layer")) for group in found]


@pytest.mark.parametrize(
    ("floats", "turned"),
    [
        ((), 0),
        (("layer0",), 1),
        (("layer2",), 2),
        (("layer2", "layer3"), 2),
        (("layer1", "layer4"), 4),
    ],
)
def test_what_is_turned_between_codes_and_real_numbers_is_counted(
    floats: tuple[str, ...], turned: int
) -> None:
    assert count_conversions(chain(), floats) == turned


def test_of_layers_that_cost_alike_those_come_first_that_lie_together() -> None:
    # 2 is the costliest; 4 and 3 cost alike, and 3 is beside it.
    assert order((2, 0.5), (4, 0.2), (3, 0.19), (0, 0.05)) == [2, 3, 4, 0]


def test_a_layer_that_costs_clearly_more_comes_first_wherever_it_is() -> None:
    assert order((2, 0.5), (4, 0.3), (3, 0.1), (1, 0.05)) == [2, 4, 3, 1]


def test_what_is_real_already_counts() -> None:
    assert order((4, 0.3), (1, 0.29), floats=("layer0",)) == [1, 4]
    assert order((4, 0.3), (1, 0.29)) == [4, 1]
