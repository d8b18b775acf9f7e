"""Channels scaled across layers: the function is kept, ranges come close, what cannot says why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agents.errors import ConfigError
from models.activations import ACTIVATIONS
from models.channels import find_scalable, scale_channels
from models.channels.scale import as_rows, from_rows
from models.codes import QuantizationError
from models.execute import execute_all
from models.fold import random_weights
from models.graph import Graph, GraphBuilder
from models.lower import lower
from models.model import Model, random_model
from models.number_format import DYNAMIC8
from models.ops import AvgPool, Concat, Conv, Deconv, Dense, Depthwise, Mean, Reshape
from models.quantization import Quantization
from models.spec import ArchSpec
from pipeline.compress.api import Needs
from pipeline.compress.passes import create
from tests.spec_strategies import REPLAY

HARD = "16x16x3:same:conv_k3_s2_o8_hardswish:mb_k3_s1_m16_o8_hardswish_skip:fc5"


def equalized(model: Model, inputs: Any = None, **options: Any) -> Model:
    made: Model = create("equalize", **options).apply(model, Needs(inputs=inputs))
    return made


def outputs(model: Model, inputs: Any) -> Any:
    (found,) = execute_all(model, inputs).values()
    return found


def spread(model: Model, rng: np.random.Generator) -> Model:
    """The same function, of channels whose ranges lie up to a thousand times apart."""
    channels = find_scalable(model.graph)
    most = max(int(along.ids.max(initial=0)) for along in channels.tensors.values())
    factors = np.exp(rng.uniform(-3.5, 3.5, most + 1))
    factors[0] = 1
    return scale_channels(model, channels, factors)


class Drawn:
    """A random network of what carries a scale, and of some that does not."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.builder = GraphBuilder()
        self.count = 0

    def op(self, kind: str, inputs: list[str], attributes: Any = None, act: str = "none") -> str:
        self.count += 1
        return self.builder.op(kind, f"{kind}{self.count}", inputs, attributes, act=act)

    def act(self) -> str:
        return str(self.rng.choice(["relu", "relu", "none", "relu6"]))

    def conv(self, source: str, out: int, act: str) -> str:
        kernel, padding = ((3, 3), (1, 1, 1, 1)) if self.rng.random() < 0.5 else ((1, 1), (0,) * 4)
        return self.op("conv", [source], Conv(out=out, kernel=kernel, padding=padding), act)

    def step(self, source: str) -> str:
        deep = Depthwise(kernel=(3, 3), padding=(1, 1, 1, 1))
        steps = (
            lambda: self.conv(source, 8, self.act()),
            lambda: self.op("depthwise", [source], deep, self.act()),
            lambda: self.residual(source),
            lambda: self.op("concat", [self.conv(source, 4, self.act()) for _ in "ab"], Concat(3)),
            lambda: self.op("avgpool", [source], AvgPool(kernel=(2, 2))),
            lambda: self.op("conv", [source], Conv(out=8, groups=2), self.act()),
            lambda: self.op("deconv", [source], Deconv(out=8, kernel=(2, 2)), "relu"),
            lambda: self.op("mul", [source, self.builder.constant(f"g{self.count}", (1, 1, 1, 8))]),
            lambda: self.op(
                "prelu", [source, self.builder.constant(f"s{self.count}", (1, 1, 1, 8))]
            ),
        )
        return steps[self.rng.integers(len(steps))]()

    def residual(self, source: str) -> str:
        wide = self.conv(source, 12, self.act())
        deep = self.op("depthwise", [wide], Depthwise(kernel=(1, 1)), self.act())
        act = str(self.rng.choice(["none", "relu"]))
        return self.op("add", [source, self.conv(deep, 8, "none")], act=act)

    def model(self) -> Model:
        at = self.conv(self.builder.input("x", (1, 9, 8, 3)), 8, "relu")
        for _ in range(self.rng.integers(2, 6)):
            at = self.step(at)
        if self.rng.random() < 0.5:
            at = self.op("mean", [at], Mean(keepdims=False))
        else:
            height, width = self.builder.shapes[at][1:3]
            at = self.op("reshape", [at], Reshape((1, 8 * height * width)))
        self.op("dense", [at], Dense(5))
        graph = self.builder.graph()
        return Model(graph, random_weights(graph, self.rng))


@REPLAY
@given(st.integers(0, 2**32))
def test_the_function_is_kept_whatever_the_network(seed: int) -> None:
    drawn = Drawn(seed)
    model = drawn.model()
    inputs = {"x": drawn.rng.standard_normal((4, 9, 8, 3), np.float32)}
    before = outputs(model, inputs)
    scale = np.abs(before).max()
    for made in (spread(model, drawn.rng), equalized(model), equalized(spread(model, drawn.rng))):
        np.testing.assert_allclose(outputs(made, inputs) / scale, before / scale, atol=1e-4)


@pytest.mark.parametrize("kind", ["conv", "deconv", "depthwise", "dense"])
def test_rows_of_a_weight_and_back(kind: str) -> None:
    builder = GraphBuilder()
    source = builder.input("x", (1, 4) if kind == "dense" else (1, 3, 3, 4))
    of = {
        "conv": Conv(out=6, kernel=(2, 3), groups=2),
        "deconv": Deconv(out=6, kernel=(2, 3), groups=2),
        "depthwise": Depthwise(kernel=(2, 3), multiplier=2),
        "dense": Dense(6),
    }
    builder.op(kind, "layer", [source], of[kind])
    op = builder.graph()["layer"]
    weight = np.random.default_rng(0).standard_normal(op.weight_shape).astype(np.float32)
    rows = as_rows(op, weight)
    assert len(rows) == op.out_shape[-1]
    np.testing.assert_array_equal(from_rows(op, rows), weight)


def chain(act: str = "relu", *, residual: bool = False) -> Graph:
    """An expansion, a depthwise convolution and a projection."""
    builder = GraphBuilder()
    x = builder.op("conv", "stem", [builder.input("x", (1, 8, 8, 3))], Conv(out=6), act=act)
    wide = builder.op("conv", "expand", [x], Conv(out=12), act=act)
    deep = builder.op(
        "depthwise", "deep", [wide], Depthwise(kernel=(3, 3), padding=(1,) * 4), act=act
    )
    made = builder.op("conv", "project", [deep], Conv(out=6))
    if residual:
        made = builder.op("add", "sum", [x, made])
    builder.op("conv", "head", [made], Conv(out=5))
    return builder.graph()


def ranges(model: Model, name: str, *, of_inputs: bool = False) -> Any:
    rows = np.abs(as_rows(model.graph[name], model.weights[name][0]))
    return rows.max((0, 1)) if of_inputs else rows.max((1, 2))


def test_ranges_of_a_pair_are_equal_as_the_paper_has_it() -> None:
    rng = np.random.default_rng(0)
    model = spread(Model(chain(), random_weights(chain(), rng)), rng)
    made = equalized(model)
    pairs = [
        (ranges(made, "stem"), ranges(made, "expand", of_inputs=True)),
        (ranges(made, "expand"), ranges(made, "deep")),  # a depthwise row reads one channel
        (ranges(made, "deep"), ranges(made, "project", of_inputs=True)),
        (ranges(made, "project"), ranges(made, "head", of_inputs=True)),
    ]
    for first, second in pairs:
        np.testing.assert_allclose(first, second, rtol=0.05)
    assert made.history[-1].startswith("equalized 36 channels in 4 groups, ")


def test_channels_of_a_residual_have_one_factor() -> None:
    rng = np.random.default_rng(0)
    graph = chain(residual=True)
    model = Model(graph, random_weights(graph, rng))
    made, inputs = (
        equalized(spread(model, rng)),
        {"x": rng.standard_normal((4, 8, 8, 3), np.float32)},
    )
    np.testing.assert_allclose(outputs(made, inputs), outputs(model, inputs), atol=1e-4)
    before, after = (ranges(one, "stem") for one in (spread(model, rng), made))
    assert after.max() / after.min() < before.max() / before.min() / 10


def test_a_channel_without_weights_stays() -> None:
    rng = np.random.default_rng(0)
    weights = dict(random_weights(chain(), rng))
    for name in ("stem", "deep"):
        weight, bias = (array.copy() for array in weights[name])
        weight[..., 0] = 0
        if name == "stem":
            weight[0] = 0
        weights[name] = weight, bias
    made = equalized(Model(chain(), weights))
    inputs = {"x": rng.standard_normal((4, 8, 8, 3), np.float32)}
    np.testing.assert_allclose(
        outputs(made, inputs), outputs(Model(chain(), weights), inputs), atol=1e-4
    )
    assert all(np.isfinite(array).all() for arrays in made.weights.values() for array in arrays)


def test_what_is_not_homogeneous_is_left_and_says_why() -> None:
    model = random_model(lower(ArchSpec.parse(HARD)), np.random.default_rng(0))
    made = equalized(model)
    assert made.digest() == model.digest()
    assert made.history[-1].startswith("equalized nothing: no channel between two layers can be")
    assert "computes hardswish, which does not scale" in made.history[-1]


def test_relu6_goes_where_it_clips_no_sample() -> None:
    rng = np.random.default_rng(0)
    model = Model(chain("relu6"), random_weights(chain("relu6"), rng))
    weight, bias = model.weights["deep"]
    model = replace(model, weights={**model.weights, "deep": (weight, bias + 100)})
    inputs = {"x": rng.standard_normal((8, 8, 8, 3), np.float32) / 10}
    kept = equalized(model)
    assert kept.history[-1].endswith("; 3 ReLU6 stay, before which nothing is scaled")
    made = equalized(model, inputs, relu6="observed")
    assert made.history[-1].endswith("; 2 of 3 ReLU6 are ReLU now, which clip none of 8 samples")
    assert {op.name for op in made.graph.ops if op.act == "relu6"} == {"deep"}
    np.testing.assert_allclose(outputs(made, inputs), outputs(model, inputs), rtol=1e-3, atol=1e-3)
    every = equalized(model, relu6="all")
    assert not [op for op in every.graph.ops if op.act == "relu6"]


def test_high_biases_are_absorbed() -> None:
    rng = np.random.default_rng(0)
    weights = dict(random_weights(chain(), rng))
    weight, bias = weights["deep"]
    high = bias.copy()
    high[3] = 50
    model = Model(chain(), {**weights, "deep": (weight, high)})
    inputs = {"x": rng.standard_normal((16, 8, 8, 3), np.float32)}
    plain, made = equalized(model), equalized(model, inputs, absorb_bias=True)
    assert "high biases of" in made.history[-1]
    assert made.weights["deep"][1][3] < plain.weights["deep"][1][3] / 4
    expected = outputs(model, inputs)
    error = np.square(outputs(made, inputs) - expected).sum() / np.square(expected).sum()
    assert error < 1e-3


def test_equalizing_without_what_it_needs_is_refused() -> None:
    model = Model(chain(), random_weights(chain(), np.random.default_rng(0)))
    assert create("equalize").uses == frozenset()
    assert create("equalize", relu6="observed").uses == {"calibration"}
    with pytest.raises(ConfigError, match="equalize needs images to calibrate on"):
        equalized(model, absorb_bias=True)
    coded = replace(model, quantization=Quantization({}, number_format=DYNAMIC8))
    with pytest.raises(QuantizationError, match="the model is dynamic8 already; put it before"):
        equalized(coded)
    bad = {"x": np.full((2, 8, 8, 3), np.nan, np.float32)}
    with pytest.raises(QuantizationError, match="is not finite on the calibration images"):
        equalized(model, bad, absorb_bias=True)
    with pytest.raises(QuantizationError, match=r"calibration inputs have the shapes .*\(2, 3\)"):
        equalized(model, {"x": np.zeros((2, 3), np.float32)}, absorb_bias=True)


@pytest.mark.parametrize("place", [0, 1])
def test_weights_that_are_not_finite_are_refused(place: int) -> None:
    weights = dict(random_weights(chain(), np.random.default_rng(0)))
    arrays = [array.copy() for array in weights["expand"]]
    arrays[place][0] = np.nan
    weights["expand"] = arrays[0], arrays[1]
    with pytest.raises(QuantizationError, match="layer 'expand' has weights or biases that are"):
        equalized(Model(chain(), weights))


def test_activations_that_scale_are_those_that_are_homogeneous() -> None:
    x = np.linspace(-8, 8, 101)
    scaling = {
        name for name, act in ACTIVATIONS.items() if np.allclose(act(3 * x), 3 * act(x), atol=1e-9)
    }
    assert scaling == {"none", "relu"}
