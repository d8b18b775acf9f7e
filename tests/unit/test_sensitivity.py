"""Which layer costs a quantised network what: a layer spoilt on purpose is found, and mended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from models import zoo
from models.codes import QParams, QuantizationError
from models.execute import execute_all
from models.fold import random_weights
from models.graph import Graph, GraphBuilder
from models.integer import integer_reals
from models.lower import lower
from models.model import Model
from models.ops import Concat, Conv, Dense, LayerNorm, Mean, Reshape, Softmax
from pipeline.compress.passes.ptq import calibrate_all
from pipeline.compress.sensitivity import (
    advise,
    float_groups,
    leave_real,
    measure_layers,
    simulate_sqnr,
)
from pipeline.compress.simulated import affordable_samples, find_results


def graph() -> Graph:
    """Convolutions, one of which feeds two, and an end that squashes."""
    builder = GraphBuilder()
    builder.input("x", (1, 6, 5, 3))
    builder.op("conv", "first", ["x"], Conv(out=8, kernel=(3, 3)), act="relu")
    builder.op("conv", "left", ["first"], Conv(out=6), act="relu")
    builder.op("conv", "right", ["first"], Conv(out=6), act="relu6")
    builder.op("concat", "both", ["left", "right"], Concat(3))
    builder.op("mean", "pooled", ["both"], Mean(keepdims=False))
    builder.op("dense", "scores", ["pooled"], Dense(7))
    builder.op("softmax", "shares", ["scores"], Softmax(1))
    return builder.graph()


def case(spoilt: str = "") -> tuple[Model, dict[str, Any]]:
    """A calibrated network; one weight of each channel of the spoilt layer dwarfs the others."""
    rng = np.random.default_rng(1)
    weights = dict(random_weights(graph(), rng))
    if spoilt:
        weight, bias = weights[spoilt]
        weight = weight.copy()
        weight[:, 0, 0, 0] = 40 * np.abs(weight).max()
        weights[spoilt] = weight, bias
    inputs = {"x": rng.standard_normal((24, 6, 5, 3), np.float32)}
    if spoilt:
        inputs["x"][..., 0] *= 1e-3  # so that the large weights matter to nothing but the scale
    return calibrate_all(Model(graph(), weights), inputs), inputs


def test_rounding_in_real_numbers_is_the_integer_arithmetic() -> None:
    model, inputs = case()
    logits = replace(model, graph=replace(model.graph, outputs=("scores",)))
    exact, real = (run(logits, inputs)["scores"] for run in (integer_reals, execute_all))
    expected = 10 * np.log10(np.square(real).sum() / np.square(exact - real).sum())
    assert simulate_sqnr(model, inputs) == pytest.approx(expected, abs=0.3)


def test_outputs_are_compared_before_what_squashes_them() -> None:
    assert find_results(graph()) == ("scores",)


def test_a_layer_whose_weights_are_spoilt_comes_first_and_is_suggested() -> None:
    model, inputs = case("first")
    found = measure_layers(model, inputs)
    worst = found.layers[0]
    assert (worst.name, worst.kind) == ("first", "conv")
    assert worst.weight_share > 0.9
    assert worst.share > 0.5
    assert advise(worst) == "its weights: leave it in float32"
    assert "first" in found.suggested
    assert found.suggested_db > found.sqnr_db + 3
    mended = leave_real(model, found.suggested)
    assert simulate_sqnr(mended, inputs) == pytest.approx(found.suggested_db)
    assert float_groups(model.graph, found.layers)[0] == {"first"}


def test_an_output_that_is_rounded_coarsely_is_told_from_weights_that_are() -> None:
    model, inputs = case()
    assert model.quantization is not None
    scales = dict(model.quantization.tensors)
    scales["pooled"] = QParams(scales["pooled"].scale * 12, scales["pooled"].zero_point)
    coarse = replace(model, quantization=replace(model.quantization, tensors=scales))
    found = measure_layers(coarse, inputs)
    assert found.layers[0].name == "pooled"
    assert found.layers[0].weight_share == 0
    assert "its output" in advise(found.layers[0])
    assert float_groups(graph(), found.layers)[0] == {"pooled", "scores"}


def test_losses_are_shares_of_the_whole_and_moving_codes_costs_nothing() -> None:
    model, inputs = case()
    found = measure_layers(model, inputs)
    assert sum(layer.share for layer in found.layers) == pytest.approx(1)
    by_name = {layer.name: layer for layer in found.layers}
    assert by_name.keys() == {"x", *(op.name for op in graph().ops)}
    assert by_name["both"].share < 1e-6
    assert list(found.layers) == sorted(found.layers, key=lambda layer: -layer.share)
    powers = sum(10 ** (-layer.alone_db / 10) for layer in found.layers)
    assert -10 * np.log10(powers) == pytest.approx(found.sqnr_db, abs=3)


def test_large_networks_are_ranked_on_fewer_samples() -> None:
    assert affordable_samples(graph()) == 48
    large = affordable_samples(lower(zoo.get("mobilenet-v2")))
    assert 4 <= large < 48


def test_with_every_op_real_nothing_is_lost() -> None:
    model, inputs = case()
    assert simulate_sqnr(leave_real(model, [op.name for op in graph().ops]), inputs) == np.inf


def test_ops_that_stay_real_anyway_are_no_layers_of_a_loss() -> None:
    builder = GraphBuilder()
    builder.input("x", (1, 4, 8))
    builder.op("dense", "wide", ["x"], Dense(8))
    for name in ("scale", "shift"):
        builder.constant(name, (8,))
    builder.op("layernorm", "norm", ["wide", "scale", "shift"], LayerNorm(1, 1e-5))
    builder.op("reshape", "flat", ["norm"], Reshape((1, 32)))
    builder.op("dense", "out", ["flat"], Dense(3))
    rng = np.random.default_rng(0)
    inputs = {"x": rng.standard_normal((8, 4, 8), np.float32)}
    network = builder.graph()
    model = calibrate_all(Model(network, random_weights(network, rng)), inputs)
    found = measure_layers(model, inputs)
    # `flat` is rounded where the layer reads it.
    assert {layer.name for layer in found.layers} == {"x", "wide", "flat", "out"}


def test_a_network_without_codes_is_refused() -> None:
    model, inputs = case()
    with pytest.raises(QuantizationError, match="a float32 network has no activations as codes"):
        measure_layers(replace(model, quantization=None), inputs)
