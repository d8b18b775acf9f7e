"""A network that is trained as its codes compute: their values, and gradients straight through."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from models.codes import LayerCodes, QParams
from models.fake_quantized import FakeQuantized
from models.graph import GraphBuilder, GraphError
from models.graph_module import GraphModule
from models.integer import integer_reals
from models.model import Model
from models.ops import BatchNorm, Concat, Conv, Dense, Mean, Reshape
from models.simplify import prepare_for_codes
from models.straight_through import fake_quantize, pass_straight, round_to_codes
from pipeline.compress.passes.ptq import calibrate_all
from pipeline.compress.simulated import Simulated, as_array
from tests.random_graphs import RandomNetwork

if TYPE_CHECKING:
    from models.fake_quantized import Scales
    from models.fold import FloatArray
    from models.quantization import Quantization

Inputs = dict[str, np.ndarray[Any, Any]]


def with_norms() -> tuple[Model, Inputs]:
    """Layers with normalisation, one before all layers, a branch that is joined, a sigmoid."""
    builder = GraphBuilder()
    builder.input("x", (1, 6, 5, 3))
    names = [
        builder.constant(f"{norm}.{part}", (channels,))
        for norm, channels in (("lone", 3), ("first_bn", 8), ("left_bn", 6))
        for part in ("scale", "shift", "mean", "variance")
    ]
    builder.op("batchnorm", "lone", ["x", *names[:4]], BatchNorm(epsilon=1e-3))
    builder.op("conv", "first", ["lone"], Conv(out=8, kernel=(3, 3)))
    builder.op("batchnorm", "first_bn", ["first", *names[4:8]], BatchNorm(epsilon=1e-3))
    builder.op("act", "active", ["first_bn"], act="relu")
    builder.op("conv", "left", ["active"], Conv(out=6))
    builder.op("batchnorm", "left_bn", ["left", *names[8:]], BatchNorm(epsilon=1e-3))
    builder.op("conv", "right", ["active"], Conv(out=6), act="relu6")
    builder.op("concat", "both", ["left_bn", "right"], Concat(3))
    builder.op("mean", "pooled", ["both"], Mean())
    builder.op("reshape", "flat", ["pooled"], Reshape((1, 12)))
    builder.op("dense", "scores", ["flat"], Dense(7))
    builder.op("act", "shares", ["scores"], act="sigmoid")
    graph = builder.graph()
    rng = np.random.default_rng(5)
    weights: dict[str, tuple[FloatArray, ...]] = {
        name: (rng.uniform(0.5, 2, builder.shapes[name]).astype(np.float32),) for name in names
    }
    for op in graph.ops:
        if op.has_weights:
            size = np.prod(op.weight_shape[1:]) ** -0.5
            weight = rng.standard_normal(op.weight_shape) * size
            bias = rng.standard_normal(op.out_shape[-1])
            weights[op.name] = (weight.astype(np.float32), bias.astype(np.float32))
    return Model(graph, weights), {"x": rng.standard_normal((24, 6, 5, 3), np.float32)}


def formats(model: Model) -> Quantization:
    assert model.quantization is not None
    return model.quantization


def tensors(inputs: Inputs) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in inputs.items()}


def drawn(seed: int) -> tuple[Model, Inputs, Model]:
    """A random network, samples of its inputs, and the network in int8."""
    model = RandomNetwork(Random(seed)).model(12)
    count = 3 if model.graph.keeps_batch else 1
    rng = np.random.default_rng(seed)
    inputs = {
        tensor.name: rng.standard_normal((count, *tensor.shape[1:]), np.float32)
        for tensor in model.graph.inputs
    }
    return model, inputs, calibrate_all(model, inputs)


def assert_within_a_code(found: Any, expected: Any, quantization: Quantization, name: str) -> None:
    scale = quantization[name].scale if name in quantization.tensors else 0.0
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1.01 * scale + 1e-4)


@pytest.mark.parametrize("scales", ["fixed", "learnt"])
@pytest.mark.parametrize("seed", range(40))
def test_a_random_network_computes_as_its_codes(seed: int, scales: Scales) -> None:
    model, inputs, coded = drawn(seed)
    quantization = formats(coded)
    module = FakeQuantized(model, quantization, scales=scales).eval()
    with torch.no_grad():
        found = module.run(tensors(inputs))
    expected = Simulated(coded, quantization).run_rounded(inputs)
    for name in coded.graph.outputs:
        if coded.graph.dtype(name) == "float32":
            assert_within_a_code(found[name], as_array(expected[name]), quantization, name)
    assert module.quantized().digest() == coded.digest(), (
        "nothing was trained, and all is as it was"
    )


@pytest.mark.parametrize("seed", range(12))
def test_gradients_reach_all_that_they_reach_without_rounding(seed: int) -> None:
    model, inputs, coded = drawn(seed)
    reached = []
    for module in (
        GraphModule(prepare_for_codes(model)),
        FakeQuantized(prepare_for_codes(model), formats(coded)),
    ):
        outputs = module.train().run(tensors(inputs)).values()
        losses = [(out - 0.3).square().mean() for out in outputs if out.requires_grad]
        if losses:
            torch.autograd.backward(torch.stack(losses).sum())
        reached.append(
            {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        )
    assert reached[0].keys() == reached[1].keys()
    for gradient in reached[1].values():
        assert bool(torch.isfinite(gradient).all())


def test_codes_are_those_of_the_integer_arithmetic() -> None:
    model, inputs = with_norms()
    coded = calibrate_all(model, inputs)
    module = FakeQuantized(model, formats(coded)).eval()
    with torch.no_grad():
        found = module.run(tensors(inputs))["shares"].numpy()
    expected = integer_reals(coded, inputs)["shares"]
    assert np.abs(found - expected).max() <= 1.01 * formats(coded)["shares"].scale
    assert np.mean(found == expected) > 0.95


def test_normalisation_is_frozen_and_folded_before_it_is_rounded() -> None:
    model, inputs = with_norms()
    coded = calibrate_all(model, inputs)
    module = FakeQuantized(model, formats(coded)).train()
    torch.autograd.backward(module.run(tensors(inputs))["shares"].square().sum())
    trained = {name for name, p in module.named_parameters() if p.grad is not None}
    places = module._places
    for norm in ("lone", "first_bn", "left_bn"):
        assert {places[f"{norm}.scale"][0], places[f"{norm}.shift"][0]} <= trained
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.1)
    made = module.quantized()
    for norm in ("lone", "first_bn", "left_bn"):
        for part in ("mean", "variance"):
            name = f"{norm}.{part}"
            np.testing.assert_array_equal(module.model().weights[name], model.weights[name])
    expected = prepare_for_codes(module.model())
    assert made.graph == coded.graph
    assert replace(made, quantization=None).digest() == expected.digest()
    # In training mode it computes with these very weights, too.
    with torch.no_grad():
        one, other = (module.train(mode).run(tensors(inputs))["shares"] for mode in (True, False))
    torch.testing.assert_close(one, other)


def test_a_folded_network_is_trained_to_the_same_function() -> None:
    model, inputs = with_norms()
    folded = prepare_for_codes(model)
    coded = calibrate_all(model, inputs)
    with torch.no_grad():
        found = [
            FakeQuantized(one, formats(coded)).run(tensors(inputs))["shares"]
            for one in (model, folded)
        ]
    assert float((found[0] - found[1]).abs().max()) <= 1.01 * formats(coded)["shares"].scale


def test_learnt_scales_are_shared_as_kernels_share_them() -> None:
    model, inputs = with_norms()
    coded = calibrate_all(model, inputs)
    module = FakeQuantized(model, formats(coded), scales="learnt").train()
    torch.autograd.backward(module.run(tensors(inputs))["shares"].square().sum())
    assert module.scales is not None
    assert module.scales.grad is not None
    assert int(torch.count_nonzero(module.scales.grad)) == len(module.scales)
    with torch.no_grad():
        module.scales.mul_(torch.linspace(0.8, 1.3, len(module.scales)))
    before, after = formats(coded), formats(module.eval().quantized())
    assert after["shares"] == before["shares"], "kernels fix that of a sigmoid"
    for name in ("lone.gain", "lone.shift"):
        assert after[name] == before[name]
    assert after["left"] == after["right"] == after["both"]
    changed = [name for name in after.tensors if after[name] != before[name]]
    assert {"x", "first", "both", "scores"} <= set(changed)
    with torch.no_grad():
        found = module.run(tensors(inputs))["shares"].numpy()
    expected = integer_reals(module.quantized(), inputs)["shares"]
    assert np.abs(found - expected).max() <= 1.01 * after["shares"].scale


def test_learnt_scales_stay_near_where_they_began() -> None:
    model, inputs = with_norms()
    coded = calibrate_all(model, inputs)
    module = FakeQuantized(model, formats(coded), scales="learnt")
    assert module.scales is not None
    with torch.no_grad():
        module.scales.copy_(torch.tensor([-1.0, 1e9] * len(module.scales))[: len(module.scales)])
    for name, params in formats(module.quantized()).tensors.items():
        assert 0.2 < params.scale / formats(coded)[name].scale < 5


def test_held_codes_keep_their_scales_and_how_far_they_reach() -> None:
    model, inputs = with_norms()
    coded = calibrate_all(model, inputs)
    quantization, held = formats(coded), {}
    for op in coded.graph.ops:
        if op.has_weights:
            codes = quantization.layer(op, *coded.weights[op.name])
            fewer = np.rint(codes.weight * np.float32(3 / 127)).astype(np.int8)  # 3 bits
            held[op.name] = LayerCodes(fewer, codes.scales * np.float32(127 / 3), codes.bias)
    few = replace(coded, quantization=replace(quantization, weights=held))
    module = FakeQuantized(model, formats(few)).eval()
    made = module.quantized()
    with torch.no_grad():
        found = module.run(tensors(inputs))["shares"].numpy()
    expected = integer_reals(made, inputs)["shares"]
    assert np.abs(found - expected).max() <= 1.01 * quantization["shares"].scale
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.5)
    for name, found_codes in formats(module.quantized()).weights.items():
        assert int(np.abs(found_codes.weight).max()) == 3
        np.testing.assert_array_equal(found_codes.scales, held[name].scales)


def test_values_beyond_the_codes_have_no_gradient() -> None:
    params = QParams(0.5, -100)
    x = torch.tensor([[-14.3, -14.2, 0.1, 113.7, 113.8]], requires_grad=True)
    found = fake_quantize(x, params)
    torch.testing.assert_close(found, torch.tensor([[-14.0, -14.0, 0.0, 113.5, 113.5]]))
    torch.autograd.backward(found, torch.full_like(x, 3.0))
    torch.testing.assert_close(x.grad, torch.tensor([[0.0, 3.0, 3.0, 3.0, 0.0]]))


def test_the_gradient_of_a_scale_is_that_of_lsq() -> None:
    params = QParams(0.5, 0)
    x = torch.tensor([[0.3, -1.1, 900.0, -900.0]])
    scale = torch.tensor(0.5, requires_grad=True)
    torch.autograd.backward(fake_quantize(x, params, scale).sum())
    moved = (round(0.6) - 0.6) + (round(-2.2) + 2.2) + 127 - 128
    assert scale.grad is not None
    assert float(scale.grad) == pytest.approx(moved / (128 * 4) ** 0.5, rel=1e-5)


def test_rounding_is_the_one_of_codes() -> None:
    values = np.random.default_rng(0).standard_normal(500).astype(np.float32) * 3
    for params in (QParams(0.02, -37), QParams(1e-4, 0, "int16")):
        expected = params.dequantize(params.quantize(values))
        np.testing.assert_array_equal(round_to_codes(torch.from_numpy(values), params), expected)
    x = torch.ones(2, requires_grad=True)
    torch.autograd.backward(pass_straight(x, torch.zeros(2)).sum())
    torch.testing.assert_close(x.grad, torch.ones(2))


def test_what_has_codes_already_is_refused() -> None:
    model, inputs = with_norms()
    coded = calibrate_all(model, inputs)
    with pytest.raises(GraphError, match="static8 is not trained"):
        FakeQuantized(coded, formats(coded))
