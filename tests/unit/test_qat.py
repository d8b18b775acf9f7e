"""The pass qat on digits: better codes than calibration gives, or those of calibration."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from device_agents.api import Failure
from device_agents.errors import ConfigError
from models.fold import random_weights
from models.graph import GraphBuilder
from models.graph_module import GraphModule
from models.integer import integer_reals
from models.model import Model
from models.ops import BatchNorm, Conv, Dense, Mean, Reshape
from models.simplify import prepare_for_codes
from pipeline.compress.api import Lessons, Needs
from pipeline.compress.passes import create
from pipeline.data import load_dataset
from pipeline.data.tasks.classification import Classification
from pipeline.train.fit import FitOptions, fit

if TYPE_CHECKING:
    from pipeline.data.api import Split

DATA = load_dataset("digits", {}, resolution=8, fractions=(0.6, 0.2, 0.2), seed=0)
NORM = ("scale", "shift", "mean", "variance")


def lessons(split: Split, *teachers: Model) -> Lessons:
    images, labels = split.arrays()
    inputs = {"x": np.ascontiguousarray(images.transpose(0, 2, 3, 1))}
    return Lessons(inputs, np.asarray(labels), Classification(), teachers)


@pytest.fixture(scope="module")
def trained() -> Model:
    """A small network of two layers, the first with normalisation, trained for a few seconds."""
    builder = GraphBuilder()
    builder.input("x", (1, 8, 8, 1))
    norm = [builder.constant(f"bn.{part}", (8,)) for part in NORM]
    builder.op("conv", "first", ["x"], Conv(out=8, kernel=(3, 3), padding=(1, 1, 1, 1)))
    builder.op("batchnorm", "bn", ["first", *norm], BatchNorm(epsilon=1e-3))
    builder.op("act", "active", ["bn"], act="relu")
    builder.op("conv", "second", ["active"], Conv(out=16, kernel=(3, 3), stride=(2, 2)), act="relu")
    builder.op("mean", "pooled", ["second"], Mean(keepdims=False))
    builder.op("dense", "scores", ["pooled"], Dense(10))
    graph = builder.graph()
    weights = dict(random_weights(graph, np.random.default_rng(0)))
    for name, value in zip(norm, (1, 0, 0, 1), strict=True):
        weights[name] = (np.full(8, value, np.float32),)
    module = GraphModule(Model(graph, weights))
    options = FitOptions(epochs=12, batch_size=32, learning_rate=0.1)
    assert not isinstance(fit(module, lessons(DATA.train), options), Failure)
    return module.model()


def spread(model: Model, gain: float) -> Model:
    """The same function with one channel so much larger, which the scale of all follows."""
    gains = np.ones(8, np.float32)
    gains[0] = gain
    weights = dict(model.weights)
    weights["bn.scale"] = (weights["bn.scale"][0] * gains,)
    weights["bn.shift"] = (weights["bn.shift"][0] * gains,)
    weight, bias = weights["second"]
    weights["second"] = (weight / gains, bias)
    return replace(model, weights=weights)


def needs(teacher: Model) -> Needs:
    found = lessons(DATA.train, teacher)
    return Needs(inputs=found.inputs, lessons=found)


def loss(model: Model) -> float:
    """Cross entropy of the integer arithmetic, on samples that no pass has seen."""
    seen = lessons(DATA.validation)
    assert seen.truths is not None
    scores = torch.from_numpy(integer_reals(model, seen.inputs)["scores"])
    return float(functional.cross_entropy(scores, torch.from_numpy(seen.truths)))


@pytest.mark.parametrize("bn", ["folded", "frozen"])
def test_training_gives_better_codes_than_calibration(trained: Model, bn: str) -> None:
    hurt = spread(trained, 100)
    calibrated = create("ptq").apply(hurt, needs(hurt))
    found = create("qat", epochs=3, bn=bn, learning_rate=0.01).apply(hurt, needs(hurt))
    assert loss(found) < 0.9 * loss(calibrated)
    assert found.graph == calibrated.graph
    assert found.history[:-1] == hurt.history
    assert "held out" in found.history[-1]


@pytest.mark.parametrize("rate", [1.0, 100.0])
def test_codes_of_calibration_are_kept_where_training_gains_nothing(
    trained: Model, rate: float
) -> None:
    calibrated = create("ptq").apply(trained, needs(trained))
    found = create("qat", epochs=1, learning_rate=rate).apply(trained, needs(trained))
    assert found.digest() == calibrated.digest()
    assert "for nothing, kept as calibrated: " in found.history[-1]


def test_learnt_scales_are_others_than_calibrated_ones(trained: Model) -> None:
    hurt = spread(trained, 100)
    calibrated = create("ptq").apply(hurt, needs(hurt))
    found = create("qat", epochs=1, scales="learnt").apply(hurt, needs(hurt))
    assert calibrated.quantization is not None
    assert found.quantization is not None
    assert found.quantization.tensors.keys() == calibrated.quantization.tensors.keys()
    assert found.quantization.tensors != calibrated.quantization.tensors
    assert loss(found) < loss(calibrated)


def test_a_teacher_is_enough(trained: Model) -> None:
    hurt = spread(trained, 100)
    found = lessons(DATA.train, hurt)
    asked = Needs(inputs=found.inputs, lessons=replace(found, truths=None))
    made = create("qat", epochs=1).apply(hurt, asked)
    assert "accuracy" not in made.history[-1]
    told = re.search(r"loss (\S+) to loss (\S+) of 216 that are held out", made.history[-1])
    assert told is not None
    assert float(told[2]) < float(told[1])


def test_weights_that_are_zero_stay_zero(trained: Model) -> None:
    weights = dict(trained.weights)
    weight, bias = weights["second"]
    zero = np.abs(weight) < np.median(np.abs(weight))
    weights["second"] = (np.where(zero, 0, weight).astype(np.float32), bias)
    sparse = replace(trained, weights=weights)
    found = create("qat", epochs=1).apply(sparse, needs(trained))
    assert f"; {int(zero.sum())} weights that were zero stay zero" in found.history[-1]
    np.testing.assert_array_equal(found.weights["second"][0] == 0, zero)
    assert not np.array_equal(found.weights["second"][0], weights["second"][0])


@pytest.mark.parametrize("words", [{"weight_bits": 3}, {"weight_bits": 4, "per_tensor": True}])
def test_fewer_bits_are_trained_with(trained: Model, words: dict[str, Any]) -> None:
    calibrated = create("ptq", **words).apply(trained, needs(trained))
    found = create("qat", epochs=3, learning_rate=0.01, **words).apply(trained, needs(trained))
    assert loss(found) < 0.9 * loss(calibrated)
    assert found.quantization is not None
    assert calibrated.quantization is not None
    assert found.quantization.weights.keys() == {"first", "second", "scores"}
    for name, codes in found.quantization.weights.items():
        assert np.abs(codes.weight).max() <= 2 ** (words["weight_bits"] - 1) - 1
        np.testing.assert_array_equal(codes.scales, calibrated.quantization.weights[name].scales)


def test_layers_that_stay_real_are_trained_so(trained: Model) -> None:
    found = create("qat", epochs=1, float_layers=["first"]).apply(trained, needs(trained))
    assert found.quantization is not None
    assert "first" in found.quantization.float_ops
    assert not found.quantization.is_integer(found.graph["first"])
    assert found.quantization.is_integer(found.graph["second"])


def test_what_cannot_be_trained_is_refused(trained: Model) -> None:
    asked = needs(trained)
    with pytest.raises(ConfigError, match=r"qat takes samples to learn from, and there are none"):
        create("qat").apply(trained, Needs(inputs=asked.inputs))
    assert asked.lessons is not None
    few = replace(
        asked.lessons,
        inputs={"x": asked.lessons.inputs["x"][:3]},
        truths=np.zeros(3, np.int64),
    )
    with pytest.raises(ConfigError, match="qat learns from some samples and holds others out: 3"):
        create("qat").apply(trained, replace(asked, lessons=few))
    broken = asked.lessons.inputs["x"].copy()
    broken[700] = np.nan
    damaged = replace(asked, lessons=replace(asked.lessons, inputs={"x": broken}))
    with pytest.raises(ConfigError, match="first in sample 700; leave that sample out"):
        create("qat").apply(trained, damaged)
    fewer = replace(asked.lessons, truths=np.zeros(5, np.int64))
    with pytest.raises(ConfigError, match="samples to learn from and 5 truths"):
        create("qat").apply(trained, replace(asked, lessons=fewer))
    with pytest.raises(ConfigError, match="the model is static8 already"):
        create("qat").apply(create("ptq").apply(trained, asked), asked)
    with pytest.raises(ConfigError, match="held_out"):
        create("qat", held_out=1.5)


def test_folding_before_changes_nothing_of_a_network_without_normalisation(trained: Model) -> None:
    folded = prepare_for_codes(trained)
    made = [
        create("qat", epochs=1, bn=bn).apply(folded, needs(trained)) for bn in ("folded", "frozen")
    ]
    assert made[0].digest() == made[1].digest()


def test_scales_are_not_said_to_be_learnt_where_samples_run_one_by_one() -> None:
    builder = GraphBuilder()
    builder.op("reshape", "parted", [builder.input("x", (1, 8))], Reshape((2, 4)))
    builder.op("dense", "rows", ["parted"], Dense(3))
    graph = builder.graph()
    model = Model(graph, random_weights(graph, np.random.default_rng(0)))
    x = np.random.default_rng(1).standard_normal((64, 8), np.float32)
    asked = Needs(inputs={"x": x}, lessons=Lessons({"x": x}, None, Classification(), (model,)))
    with pytest.raises(ConfigError, match="qat, scales: they are learnt from batches"):
        create("qat", epochs=1, scales="learnt").apply(model, asked)
    assert "trained so 2 epochs" in create("qat").apply(model, asked).history[-1]
