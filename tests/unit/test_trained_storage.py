"""Weights that become 0 or share values while the network is trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from device_agents.errors import ConfigError
from models.fold import random_weights
from models.graph import GraphBuilder
from models.graph_module import GraphModule
from models.model import Model
from models.ops import BatchNorm, Conv, Dense, Mean
from pipeline.compress.api import Needs
from pipeline.compress.clusters import share
from pipeline.compress.magnitude import storable_layers
from pipeline.compress.passes import create
from pipeline.compress.tables import share_values
from pipeline.compress.thinning import RAMP, Thinning, ratio_at
from pipeline.data.tasks.classification import Classification
from pipeline.train.lessons import Lessons
from tests.kept_states import Kept, Stop

TRAINED: dict[str, dict[str, Any]] = {
    "sparsify": {"ratio": 0.8, "epochs": 3, "batch_size": 16},
    "share": {"bits": 2, "epochs": 3, "batch_size": 16, "learning_rate": 0.001},
}


def classifier() -> Model:
    net = GraphBuilder()
    at = net.input("picture", (1, 8, 8, 4))
    at = net.op("conv", "conv", [at], Conv(kernel=(3, 3), out=8))
    held = [net.constant(f"bn.{one}", (8,)) for one in ("scale", "shift", "mean", "variance")]
    at = net.op("batchnorm", "bn", [at, *held], BatchNorm(), act="relu")
    at = net.op("mean", "pool", [at], Mean(keepdims=False))
    graph = net.graph(net.op("dense", "scores", [at], Dense(3)))
    weights = dict(random_weights(graph, np.random.default_rng(0)))
    for constant in graph.constants:
        one = constant.name.endswith(("scale", "variance"))
        weights[constant.name] = ((np.ones if one else np.zeros)(constant.shape, np.float32),)
    return Model(graph, weights)


def lessons(**changes: Any) -> Lessons:
    rng = np.random.default_rng(1)
    truths = rng.integers(3, size=96)
    images = rng.standard_normal((96, 8, 8, 4), np.float32)
    images += 1.5 * np.eye(4, dtype=np.float32)[truths][:, None, None]
    return replace(Lessons({"picture": images}, truths, Classification()), **changes)


def zeros(model: Model) -> int:
    return sum(int((model.weights[name][0] == 0).sum()) for name in ("conv", "scores"))


def test_the_ratio_rises_by_a_cubic() -> None:
    assert ratio_at(0, 0.1, 0.9) == pytest.approx(0.1)
    assert ratio_at(0.5, 0.0, 0.8) == pytest.approx(0.7)
    assert ratio_at(1, 0.1, 0.9) == pytest.approx(0.9)


def test_weights_go_little_by_little_and_exactly_as_many_in_the_end() -> None:
    model = classifier()
    module = GraphModule(model)
    layers = storable_layers(model.graph)
    total = sum(model.weights[op.name][0].size for op in layers)
    thinning = Thinning(module, layers, 0.8, "global")
    draws = torch.Generator().manual_seed(0)
    found = []
    with torch.no_grad():
        for step in range(1, 41):
            for weight in module.layer_weights().values():
                weight.add_(0.01 * torch.randn(weight.shape, generator=draws))
            thinning(step / 40)
            found.append(zeros(module.model()))
    assert found == sorted(found)
    for step, gone in enumerate(found, 1):
        wanted = total * ratio_at(min(step / 40 / RAMP, 1), 0, 0.8)
        assert abs(gone - wanted) <= 1, step
    assert found[-1] == round(0.8 * total)


@pytest.mark.parametrize("scope", ["global", "uniform", "2:4"])
def test_a_network_learns_with_the_weights_that_stay(scope: str) -> None:
    model = classifier()
    options = {"scope": scope, "epochs": 8, "batch_size": 16, "learning_rate": 0.05}
    if scope != "2:4":
        options["ratio"] = 0.7
    step = create("sparsify", **options)
    assert step.uses == {"training"}
    made = step.apply(model, Needs(lessons=lessons()))
    before, after = made.history[-1].rsplit("loss ", 1)[1].split(" to ")
    assert float(after) < 0.7 * float(before)
    assert "trained 8 epochs meanwhile on 96 samples" in made.history[-1]
    total = model.weights["conv"][0].size + model.weights["scores"][0].size
    assert abs(zeros(made) - (total // 2 if scope == "2:4" else 0.7 * total)) <= 1
    if scope == "2:4":
        groups = made.weights["conv"][0].reshape(-1, 4)
        assert (np.count_nonzero(groups, axis=1) == 2).all()


def test_a_value_learns_by_the_sum_of_its_weights_gradients() -> None:
    model = classifier()
    shared = {"scores": share(model.weights["scores"][0], 4, "linear")}
    module, plain = GraphModule(model), GraphModule(model)
    with torch.no_grad():
        plain.layer_weights()["scores"].copy_(torch.from_numpy(shared["scores"].numbers))
    share_values(module, shared)
    x = torch.from_numpy(lessons().inputs["picture"][:4])
    for one in (module, plain):
        one.run({"picture": x})["scores"].square().sum().backward()
    (values,) = (p for p in module.parameters() if p.shape == (4,))
    each = plain.layer_weights()["scores"].grad
    assert each is not None
    assert values.grad is not None
    places = torch.from_numpy(shared["scores"].places.astype(np.int64))
    summed = torch.zeros(4).index_add(0, places.reshape(-1), each.reshape(-1))
    counts = torch.from_numpy(shared["scores"].counts)
    torch.testing.assert_close(values.grad, summed / counts.sqrt().float())


def test_shared_values_are_trained_and_stay_few() -> None:
    sparse = create("sparsify", ratio=0.5).apply(classifier(), Needs())
    plain = create("share", bits=2).apply(sparse, Needs())
    options = {"bits": 2, "epochs": 8, "batch_size": 16, "learning_rate": 0.1}
    made = create("share", **options).apply(sparse, Needs(lessons=lessons()))
    before, after = made.history[-1].rsplit("loss ", 1)[1].split(" to ")
    assert float(after) < 0.97 * float(before)
    for name in ("conv", "scores"):
        weight = made.weights[name][0]
        assert len(np.unique(weight)) <= 4
        np.testing.assert_array_equal(weight == 0, sparse.weights[name][0] == 0)
        assert not np.array_equal(weight, plain.weights[name][0])


@pytest.mark.parametrize("name", TRAINED)
def test_a_training_that_was_ended_goes_on_to_the_same_bits(name: str) -> None:
    def apply(kept: Kept) -> Model:
        needs = Needs(lessons=lessons(checkpoints=lambda _: kept))
        made: Model = create(name, **TRAINED[name]).apply(classifier(), needs)
        return made

    expected, parted = apply(Kept()), Kept(stop=1)
    with pytest.raises(Stop):
        apply(parted)
    assert apply(parted).digest() == expected.digest()


@pytest.mark.parametrize("name", TRAINED)
def test_without_lessons_it_says_so(name: str) -> None:
    step = create(name, **TRAINED[name])
    with pytest.raises(ConfigError, match=f"{name} takes samples to learn from, and there"):
        step.apply(classifier(), Needs())
    assert create(name).uses == frozenset()
    hasty = create(name, **{**TRAINED[name], "learning_rate": 100.0})
    broken = lessons()
    big = {"picture": broken.inputs["picture"] * np.float32(3e37)}
    with pytest.raises(ConfigError, match=f"{name}: .*loss"):
        hasty.apply(classifier(), Needs(lessons=replace(broken, inputs=big)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sparsify", {"ratio": 0.5}),
        ("sparsify", {"scope": "2:4"}),
        ("share", {"bits": 3, "keep": ("conv",)}),
    ],
)
def test_what_was_zero_before_stays_zero(name: str, options: dict[str, Any]) -> None:
    sparse = create("sparsify", ratio=0.8).apply(classifier(), Needs())
    step = create(name, **options, epochs=3, batch_size=16, learning_rate=0.05)
    made = step.apply(sparse, Needs(lessons=lessons()))
    for layer in ("conv", "scores"):
        before, after = (model.weights[layer][0] for model in (sparse, made))
        assert not after[before == 0].any()
        assert not np.array_equal(before, after)
