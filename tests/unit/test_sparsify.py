"""Weights that become 0: how many, which, and that they stay 0 in what is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from device_agents.errors import ConfigError
from models.graph import GraphBuilder
from models.lower import lower
from models.model import Model, random_model
from models.ops import BatchNorm, Conv, Dense, Mean
from models.spec import ArchSpec
from pipeline.compress.api import Needs
from pipeline.compress.magnitude import fits_pattern, largest_weights
from pipeline.compress.passes import create
from pipeline.formats import create as create_format
from pipeline.formats.api import ReadOptions
from pipeline.formats.source import read_model

if TYPE_CHECKING:
    from pathlib import Path

SPEC = "16x16x3:same:conv_k3_s2_o16:mb_k3_s1_m32_o16_se8-relu-hardsigmoid_skip:fc5"
WEIGHTS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 9)),
    elements=st.floats(-4, 4, width=32).map(lambda x: round(x, 1)),  # many are equal
)


def net(seed: int = 0) -> Model:
    return random_model(lower(ArchSpec.parse(SPEC)), np.random.default_rng(seed))


def zeros(model: Model, name: str) -> int:
    weight = model.weights[name][0]
    return weight.size - int(np.count_nonzero(weight))


def layers(model: Model, *, depthwise: bool = False) -> list[str]:
    return [
        op.name
        for op in model.graph.ops
        if op.has_weights and (op.kind == "depthwise") == depthwise
    ]


@settings(deadline=None, max_examples=40)
@given(st.lists(WEIGHTS, min_size=1, max_size=4), st.floats(0, 0.999))
def test_exactly_as_many_go_as_are_asked_for(found: list[np.ndarray], ratio: float) -> None:
    weights = {str(place): weight for place, weight in enumerate(found)}
    sizes = [weight.size for weight in found]
    masks = largest_weights(weights, ratio, "uniform")
    for name, weight in weights.items():
        stay = int(np.count_nonzero(masks[name]))
        assert stay == max(weight.size - round(ratio * weight.size), 1)
        mine, gone = np.abs(weight[masks[name]]), np.abs(weight[~masks[name]])
        assert not gone.size or mine.min() >= gone.max()
    masks = largest_weights(weights, ratio, "global")
    alive = sum(bool(weight.any()) for weight in found)
    stay = sum(int(np.count_nonzero(mask)) for mask in masks.values())
    assert stay == max(sum(sizes) - round(ratio * sum(sizes)), alive)
    for name, weight in weights.items():
        mine, gone = np.abs(weight[masks[name]]), np.abs(weight[~masks[name]])
        assert not gone.size or not mine.size or mine.min() >= gone.max()
        assert mine.size or not weight.any()


@settings(deadline=None, max_examples=50)
@given(arrays.arrays(np.float32, (3, 2, 8), elements=st.sampled_from([-2, -1, 0, 1, 2])))
def test_of_every_four_two_stay_the_larger(weight: np.ndarray) -> None:
    mask = largest_weights({"": weight}, 0.5, "2:4")[""]
    groups, kept = np.abs(weight).reshape(-1, 4), mask.reshape(-1, 4)
    assert (kept.sum(axis=1) == 2).all()
    assert (np.where(kept, groups, 9).min(1) >= np.where(kept, -1, groups).max(1)).all()


def test_lamp_scores_are_those_of_its_definition() -> None:
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((3, 4)) * size for name, size in (("a", 1), ("b", 100))}
    scores = []
    for name, weight in weights.items():
        squares = np.square(weight.reshape(-1))
        for place, square in enumerate(squares):
            scores.append((square / squares[squares >= square].sum(), name, place))
    gone = {(name, place) for _, name, place in sorted(scores)[:14]}
    masks = largest_weights(weights, 14 / 24, "global")
    found = {(n, p) for n, mask in masks.items() for p in np.flatnonzero(~mask.reshape(-1))}
    assert found == gone
    # However large one layer's weights are beside another's.
    assert all(mask.sum() >= 3 for mask in masks.values())


@pytest.mark.parametrize("scope", ["global", "uniform"])
def test_a_network_loses_the_share_and_depthwise_layers_stay(scope: str) -> None:
    model = net()
    made = create("sparsify", ratio=0.8, scope=scope).apply(model, Needs())
    total = sum(model.weights[name][0].size for name in layers(model))
    gone = sum(zeros(made, name) for name in layers(model))
    assert abs(gone - 0.8 * total) <= len(layers(model))
    assert f"{gone} of {total} weights in 6 layers are 0 ({gone / total:.1%})" in made.history[-1]
    for name in layers(model, depthwise=True):
        np.testing.assert_array_equal(made.weights[name][0], model.weights[name][0])
    for name in layers(model):
        same = made.weights[name][0] != 0
        np.testing.assert_array_equal(made.weights[name][0][same], model.weights[name][0][same])


def test_two_of_four_leaves_layers_whole_that_do_not_divide() -> None:
    model = net()
    made = create("sparsify", scope="2:4").apply(model, Needs())
    odd = [name for name in layers(model) if not fits_pattern(model.weights[name][0].shape)]
    assert odd  # the first reads three channels
    for name in layers(model):
        assert zeros(made, name) == (0 if name in odd else model.weights[name][0].size // 2)
    assert f"{len(odd)} layers stay whole, since they read no multiple of 4" in made.history[-1]


def test_layers_are_kept_by_name() -> None:
    model = net()
    first, *_, last = layers(model)
    made = create("sparsify", ratio=0.9, keep=[first, last]).apply(model, Needs())
    assert zeros(made, first) == zeros(made, last) == 0
    with pytest.raises(ConfigError, match="no op of the network is named 'nosuch'"):
        create("sparsify", keep=["nosuch"]).apply(model, Needs())


def test_what_is_too_few_is_nothing() -> None:
    model = net()
    made = create("sparsify", ratio=0.0).apply(model, Needs())
    assert made.digest() == model.digest()
    assert made.history[-1].startswith("sparsified nothing: global, ratio 0, 0 of ")


@pytest.mark.parametrize("scheme", ["float16", "dynamic8", "static8"])
def test_zeros_are_the_code_0_of_every_number_format(scheme: str) -> None:
    made = create("sparsify", ratio=0.7).apply(net(), Needs())
    images = np.random.default_rng(1).standard_normal((8, 3, 16, 16), np.float32)
    chosen = "ptq" if scheme == "static8" else "small_weights"
    coded = create(chosen, scheme=scheme).apply(made, Needs(images))
    assert coded.quantization is not None
    for op in (coded.graph[name] for name in layers(made)):
        gone = made.weights[op.name][0] == 0
        assert (coded.weights[op.name][0][gone] == 0).all()
        if scheme != "float16":
            held = coded.quantization.weight(op, coded.weights[op.name][0])
            assert not held.weight[gone].any()
            assert 0.2 * gone.size < np.count_nonzero(held.weight) <= np.count_nonzero(~gone)


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_zeros_and_few_values_are_those_of_the_file(format_: str, tmp_path: Path) -> None:
    made = create("sparsify", ratio=0.7).apply(net(), Needs())
    made = create("share", bits=3).apply(made, Needs())
    path = tmp_path / f"net.{format_}"
    path.write_bytes(create_format(format_).write(made))
    read = read_model(str(path), ReadOptions())
    assert isinstance(read, Model)
    there = {
        (weight.shape, int(np.count_nonzero(weight)), len(np.unique(weight)))
        for weight, _ in (read.weights[op.name] for op in read.graph.ops if op.has_weights)
    }
    for name in layers(made):
        weight = made.weights[name][0]
        assert (weight.shape, int(np.count_nonzero(weight)), len(np.unique(weight))) in there
        assert len(np.unique(weight)) <= 8


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"ratio": 1.0}, "1 is not at least 0 and below 1"),
        ({"ratio": float("nan")}, "is not at least 0 and below 1"),
        ({"ratio": 0.7, "scope": "2:4"}, "takes two of every four weights; leave ratio out"),
        ({"scope": "all"}, "'all' is not one of 'global', 'uniform', '2:4'"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        create("sparsify", **options)


def test_networks_that_cannot_be_are_refused() -> None:
    model = net()
    coded = create("small_weights").apply(model, Needs())
    with pytest.raises(ConfigError, match="dynamic8 already; weights are sparsified before"):
        create("sparsify").apply(coded, Needs())
    builder = GraphBuilder()
    graph = builder.graph(builder.op("mean", "m", [builder.input("x", (1, 4, 4, 2))], Mean()))
    with pytest.raises(ConfigError, match="has no layer whose weights could be sparsified"):
        create("sparsify").apply(random_model(graph, np.random.default_rng(0)), Needs())
    name = layers(model)[0]
    broken = {**model.weights, name: (model.weights[name][0] * np.float32("nan"), np.zeros(16))}
    with pytest.raises(ConfigError, match=f"layer '{name}' has weights that are not finite"):
        create("sparsify").apply(Model(model.graph, broken), Needs())


def test_batch_normalisation_counts_in_what_is_small() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 4, 4, 2))
    y = builder.op("conv", "c", [x], Conv(out=2, kernel=(1, 1), stride=(1, 1), padding=(0,) * 4))
    names = [builder.constant(name, (2,)) for name in ("scale", "shift", "mean", "var")]
    y = builder.op("batchnorm", "bn", [y, *names], BatchNorm(1e-5))
    y = builder.op("dense", "d", [builder.op("mean", "m", [y], Mean(keepdims=False))], Dense(2))
    ones = np.ones(2, np.float32)
    weights = {
        "c": (np.array([[1, 2], [3, 4]], np.float32).reshape(2, 1, 1, 2), 0 * ones),
        "scale": (np.array([10, 0.1], np.float32),),
        "shift": (ones,),
        "mean": (0 * ones,),
        "var": (ones,),
        "d": (np.eye(2, dtype=np.float32), ones),
    }
    made = create("sparsify", ratio=0.5, keep=["d"]).apply(
        Model(builder.graph(y), weights), Needs()
    )
    assert made.weights["c"][0].reshape(-1).tolist() == [1, 2, 0, 0]
    assert "scale" in made.weights
