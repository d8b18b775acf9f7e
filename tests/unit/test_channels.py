"""A network without some channels gives what it gave with zeros in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from device_agents.errors import ConfigError
from models.channels import cut, follow
from models.fold import random_weights
from models.graph import Graph, GraphBuilder, Op, Tensor
from models.lower import lower
from models.model import Model
from models.ops import (
    BatchNorm,
    Concat,
    Conv,
    Deconv,
    Dense,
    DepthToSpace,
    Depthwise,
    LayerNorm,
    Mean,
    Pad,
    Reshape,
    Resize,
    Slice,
    Softmax,
    SpaceToDepth,
    Transpose,
)
from models.zoo import get, zoo
from tests.masked_channels import masked
from tests.op_draws import DRAWS, drawn, modelled, referred
from tests.random_networks import random_graph

if TYPE_CHECKING:
    from models.channels import Channels
    from tests.op_draws import Arrays


NEVER_CUT = {"compare", "logical", "where", "matmul", "argmax", "layernorm"}
"""Kinds of which no draw leaves channels to cut: what they give is no number and so an output
here, what they read first is none, or they mix all channels."""


def chosen(channels: Channels, rng: np.random.Generator) -> list[int]:
    """Some channels of each group, never all."""
    found: list[int] = []
    for group in channels.groups:
        count = int(rng.integers(0, group.width))
        found.extend(int(n) for n in rng.choice(group.ids, count, replace=False))
    return found


def check(model: Model, inputs: Arrays, rng: np.random.Generator) -> int:
    """Cut some channels of a model and hold it against the masked whole; return how many."""
    channels = follow(model.graph)
    gone = chosen(channels, rng)
    made = cut(model, channels, gone, done="cut")
    for op in made.graph.ops:
        if op.has_weights:
            weight, bias = made.weights[op.name]
            assert (weight.shape, bias.shape) == (op.weight_shape, op.out_shape[-1:])
    expected, found = masked(model, channels, gone, inputs), referred(made, inputs)
    for name in model.graph.outputs:
        size = max(float(np.abs(expected[name]).max(initial=0)), 1.0)
        np.testing.assert_allclose(found[name] / size, expected[name] / size, atol=1e-4)
    return len(gone)


def made_of(builder: GraphBuilder, *outputs: str, seed: int = 0) -> tuple[Model, Arrays]:
    graph = builder.graph(*outputs)
    rng = np.random.default_rng(seed)
    weights = {
        name: tuple(np.abs(array) + 0.5 if name.endswith("variance") else array for array in arrays)
        for name, arrays in random_weights(graph, rng).items()
    }
    inputs = {t.name: rng.standard_normal(t.shape, np.float32) for t in graph.inputs}
    return Model(graph, weights), inputs


def widths(graph: Graph) -> dict[str, int]:
    return {group.name: group.width for group in follow(graph).groups}


def why(graph: Graph) -> dict[str, str]:
    return {layer.layer: f"{layer.at} {layer.why}" for layer in follow(graph).pinned}


def amid_layers(graph: Graph) -> Graph:
    """A graph whose input a layer makes, and whose outputs layers read."""
    (given_,) = graph.inputs
    first = Op("dense", given_.name, ("raw",), (given_.shape,), Dense(given_.shape[-1]))
    heads = tuple(
        Op("dense", f"head.{name}", (name,), (graph.shape(name),), Dense(3))
        for name in graph.outputs
        if len(graph.shape(name)) > 1
    )
    outputs = tuple(head.name for head in heads) or graph.outputs
    return Graph((Tensor("raw", given_.shape),), (first, *graph.ops, *heads), outputs)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
@example(seed=3470)
def test_random_networks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = amid_layers(random_graph(rng, ops=14))
    model = Model(graph, random_weights(graph, rng))
    inputs = {t.name: rng.standard_normal(t.shape, np.float32) for t in graph.inputs}
    with np.errstate(all="ignore"):
        check(model, inputs, rng)


def between(kind: str, seed: int) -> tuple[Model, Arrays] | None:
    """A drawn op with a layer before its first input and one behind its output, if they fit."""
    graph = drawn(kind, seed)
    op, builder = graph.ops[-1], GraphBuilder()
    if op.in_dtypes[0] != "float32" or len(op.in_shapes[0]) < 2 or op.inputs[0] in op.constants:
        return None
    builder.input(op.inputs[0], op.in_shapes[0])
    x = builder.op("dense", "layer", [op.inputs[0]], Dense(op.in_shapes[0][-1]))
    names = [x]
    for name, shape, dtype in zip(op.inputs[1:], op.in_shapes[1:], op.in_dtypes[1:], strict=True):
        add = builder.constant if name in op.constants else builder.input
        names.append(add(name, shape, dtype) if name not in builder.shapes else name)
    y = builder.op(kind, "op", names, op.attributes, act=op.act)
    outputs = [y]
    if builder.dtypes[y] == "float32" and len(builder.shapes[y]) >= 2:
        outputs = [builder.op("dense", "behind", [y], Dense(3))]
    _, values = modelled(graph, seed)
    model, inputs = made_of(builder, *outputs, seed=seed)
    drawn_weights = modelled(graph, seed)[0].weights
    weights = {name: drawn_weights.get(name, a) for name, a in model.weights.items()}
    weights |= {name: model.weights[name] for name in ("layer", "behind") if name in weights}
    inputs |= {name: values[name][:1] for name in inputs if name != op.inputs[0]}
    return Model(model.graph, weights), inputs


@pytest.mark.parametrize("kind", DRAWS)
def test_every_kind_of_op_behind_a_layer(kind: str) -> None:
    cut_there = 0
    for seed in range(6):
        found = between(kind, seed)
        if found is None:
            continue
        with np.errstate(all="ignore"):
            cut_there += check(*found, np.random.default_rng(seed))
    assert (cut_there > 0) is (kind not in NEVER_CUT)


def test_a_residual_is_cut_on_both_sides_and_a_gate_with_what_it_gates() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 8, 6, 3))
    stem = builder.op("conv", "stem", [x], Conv(out=8), act="relu")
    wide = builder.op("conv", "expand", [stem], Conv(out=12), act="relu6")
    deep = builder.op("depthwise", "deep", [wide], Depthwise(kernel=(3, 3), padding=(1, 1, 1, 1)))
    mean = builder.op("mean", "squeeze", [deep], Mean())
    less = builder.op("conv", "reduce", [mean], Conv(out=4), act="relu")
    gate = builder.op("act", "gate", [builder.op("conv", "grow", [less], Conv(out=12))], act="tanh")
    scaled = builder.op("mul", "scaled", [deep, gate])
    back = builder.op("conv", "project", [scaled], Conv(out=8))
    both = builder.op("add", "both", [stem, back])
    flat = builder.op("reshape", "flat", [both], Reshape((1, 8 * 6 * 8)))
    builder.op("dense", "head", [flat], Dense(5))
    model, inputs = made_of(builder)
    assert widths(model.graph) == {"stem": 8, "expand": 12, "reduce": 4}
    group = follow(model.graph).groups[1]
    assert (group.layers, group.readers) == (
        ("expand", "deep", "grow"),
        ("deep", "reduce", "project"),
    )
    assert why(model.graph) == {"head": "head is an output of the network"}
    assert check(model, inputs, np.random.default_rng(1)) > 3


def test_groups_of_a_convolution_stay_alike_and_shuffled_ones_are_cut_together() -> None:
    builder = GraphBuilder()
    x = builder.op("conv", "stem", [builder.input("x", (1, 5, 5, 3))], Conv(out=12))
    x = builder.op("conv", "grouped", [x], Conv(out=24, groups=3, kernel=(3, 3)))
    apart = builder.op("reshape", "apart", [x], Reshape((1, 3, 3, 3, 8)))
    turned = builder.op("transpose", "turned", [apart], Transpose((0, 1, 2, 4, 3)))
    x = builder.op("reshape", "together", [turned], Reshape((1, 3, 3, 24)))
    x = builder.op("deconv", "up", [x], Deconv(out=6, groups=2, kernel=(2, 2), stride=(2, 2)))
    x = builder.op("conv", "each", [x], Conv(out=12, groups=6))
    builder.op("conv", "head", [x], Conv(out=2))
    model, inputs = made_of(builder)
    # Shuffled, "up" takes channel 8 + i of "grouped" in both of its groups.
    assert widths(model.graph) == {"stem": 4, "grouped": 4, "up": 3}
    assert check(model, inputs, np.random.default_rng(2)) > 3


def test_concatenated_and_split_channels_are_cut_apart() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 6, 6, 3))
    one = builder.op("conv", "one", [x], Conv(out=6))
    two = builder.op("conv", "two", [x], Conv(out=4))
    all_ = builder.op("concat", "all", [one, x, two], Concat(3))
    part = Slice((0, 0, 0, 2), (1, 6, 6, 11), (1, 1, 1, 1))
    some = builder.op("slice", "some", [all_], part)
    space = builder.op("spacetodepth", "space", [all_], SpaceToDepth(2))
    big = builder.op("resize", "big", [space], Resize((7, 7), "bilinear"))
    heads = [
        builder.op("conv", "a", [some], Conv(out=2)),
        builder.op(
            "conv", "b", [builder.op("depthtospace", "d", [big], DepthToSpace(2))], Conv(out=2)
        ),
    ]
    model, inputs = made_of(builder, *heads)
    groups = follow(model.graph).groups
    # Two of "one" and two of "two" are not in "some".
    assert [(group.name, group.width) for group in groups] == [
        *(("one", 2), ("one", 4), ("two", 2), ("two", 2)),
    ]
    assert check(model, inputs, np.random.default_rng(4)) > 1


def test_constants_that_two_layers_share_are_cut_for_each() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 6, 6, 3))
    names = ("scale", "shift", "mean", "variance")
    shared = [builder.constant(name, (6,)) for name in names]
    for name in ("one", "two"):
        x = builder.op("conv", name, [x], Conv(out=6))
        x = builder.op("batchnorm", f"bn.{name}", [x, *shared], BatchNorm(), act="relu")
        x = builder.op("pad", f"pad.{name}", [x], Pad(((0, 0), (1, 0), (0, 1), (0, 0)), 0.5))
    builder.op("conv", "head", [x], Conv(out=2))
    model, inputs = made_of(builder)
    assert widths(model.graph) == {"one": 6, "two": 6}
    assert check(model, inputs, np.random.default_rng(5)) > 3


def test_what_cannot_be_followed_says_why() -> None:
    builder = GraphBuilder()
    x = builder.input("x", (1, 6, 6, 3))
    soft = builder.op("softmax", "soft", [builder.op("conv", "one", [x], Conv(out=4))], Softmax(3))
    image = builder.op("add", "image", [builder.op("conv", "two", [soft], Conv(out=3)), x])
    every = Slice((0, 0, 0, 0), (1, 6, 6, 6), (1, 1, 1, 2))
    some = builder.op("slice", "every", [builder.op("conv", "three", [image], Conv(out=6))], every)
    parameters = [builder.constant("scale", (5,)), builder.constant("shift", (5,))]
    four = builder.op("conv", "four", [some], Conv(out=5))
    norm = builder.op("layernorm", "norm", [four, *parameters], LayerNorm(1))
    builder.op("conv", "head", [norm], Conv(out=2))
    assert why(builder.graph()) == {
        "one": "soft computes over axis 3, along which they lie",
        "two": "image needs as many of them as it has of what cannot be cut",
        "three": "every takes every 2th of them",
        "four": "norm computes over axis 3, along which they lie",
        "head": "head is an output of the network",
    }


@pytest.mark.parametrize("name", zoo())
def test_published_networks_are_wholly_followed(name: str) -> None:
    graph = lower(get(name))
    assert [layer.layer for layer in follow(graph).pinned] == list(graph.outputs)


def test_no_group_vanishes() -> None:
    builder = GraphBuilder()
    x = builder.op("conv", "one", [builder.input("x", (1, 3, 3, 2))], Conv(out=4))
    builder.op("conv", "two", [x], Conv(out=2))
    model, _ = made_of(builder)
    channels = follow(model.graph)
    with pytest.raises(ConfigError, match="all 4 channels of layer 'one' would be cut; leave one"):
        cut(model, channels, channels.groups[0].ids, done="cut")
