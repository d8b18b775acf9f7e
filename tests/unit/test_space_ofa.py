from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.errors import ConfigError
from models.spec import ArchSpec
from pipeline.search import space as spaces
from pipeline.search.space.ofa_mobilenet_v3 import OfaMobileNetV3Space
from pipeline.search.space.ofa_proxyless import OfaProxylessSpace
from pipeline.search.space.stages import ElasticStage
from tests.spec_strategies import REPLAY

if TYPE_CHECKING:
    from pipeline.search.space.once_for_all import OnceForAllSpace

V3 = OfaMobileNetV3Space(input=(224, 224, 3), classes=1000)
PROXYLESS = OfaProxylessSpace(input=(224, 224, 3), classes=1000)
TINY = OfaMobileNetV3Space(
    input=(32, 32, 1), classes=4, stem=(3, 1, 8), first=8, head=24, feature_mix=32,
    stages=(ElasticStage(2, 16, "relu", se=True), ElasticStage(1, 16, "hardswish")),
    depths=(1, 2), kernels=(3, 5), expansions=(2, 4), resolutions=(24, 32),
)  # fmt: skip


def test_decode_writes_the_network_of_the_choices() -> None:
    #        depth 2, k5 e2, k3 e4; depth 1, k3 e4, (skipped); resolution 24
    spec = TINY.decode((1, 1, 0, 0, 1, 0, 0, 1, 1, 1, 0))
    assert str(spec) == (
        "24x24x1:same:conv_k3_s1_o8_hardswish:mb_k3_s1_o8_relu_skip"
        ":mb_k5_s2_m16_o16_relu_se8-relu-hardsigmoid"
        ":mb_k3_s1_m64_o16_relu_se16-relu-hardsigmoid_skip"
        ":mb_k3_s1_m64_o16_hardswish"
        ":conv_k1_s1_o24_hardswish:fc32_hardswish:fc4"
    )
    assert TINY.choices(spec) == (1, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0)


def test_full_is_the_largest_option_of_every_decision() -> None:
    assert TINY.full == TINY.decode(tuple(count - 1 for count in TINY.cardinalities))
    backwards = replace(
        TINY, depths=(2, 1), kernels=(5, 3), expansions=(4, 2), resolutions=(32, 24)
    )
    assert backwards.full == TINY.full
    assert backwards.full == backwards.decode((0,) * len(backwards.cardinalities))


@pytest.mark.parametrize(
    ("width", "stem", "stages", "head", "mix"),
    [
        (1.0, 16, [24, 40, 80, 112, 160], 960, 1280),
        (1.2, 24, [32, 48, 96, 136, 192], 1152, 1536),
    ],
)
def test_widths_of_mobilenet_v3(
    width: float, stem: int, stages: list[int], head: int, mix: int
) -> None:
    full = replace(V3, width=width).full
    assert [full.blocks[0].out, full.blocks[1].out] == [stem, stem]
    assert [b.out for b in full.blocks[2:-1]] == [w for w in stages for _ in range(4)]
    assert (full.blocks[-1].out, full.dense[0].units) == (head, mix)
    assert full.blocks[1].skip == "identity"


def test_widths_of_proxyless_with_a_last_stage_of_one_layer() -> None:
    full = replace(PROXYLESS, width=1.3).full
    widths = [32, 56, 104, 128, 248]
    assert [b.out for b in full.blocks[2:-1]] == [w for w in widths for _ in range(4)] + [416]
    assert [full.blocks[0].out, full.blocks[1].out, full.blocks[-1].out] == [40, 24, 1664]
    assert len(full.dense) == 1
    assert PROXYLESS.cardinalities[-4:] == (1, 3, 3, 1)


def test_a_stage_begins_at_every_layer_without_a_shortcut() -> None:
    # What a supernet reads from a network alone.
    rng = np.random.default_rng(1)
    for space in (V3, PROXYLESS, TINY):
        spec = space.sample(rng)
        first, *layers = [block for block in spec.blocks if block.op == "mb"]
        starts = [block for block in layers if block.skip == "none"]
        assert [block.stride for block in starts] == [s.stride for s in space.skeleton.stages]
        assert first.mid == 0
        assert all(block.mid for block in layers)


def test_size_counts_choices_and_the_paper_counts_networks() -> None:
    assert V3.size == (3 * 9**4) ** 5
    space = replace(TINY, stages=TINY.stages[:1], resolutions=(32,))
    vectors = list(product(*map(range, space.cardinalities)))
    assert space.size == len(vectors) == 2 * 4**2
    assert len({space.decode(vector) for vector in vectors}) == 4 + 4**2
    per_layer = len(V3.kernels) * len(V3.expansions)
    networks = sum(per_layer**depth for depth in V3.depths) ** len(V3.skeleton.stages)
    assert round(networks, -19) == 2 * 10**19  # "2e19" for one resolution


def test_layers_beyond_the_depth_make_no_difference() -> None:
    # Stage 1 has one layer, whatever is said about its second.
    same = [TINY.decode((0, 1, 1, k, e, 1, 0, 0, 0, 0, 1)) for k in (0, 1) for e in (0, 1)]
    assert len(set(same)) == 1
    assert TINY.choices(same[-1]) == (0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 1)


def test_features_are_the_accuracy_predictor_s() -> None:
    spec = TINY.decode((0, 1, 0, 1, 1, 1, 0, 1, 1, 0, 0))
    kernels = [0, 1, 0, 0, 1, 0, 0, 1]  # layer 2 of stage 1 is not there
    expansions = [1, 0, 0, 0, 0, 1, 1, 0]
    assert TINY.features(spec).tolist() == [*kernels, *expansions, 1, 0]
    assert len(replace(V3, resolutions=(160, 192, 224)).features(V3.full)) == 20 * 3 + 20 * 3 + 3


def test_a_child_has_no_layer_that_neither_parent_has() -> None:
    space = replace(TINY, kernels=(3, 5, 7), expansions=(2, 4, 6))
    deep = space.decode((1, 2, 2, 2, 2, 1, 2, 2, 2, 2, 1))
    shallow = space.decode((0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0))
    rng = np.random.default_rng(0)
    depths = set()
    for _ in range(40):
        child = space.crossover(deep, shallow, rng)
        layers = [b for b in child.blocks if b.op == "mb" and b.mid]
        assert all(b.kernel in (5, 7) for b in layers)  # 3 stands only for layers not there
        assert all(b.kernel == 7 for b in layers if b.skip == "identity")
        depths.add(len(layers))
    assert depths == {2, 3, 4}


def test_resolution_is_in_the_network_and_keeps_the_proportion() -> None:
    space = replace(V3, input=(128, 192, 3), resolutions=(96, 128, 160))
    assert space.inputs == ((96, 144, 3), (128, 192, 3), (160, 240, 3))
    assert space.full.input == (160, 240, 3)
    assert space.full.with_input(96, 144, 3) in space
    assert space.full.with_input(96, 96, 3) not in space
    assert replace(V3, resolutions=()).full.input == V3.input


def test_one_activation_and_squeeze_and_excite_for_all() -> None:
    plain = replace(V3, act="relu6", se=False).full
    assert {block.act for block in plain.blocks} == {"relu6"} == {plain.dense[0].act}
    assert all(block.se is None for block in plain.blocks)
    assert all(b.se for b in replace(PROXYLESS, se=True).full.blocks if b.mid)


def test_a_restricted_space_is_part_of_the_whole() -> None:
    rng = np.random.default_rng(2)
    part = replace(TINY, kernels=(5,), depths=(2,), resolutions=(32,))
    for _ in range(10):
        spec = part.sample(rng)
        assert spec in TINY
    assert part.full == TINY.full
    assert TINY.decode((0,) * 11) not in part


def test_only_exact_networks_are_in_the_space() -> None:
    spec = TINY.full
    last = spec.blocks[-1]
    for stranger in (
        spec.with_classes(5),
        spec.with_input(28, 28, 1),
        replace(spec, padding="symmetric"),
        replace(spec, dense=spec.dense[1:]),
        replace(spec, blocks=spec.blocks[:-1]),
        replace(spec, blocks=spec.blocks[:3]),
        replace(spec, blocks=(*spec.blocks[:-1], replace(last, out=32))),
        replace(spec, blocks=(replace(spec.blocks[0], kernel=5), *spec.blocks[1:])),
        replace(spec, blocks=()),
        V3.full,
    ):
        assert stranger not in TINY
        with pytest.raises(ValueError, match="is not in space 'ofa_mobilenet_v3'"):
            TINY.choices(stranger)
    for index in range(2, len(spec.blocks) - 1):
        block = spec.blocks[index]
        for other in (
            replace(block, kernel=9), replace(block, mid=block.mid + 8), replace(block, mid=0),
            replace(block, act="silu"), replace(block, se=None if block.se else spec.blocks[2].se),
        ):  # fmt: skip
            changed = (*spec.blocks[:index], other, *spec.blocks[index + 1 :])
            assert replace(spec, blocks=changed) not in TINY


@st.composite
def _tables(draw: st.DrawFn) -> OnceForAllSpace:
    depths = st.sampled_from([(1,), (2,), (1, 2), (3, 1)])
    stage = st.builds(
        ElasticStage, st.integers(1, 2), st.sampled_from([8, 12, 20]),
        st.sampled_from(["relu", "hardswish"]), st.booleans(), st.one_of(st.just(()), depths),
    )  # fmt: skip
    return draw(st.sampled_from([OfaMobileNetV3Space, OfaProxylessSpace]))(
        input=(draw(st.integers(32, 40)), draw(st.integers(32, 40)), draw(st.integers(1, 3))),
        classes=draw(st.integers(1, 20)),
        stages=tuple(draw(st.lists(stage, min_size=1, max_size=4))),
        stem=(3, draw(st.integers(1, 2)), draw(st.integers(1, 20))),
        first=draw(st.sampled_from([0, 8])),
        head=draw(st.sampled_from([0, 16])),
        feature_mix=draw(st.sampled_from([0, 24])),
        expansions=draw(st.sampled_from([(1,), (1, 3), (1.5, 6)])),
        depths=draw(depths),
        resolutions=draw(st.sampled_from([(), (32,), (64, 40)])),
        width=draw(st.sampled_from([0.5, 1.0, 1.3])),
        channel_multiple=draw(st.sampled_from([1, 8])),
        padding=draw(st.sampled_from(["same", "symmetric"])),
    )


@REPLAY
@given(_tables(), st.integers(0, 2**32))
def test_choices_inverts_decode_up_to_equal_networks(space: OnceForAllSpace, seed: int) -> None:
    spec = space.sample(np.random.default_rng(seed))
    assert space.decode(space.choices(spec)) == spec
    assert ArchSpec.parse(str(spec)) == spec
    assert space.full in space


@pytest.mark.parametrize("name", ["ofa_mobilenet_v3", "ofa_proxyless"])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kernels": [3, 4]}, "kernels: 4 is not odd and above 0"),
        ({"expansions": [0.5]}, "expansions: 0.5 is not from 1 to 100"),
        ({"expansions": []}, "expansions: empty; give at least one number"),
        ({"depths": [0, 2]}, "depths: 0 is not from 1 to 100"),
        ({"depths": [10**9]}, "depths: 1000000000 is not from 1 to 100"),
        ({"stages": [[2, 16], [3, 16]]}, "stage 2, stride: 3 is not 1 or 2"),
        ({"stages": [[2, 0]]}, "stage 1, width: 0 is not from 1 to 100000"),
        ({"stages": [[2, 16, "relu", True, [0]]]}, "stage 1, layers: 0 is not from 1 to 100"),
        ({"stages": [[2, 16, "gelu"]]}, "activation of stage 1: 'gelu'; known: relu6, relu"),
        ({"stages": [[2, 16, "relu", 1]]}, "1 is not true or false"),
        ({"resolutions": [32, 4]}, "3 strides of 2 leave nothing of 4 pixels; take .* 8 or more"),
        ({"resolutions": [0]}, "3 strides of 2 leave nothing of 0 pixels"),
        ({"input": [0, 0, 3]}, "input: 0 is not above 0"),
        ({"width": 0}, "width: 0.0 is not above 0, at most 100"),
        ({"width": float("nan")}, "width: nan is not above 0, at most 100"),
        ({"channel_multiple": 0}, "channel_multiple: 0 is not above 0"),
        ({"stem": [3, 1, -8]}, "stem: -8 is not above 0"),
        ({"stem": [2, 1, 8]}, "kernel 2 is not an odd number"),
        ({"feature_mix": -1}, "feature_mix: -1 is not 0"),
        ({"act": "gelu"}, "'gelu'; known: relu6, relu"),
        ({"padding": "valid"}, "padding is 'valid'; known: same, symmetric"),
        ({"kernel": [3]}, "no option 'kernel'; did you mean 'kernels'"),
    ],
)
def test_wrong_options_are_one_clear_sentence(
    name: str, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        spaces.create(name, **{"input": [32, 32, 3], "classes": 10, **options})
