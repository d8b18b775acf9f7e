from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.errors import ConfigError
from models.spec import ArchSpec
from pipeline.search import space as spaces
from pipeline.search.space.proxyless import RELEASED, SMALL, ZERO, Op, ProxylessSpace
from pipeline.search.space.stages import Stage
from tests.spec_strategies import REPLAY

SPACE = ProxylessSpace(input=(32, 32, 3), classes=10)
LARGE = ProxylessSpace(input=(224, 224, 3), classes=1000)
TINY = ProxylessSpace(
    input=(16, 16, 1), classes=4, stem=(3, 2, 8), first=8, head=0, stages=(Stage(2, 16, 3),)
)


def _decode(space: ProxylessSpace, *ops: Op | None) -> ArchSpec:
    """Return the network of one option per cell."""
    pairs = zip(space.all_decisions, ops, strict=True)
    return space.decode(tuple(decision.options.index(op) for decision, op in pairs))


def test_the_released_super_net_has_21_cells_and_2e17_networks() -> None:
    assert LARGE.skeleton == RELEASED
    assert LARGE.cardinalities == (6, 7, 7, 7) * 5 + (6,)
    assert LARGE.size == 6**6 * 7**15 == 221_502_229_807_900_608
    names = [decision.name for decision in LARGE.all_decisions]
    assert names[:2] == ["stage1.cell1.op", "stage1.cell2.op"]
    assert SPACE.skeleton == SMALL


def test_decode_writes_the_network_of_the_choices() -> None:
    spec = _decode(TINY, Op(7, 6), ZERO, Op(5, 3))
    assert str(spec) == (
        "16x16x1:same:conv_k3_s2_o8:mb_k3_s1_o8:mb_k7_s2_m48_o16:mb_k5_s1_m48_o16_skip:fc4"
    )


def test_zero_leaves_a_cell_out_only_where_stride_and_width_stay() -> None:
    for space in (SPACE, LARGE, TINY):
        for decision in space.all_decisions:
            first = decision.name.endswith("cell1.op")
            assert (ZERO in decision.options) != first
            assert decision.options[:6] == space.ops
    # A stage that neither steps nor widens can be left out altogether.
    same = replace(TINY, first=16, stages=(Stage(1, 16, 2),))
    assert same.cardinalities == (7, 7)
    assert len(_decode(same, ZERO, ZERO).blocks) == 2


def test_no_choice_changes_the_width_behind_a_cell() -> None:
    channels = 3
    for index, group in enumerate(SPACE.groups):
        chosen = product(*(decision.options for decision in group))
        made = [SPACE.blocks(index, options, channels) for options in chosen]
        widths = {blocks[-1].out if blocks else channels for blocks in made}
        assert len(widths) == 1
        channels = widths.pop()


def test_networks_that_leave_out_different_cells_are_equal() -> None:
    one, other = _decode(TINY, Op(3, 3), Op(5, 6), ZERO), _decode(TINY, Op(3, 3), ZERO, Op(5, 6))
    assert one == other
    assert np.array_equal(TINY.features(one), TINY.features(other))


def test_squeeze_and_excite_is_part_of_the_choice_of_a_cell() -> None:
    space = replace(TINY, se_ratios=(0.0, 0.25), kernels=(3,), gate="hardsigmoid")
    assert list(map(str, space.ops)) == ["k3_e3", "k3_e3_se0.25", "k3_e6", "k3_e6_se0.25"]
    spec = _decode(space, Op(3, 6), Op(3, 3, 0.25), Op(3, 3))
    assert [str(block) for block in spec.blocks[2:]] == [
        "mb_k3_s2_m48_o16", "mb_k3_s1_m48_o16_se4-relu-hardsigmoid_skip", "mb_k3_s1_m48_o16_skip",
    ]  # fmt: skip
    assert spec in space
    assert spec not in TINY


def test_the_activation_is_one_decision_for_the_whole_network() -> None:
    space = replace(TINY, acts=("relu6", "hardswish"))
    assert space.cardinalities == (*TINY.cardinalities, 2)
    assert space.all_decisions[-1].name == "act"
    for act, name in enumerate(space.acts):
        spec = space.decode((5, 6, 1, act))
        assert {block.act for block in spec.blocks} == {name}
        assert space.decode(space.choices(spec)) == spec


def test_widths_are_multiples_and_ends_can_be_absent() -> None:
    space = replace(TINY, first=0, stages=(Stage(1, 21, 1), Stage(2, 30, 2)), channel_multiple=16)
    spec = _decode(space, Op(3, 3), Op(3, 3), ZERO)
    assert [block.out for block in spec.blocks] == [8, 32, 32]  # 16 is below 90 % of 21
    assert replace(space, channel_multiple=1).decode((0, 0, 0)).blocks[1].out == 21


@st.composite
def _tables(draw: st.DrawFn) -> ProxylessSpace:
    stage = st.builds(Stage, st.integers(1, 2), st.sampled_from([8, 12, 20]), st.integers(1, 3))
    return ProxylessSpace(
        input=(draw(st.integers(32, 40)), draw(st.integers(32, 40)), draw(st.integers(1, 3))),
        classes=draw(st.integers(1, 20)),
        stages=tuple(draw(st.lists(stage, min_size=1, max_size=4))),
        stem=(3, draw(st.integers(1, 2)), draw(st.integers(1, 20))),
        first=draw(st.sampled_from([0, 8])),
        head=draw(st.sampled_from([0, 16])),
        expansions=draw(st.sampled_from([(1,), (1, 3), (3, 6)])),
        se_ratios=draw(st.sampled_from([(0.0,), (0.0, 0.25), (0.25, 0.5)])),
        acts=draw(st.sampled_from([("relu",), ("relu6", "hardswish")])),
        channel_multiple=draw(st.sampled_from([1, 8])),
        padding=draw(st.sampled_from(["same", "symmetric"])),
    )


@REPLAY
@given(_tables(), st.integers(0, 2**32))
def test_choices_inverts_decode_up_to_equal_networks(space: ProxylessSpace, seed: int) -> None:
    spec = space.sample(np.random.default_rng(seed))
    assert space.decode(space.choices(spec)) == spec
    assert ArchSpec.parse(str(spec)) == spec


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kernels": [3, 4]}, "space 'proxyless', kernels: 4 is not odd and above 0"),
        ({"kernels": []}, "kernels: empty; give at least one number"),
        ({"expansions": [0]}, "expansions: 0 is not from 1 to 100"),
        ({"expansions": [2.5]}, "expansions'.* 2.5 is not a whole number"),
        ({"se_ratios": [1.5]}, "se_ratios: 1.5 is not from 0 to 1"),
        ({"gate": "tanh"}, "gate: 'tanh'; known: sigmoid, hardsigmoid"),
        ({"acts": ["relu7"]}, "acts: 'relu7'; known: relu6, relu, hardswish"),
        ({"acts": []}, "acts: empty; known: relu6"),
        ({"stages": [[2, 16, 1], [3, 16, 1]]}, "stage 2, stride: 3 is not 1 or 2"),
        ({"stages": [[2, 0, 1]]}, "stage 1, width: 0 is not from 1 to 100000"),
        ({"stages": [[2, 16, 0]]}, "stage 1, layers: 0 is not from 1 to 100"),
        ({"stages": [[2, 16, 101]]}, "stage 1, layers: 101 is not from 1 to 100"),
        ({"stages": [[2, 16, 1, 1]]}, "is not a table of stride, width, layers"),
        ({"stages": [[2, 8, 1]] * 6}, "6 strides of 2 leave nothing of 32 pixels; take a res.* 64"),
        ({"input": [32, 4, 3]}, "3 strides of 2 leave nothing of 4 pixels; take .* of 8 or more"),
        ({"first": -8}, "first: -8 is not 0"),
        ({"head": -1}, "head: -1 is not 0"),
        ({"head": 10**9}, "head: 1000000000 is not 0 .none. or above, at most 100000"),
        ({"stem": [3, 1, 10**9]}, "stem: 1000000000 is not at most 100000"),
        ({"channel_multiple": 0}, "channel_multiple: 0 is not above 0"),
        ({"stem": [4, 1, 8]}, "kernel 4 is not an odd number"),
        ({"stem": [3, 1, 0]}, "channel counts must be whole numbers above 0"),
        ({"padding": "valid"}, "padding is 'valid'; known: same, symmetric"),
        ({"cells": 3}, "no option 'cells'; known: "),
        ({"classes": 0}, "dense layer fc0"),
    ],
)
def test_wrong_options_are_one_clear_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        spaces.create("proxyless", **{"input": [32, 32, 3], "classes": 10, **options})
