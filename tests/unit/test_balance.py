"""A network with layers of odd sizes is trained as one of usual layers that computes the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from models.fold import random_weights
from models.graph import GraphBuilder
from models.graph_module import GraphModule
from models.model import Model
from models.ops import Conv, Dense, Depthwise, Mean
from pipeline.train.balance import balance_gradients


def usual() -> Model:
    builder = GraphBuilder()
    builder.input("x", (1, 6, 6, 3))
    builder.op("conv", "first", ["x"], Conv(out=8, kernel=(3, 3)), act="relu")
    builder.op("depthwise", "second", ["first"], Depthwise(kernel=(3, 3)), act="relu")
    builder.op("mean", "pooled", ["second"], Mean(keepdims=False))
    builder.op("dense", "scores", ["pooled"], Dense(5))
    graph = builder.graph()
    return Model(graph, random_weights(graph, np.random.default_rng(0)))


def stepped(model: Model, pixels: torch.Tensor, *, balanced: bool) -> Model:
    """The model after a step of plain gradient descent on its layers' weights."""
    module = GraphModule(model)
    if balanced:
        balance_gradients(module)
    torch.autograd.backward(module.run({"x": pixels})["scores"].square().sum())
    with torch.no_grad():
        for weight in module.layer_weights().values():
            assert weight.grad is not None
            weight.sub_(0.01 * weight.grad)
    return module.model()


def test_a_step_is_the_same_whatever_pixels_are_counted_in() -> None:
    model = usual()
    pixels = torch.rand((4, 6, 6, 3), generator=torch.Generator().manual_seed(0))
    weights = dict(model.weights)
    weights["first"] = (weights["first"][0] / np.float32(255), weights["first"][1])
    of_bytes = replace(model, weights=weights)
    for balanced in (True, False):
        one = stepped(model, pixels, balanced=balanced).weights["first"][0]
        other = stepped(of_bytes, pixels * 255, balanced=balanced).weights["first"][0]
        same = np.allclose(one, other * 255, rtol=1e-3, atol=1e-5)
        assert same == balanced


def test_a_step_is_the_same_whatever_the_sizes_of_channels_in_between() -> None:
    model = usual()
    pixels = torch.rand((4, 6, 6, 3), generator=torch.Generator().manual_seed(0))
    gains = np.array([1, 0.1, 10, 1, 3, 1, 1, 0.3], np.float32)
    weights = dict(model.weights)
    first, bias = weights["first"]
    weights["first"] = (first * gains[:, None, None, None], bias * gains)
    weights["second"] = (weights["second"][0] / gains, weights["second"][1])
    uneven = replace(model, weights=weights)
    one, other = (stepped(each, pixels, balanced=True).weights for each in (model, uneven))
    for name, back in (("first", 1 / gains[:, None, None, None]), ("second", gains)):
        np.testing.assert_allclose(one[name][0], other[name][0] * back, rtol=1e-3, atol=1e-5)


def test_channels_of_zeros_are_trained_on() -> None:
    model = usual()
    weights = dict(model.weights)
    first = weights["first"][0].copy()
    first[2] = 0
    weights["first"] = (first, weights["first"][1])
    weights["scores"] = (np.zeros_like(weights["scores"][0]), weights["scores"][1])
    pixels = torch.rand((4, 6, 6, 3), generator=torch.Generator().manual_seed(0))
    made = stepped(replace(model, weights=weights), pixels, balanced=True)
    assert np.abs(made.weights["scores"][0]).max() > 0, "a layer of zeros has no usual size"
    assert all(np.isfinite(arrays[0]).all() for arrays in made.weights.values())
