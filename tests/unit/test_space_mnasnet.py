from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.errors import ConfigError
from models import zoo
from models.spec import ArchSpec
from pipeline.search import space as spaces
from pipeline.search.space.mnasnet import MOBILENET_V2, SMALL, MnasNetSpace
from pipeline.search.space.stages import Stage, round_channels
from tests.spec_strategies import REPLAY

SPACE = MnasNetSpace(input=(32, 32, 3), classes=10)
LARGE = MnasNetSpace(input=(224, 224, 3), classes=1000)
NAMES = [decision.name for decision in SPACE.all_decisions]
A1 = MnasNetSpace(
    input=(224, 224, 3),
    classes=1000,
    acts=("relu",),
    ops=("conv", "mb1", "mb3", "mb6"),
    stages=(
        Stage(1, 16, 1), Stage(2, 24, 2), Stage(2, 40, 3), Stage(2, 80, 4), Stage(1, 112, 2),
        Stage(2, 160, 3), Stage(1, 320, 1),
    ),
)  # fmt: skip


def _choices(space: MnasNetSpace, *chosen: tuple[Any, ...]) -> tuple[int, ...]:
    """Return the choice vector of one option row per stage."""
    options = [decision.options for group in space.groups for decision in group]
    flat = [value for row in chosen for value in row]
    return tuple(o.index(v) for o, v in zip(options, flat, strict=True))


def test_size_is_the_paper_s() -> None:
    assert np.prod(SPACE.cardinalities[:6]) == 432
    assert SPACE.size == 432**5 == 15_045_919_506_432  # "1.5e13" for B = 5
    assert LARGE.size == 432**7


def test_decode_writes_the_network_of_the_choices() -> None:
    space = MnasNetSpace(
        input=(32, 32, 1), classes=10, stages=(Stage(2, 24, 2), Stage(1, 24, 1)), head=64
    )
    chosen = (("mb3", 5, 0.25, "identity", 24, 0), ("conv", 3, 0.0, "pool", 24, 1))
    assert str(space.decode(_choices(space, *chosen))) == (
        "32x32x1:same:conv_k3_s1_o16"
        ":mb_k5_s2_m48_o24_se4-relu-sigmoid:mb_k5_s1_m72_o24_se6-relu-sigmoid_skip"
        ":conv_k3_s1_o24_poolskip:conv_k3_s1_o24_poolskip"
        ":conv_k1_s1_o64:fc10"
    )


def test_layers_of_a_stage_are_alike_and_only_the_first_has_the_stride() -> None:
    spec = LARGE.decode(tuple(count - 1 for count in LARGE.cardinalities))
    layers = list(spec.blocks[1:-1])
    for stage in MOBILENET_V2.stages:
        own, layers = layers[: stage.layers + 1], layers[stage.layers + 1 :]
        assert [block.stride for block in own] == [stage.stride] + [1] * stage.layers
        assert len({(b.op, b.kernel, b.out, b.se is None) for b in own}) == 1
        assert len({(b.mid, b.se, b.skip) for b in own[1:]}) == 1
    assert not layers


def test_no_head_and_default_skeletons() -> None:
    assert SPACE.skeleton == SMALL
    assert LARGE.skeleton == MOBILENET_V2
    assert replace(SPACE, head=0).decode((0,) * 30).blocks[-1].kernel == 3


@pytest.mark.parametrize("name", ["mnasnet-a1", "mobilenet-v2"])
def test_published_networks_are_in_spaces_with_their_widths(name: str) -> None:
    spec = zoo.get(name)
    space = A1 if name == "mnasnet-a1" else replace(LARGE, ops=("mb1", "mb6"))
    assert spec in space
    assert space.decode(space.choices(spec)) == spec


def test_only_exact_networks_are_in_the_space() -> None:
    a1, spec = zoo.get("mnasnet-a1"), SPACE.decode((0,) * 30)
    assert a1 not in LARGE  # 112 filters are not on the paper's grid
    assert a1 not in replace(A1, acts=("relu6",))
    assert a1 not in replace(A1, gate="hardsigmoid")
    assert spec in SPACE
    assert spec.with_classes(11) not in SPACE
    assert spec.with_input(32, 32, 1) not in SPACE
    assert replace(spec, padding="symmetric") not in SPACE
    assert replace(spec, blocks=spec.blocks[:-1]) not in SPACE
    assert replace(spec, blocks=(*spec.blocks, spec.blocks[-1])) not in SPACE
    assert "a string" not in SPACE
    with pytest.raises(ValueError, match="is not in space 'mnasnet'"):
        SPACE.choices(a1)


def test_widths_given_outright_are_taken_as_they_are() -> None:
    # The released MnasNet-A1 has 112 filters where the paper's grid has 72, 96 and 120.
    widths = ((16,), (24,), (32, 40), (64, 80), (72, 96, 112, 120), (160,), (320,))
    space = replace(A1, stages=(), widths=widths)
    assert zoo.get("mnasnet-a1") in space
    assert zoo.get("mnasnet-a1") not in replace(space, widths=())
    offered = [d.options for d in space.all_decisions if d.name.endswith(".width")]
    assert offered == list(widths)
    odd = replace(SPACE, stages=(Stage(2, 8, 1),), widths=((13,),))
    assert odd.decode((0,) * 6).blocks[1].out == 13


def test_the_activation_is_one_decision_for_the_whole_network() -> None:
    space = replace(SPACE, acts=("relu6", "hardswish"))
    assert [d.name for d in space.all_decisions] == [*NAMES, "act"]
    spec = SPACE.sample(np.random.default_rng(3))
    chosen = SPACE.choices(spec)
    assert space.decode((*chosen, 0)) == spec
    other = space.decode((*chosen, 1))
    assert {block.act for block in other.blocks} == {"hardswish"}
    assert tuple(replace(block, act="relu6") for block in other.blocks) == spec.blocks
    assert space.choices(other) == (*chosen, 1)
    assert other not in SPACE
    mixed = replace(spec, blocks=(*spec.blocks[:-1], other.blocks[-1]))
    assert mixed not in space
    assert replace(spec, blocks=tuple(replace(b, act="silu") for b in spec.blocks)) not in space


def test_where_a_stage_ends_is_found_by_going_back() -> None:
    # Two stages alike, of 1 to 3 and of 1 to 2 layers: five layers can only be 3 + 2.
    space = MnasNetSpace(
        input=(8, 8, 8), classes=2, stem=(3, 1, 8), head=0,
        stages=(Stage(1, 8, 2), Stage(1, 8, 1)), layer_offsets=(-1, 0, 1), width_factors=(1.0,),
    )  # fmt: skip
    longest = tuple(count - 1 for count in space.cardinalities)
    spec = space.decode(longest)
    assert len(spec.blocks) == 1 + 3 + 2
    assert space.decode(space.choices(spec)) == spec


@st.composite
def _skeletons(draw: st.DrawFn) -> MnasNetSpace:
    stage = st.builds(Stage, st.integers(1, 2), st.integers(1, 40), st.integers(1, 3))
    return MnasNetSpace(
        input=(draw(st.integers(32, 40)), draw(st.integers(32, 40)), draw(st.integers(1, 3))),
        classes=draw(st.integers(1, 20)),
        stages=tuple(draw(st.lists(stage, min_size=1, max_size=4))),
        stem=(3, 2, draw(st.integers(1, 20))),
        head=draw(st.sampled_from([0, 16])),
        channel_multiple=draw(st.sampled_from([1, 4, 8])),
        padding=draw(st.sampled_from(["same", "symmetric"])),
    )


@REPLAY
@given(_skeletons(), st.integers(0, 2**32))
def test_choices_inverts_decode_up_to_equal_networks(space: MnasNetSpace, seed: int) -> None:
    spec = space.sample(np.random.default_rng(seed))
    assert space.decode(space.choices(spec)) == spec
    assert ArchSpec.parse(str(spec)) == spec
    assert np.array_equal(space.encode(spec), space.encode(space.decode(space.choices(spec))))


@REPLAY
@given(st.floats(0.5, 2000), st.integers(1, 32))
def test_rounded_widths(channels: float, multiple: int) -> None:
    rounded = round_channels(channels, multiple)
    assert rounded % multiple == 0
    assert rounded >= max(multiple, 0.9 * channels)
    assert rounded == multiple or rounded - multiple < max(channels, 0.9 * channels)


def test_mutation_changes_one_decision_and_reaches_all() -> None:
    rng = np.random.default_rng(0)
    spec = SPACE.sample(rng)
    while not any(block.skip == "pool" for block in spec.blocks):
        spec = SPACE.sample(rng)
    before, changed = SPACE.choices(spec), Counter[str]()
    for _ in range(600):
        mutant = SPACE.mutate(spec, rng)
        assert mutant != spec
        after = SPACE.choices(mutant)
        # A width can decide whether a skip is possible, then the skip's representative moves too.
        decisions = [d for d, a, b in zip(NAMES, before, after, strict=True) if a != b]
        assert [d for d in decisions if not d.endswith(".skip")][1:] == []
        changed.update(decisions)
    possible = {d for d in NAMES if not d.endswith(".skip")}
    assert possible <= set(changed)


def test_a_space_of_one_network_cannot_mutate() -> None:
    space = MnasNetSpace(
        input=(8, 8, 1), classes=2, stages=(Stage(2, 8, 1),), ops=("ds",), kernels=(3,),
        se_ratios=(0.0,), width_factors=(0.9, 1.0), layer_offsets=(-1, 0),
    )  # fmt: skip
    assert space.size == 12  # and all of them are equal
    with pytest.raises(ConfigError, match="nothing one decision away"):
        space.mutate(space.decode((0,) * 6), np.random.default_rng(0))


@pytest.mark.parametrize("choices", [(0,) * 29, (0,) * 31, (4,) + (0,) * 29, (-1,) + (0,) * 29, ()])
def test_a_wrong_choice_vector_is_refused(choices: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="is no choice vector"):
        SPACE.decode(choices)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"ops": ["mb4"]}, "ops: 'mb4'; known: conv, ds, mb1, mb3, mb6"),
        ({"ops": []}, "ops: empty; known: conv"),
        ({"skips": ["poolskip"]}, "skips: 'poolskip'; known: none, identity, pool"),
        ({"gate": "tanh"}, "gate: 'tanh'; known: sigmoid, hardsigmoid"),
        ({"acts": ["gelu"]}, "acts: 'gelu'; known: relu6"),
        ({"acts": []}, "acts: empty; known: relu6"),
        ({"padding": "valid"}, "padding is 'valid'; known: same, symmetric"),
        ({"kernels": [4]}, "kernels: 4 is not odd and above 0"),
        ({"kernels": []}, "kernels: empty"),
        ({"se_ratios": [-0.25]}, "se_ratios: -0.25 is not from 0 to 1"),
        ({"width_factors": [0.0]}, "width_factors: 0.0 is not above 0"),
        ({"width_factors": [float("inf")]}, "width_factors: inf is not above 0, at most 100"),
        ({"widths": [[16]]}, "widths: 1 lists for 5 stages; give one list for each stage"),
        ({"stages": [[2, 8, 1]], "widths": [[]]}, "widths of stage 1: empty"),
        ({"stages": [[2, 8, 1]], "widths": [[0]]}, "widths of stage 1: 0 is not from 1"),
        ({"layer_offsets": []}, "layer_offsets: empty"),
        ({"channel_multiple": 0}, "channel_multiple: 0 is not above 0"),
        ({"head": -1}, "head: -1 is not 0"),
        ({"stages": [[3, 16, 1]]}, "stage 1, stride: 3 is not 1 or 2"),
        ({"stages": [[2, 8, 1]] * 6}, "6 strides of 2 leave nothing of 32 pixels; take a res.* 64"),
        ({"stages": [[1, 0, 1]]}, "stage 1, width: 0 is not from 1 to 100000"),
        ({"stages": [[1, 8, 1], [1, 8, 0]]}, "stage 2, layers: 0 is not from 1 to 100"),
        ({"stages": [[1, 16]]}, "item 0 needs the option 'layers'"),
        ({"stem": [3, 1]}, "'stem'.* has 2 items, not 3"),
        ({"stem": [2, 1, 16]}, "kernel 2 is not an odd number"),
        ({"stagess": []}, r"no option 'stagess'; did you mean 'stages'\? known: stages"),
        ({"classes": 0}, "dense layer fc0"),
    ],
)
def test_wrong_options_are_one_clear_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        spaces.create("mnasnet", **{"input": [32, 32, 3], "classes": 10, **options})
