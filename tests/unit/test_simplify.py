"""Folding and fusing change which ops there are, and nothing that is computed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.execute import execute_all
from models.graph import GraphBuilder
from models.model import Model
from models.ops import AvgPool, BatchNorm, Conv, Deconv, Dense, Depthwise, Mean
from models.quantization import Quantization
from models.simplify import average_whole_maps, fold_batchnorm, fuse_activations
from tests.op_draws import referred


def normalised(*, twice: bool = False) -> Model:
    """Every kind of layer with its normalisation, and one that follows no layer."""
    builder, rng = GraphBuilder(), np.random.default_rng(3)
    weights: dict[str, tuple[np.ndarray, ...]] = {}

    def norm(name: str, reads: str, act: str = "none") -> str:
        channels = builder.shapes[reads][-1]
        parameters = []
        for part in ("scale", "shift", "mean", "variance"):
            value = rng.standard_normal(channels, np.float32)
            weights[f"{name}.{part}"] = (np.abs(value) + 0.5 if part == "variance" else value,)
            parameters.append(builder.constant(f"{name}.{part}", (channels,)))
        return builder.op("batchnorm", name, [reads, *parameters], BatchNorm(1e-3), act=act)

    x = builder.input("x", (1, 7, 5, 3))
    x = norm("first", x)
    x = norm("bn1", builder.op("conv", "conv", [x], Conv(out=4, kernel=(3, 2))), "relu")
    x = norm("bn2", builder.op("depthwise", "depthwise", [x], Depthwise(multiplier=2)))
    x = builder.op("act", "relu", [x], act="relu6")
    deconv = builder.op("deconv", "deconv", [x], Deconv(out=5, kernel=(2, 3), stride=(2, 1)))
    x = norm("bn3", deconv)
    x = builder.op("mean", "mean", [x], Mean(keepdims=False))
    x = norm("bn4", builder.op("dense", "dense", [x], Dense(6)))
    outputs = (x, deconv) if twice else (x,)
    graph = builder.graph(*outputs)
    for op in graph.ops:
        if op.has_weights:
            shapes = (op.weight_shape, op.out_shape[-1:])
            weights[op.name] = tuple(rng.standard_normal(shape, np.float32) for shape in shapes)
    return Model(graph, weights)


@pytest.mark.parametrize("twice", [False, True])
def test_normalisation_is_folded_into_layers_that_nothing_else_reads(*, twice: bool) -> None:
    model = normalised(twice=twice)
    folded = fold_batchnorm(model)
    kinds = [op.kind for op in folded.graph.ops]
    behind = ["mul", "add"] if twice else []
    assert kinds == [
        *("mul", "add", "conv", "depthwise", "act", "deconv", *behind, "mean", "dense"),
    ]
    assert folded.graph["conv"].act == "relu"
    x = {"x": np.random.default_rng(0).standard_normal((2, 7, 5, 3), np.float32)}
    found = list(referred(folded, x).values())
    for value, expected in zip(found, referred(model, x).values(), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)
    constants = {constant.name for constant in folded.graph.constants}
    layers = {op.name for op in folded.graph.ops if op.has_weights}
    assert folded.weights.keys() == constants | layers
    assert fold_batchnorm(folded) is folded


def test_activations_are_fused_where_nothing_else_reads_what_is_before() -> None:
    model = fold_batchnorm(normalised())
    fused = fuse_activations(model)
    assert "act" not in [op.kind for op in fused.graph.ops]
    assert fused.graph["depthwise"].act == "relu6"
    x = {"x": np.random.default_rng(0).standard_normal((2, 7, 5, 3), np.float32)}
    for value, expected in zip(
        referred(fused, x).values(), referred(model, x).values(), strict=True
    ):
        np.testing.assert_array_equal(value, expected)
    seen = replace(model, graph=replace(model.graph, outputs=("dense", "depthwise")), outputs=())
    assert fuse_activations(seen) is seen


def test_a_pool_of_a_whole_map_is_a_mean() -> None:
    builder = GraphBuilder()
    builder.input("x", (1, 4, 6, 3))
    builder.op("avgpool", "whole", ["x"], AvgPool(kernel=(4, 6), stride=(4, 6)))
    builder.op("avgpool", "part", ["x"], AvgPool(kernel=(4, 3), stride=(4, 3)))
    builder.op("avgpool", "wide", ["x"], AvgPool(kernel=(4, 6), padding=(1, 0, 0, 0)))
    model = Model(builder.graph("whole", "part", "wide"), {})
    found = average_whole_maps(model)
    assert [op.kind for op in found.graph.ops] == ["mean", "avgpool", "avgpool"]
    x = {"x": np.random.default_rng(0).standard_normal((2, 4, 6, 3), np.float32)}
    for name, value in execute_all(model, x).items():
        np.testing.assert_allclose(execute_all(found, x)[name], value, rtol=1e-5, atol=1e-6)
    assert average_whole_maps(found) is found


def test_normalisation_is_not_folded_into_layers_whose_codes_are_kept() -> None:
    model = normalised()
    held = replace(model, quantization=Quantization({}, float_ops=frozenset({"bn1", "bn2"})))
    folded = fold_batchnorm(held)
    layers = [op.name for op in model.graph.ops if op.has_weights]
    for name in layers:
        for kept, before in zip(folded.weights[name], model.weights[name], strict=True):
            np.testing.assert_array_equal(kept, before)
    assert folded.quantization is not None
    assert {"bn1", "bn1.scaled", "bn2", "bn2.scaled"} == folded.quantization.float_ops
    x = {"x": np.random.default_rng(0).standard_normal((2, 7, 5, 3), np.float32)}
    for value, expected in zip(
        referred(folded, x).values(), referred(model, x).values(), strict=True
    ):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)
