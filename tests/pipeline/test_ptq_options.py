"""Options of post-training quantisation: ranges, few bits, learnt rounding, corrected biases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from device_agents.errors import ConfigError
from models.channels import find_scalable, scale_channels
from models.codes import LayerCodes, QParams, QuantizationError
from models.execute import execute_all
from models.fold import random_weights
from models.graph import Graph, GraphBuilder
from models.integer import integer_reals
from models.lower import lower
from models.model import Model, random_model
from models.ops import Conv, Deconv, Dense, Depthwise, Mean
from models.spec import ArchSpec
from pipeline.compress.adaround import learn_rounding, see
from pipeline.compress.api import Needs
from pipeline.compress.layer_codes import WeightRules, choose_scales, round_to_nearest
from pipeline.compress.passes import create
from pipeline.compress.quantize import Wanted, quantize
from pipeline.compress.ranges import choose_range, rounding_error
from pipeline.compress.sensitivity import leave_real
from pipeline.compress.simulated import Simulated
from pipeline.formats import create as create_format
from pipeline.formats.api import ReadOptions
from pipeline.formats.convert import write_checked
from pipeline.formats.source import read_model
from pipeline.formats.subjects import ModelSubject
from tests.spec_strategies import REPLAY

GATES = "16x16x3:same:conv_k3_s2_o8:mb_k3_s1_m16_o8_se4-relu-hardsigmoid_skip:fc5"


def graph() -> Graph:
    builder = GraphBuilder()
    x = builder.op("conv", "first", [builder.input("x", (1, 9, 9, 3))], Conv(out=8, kernel=(3, 3)))
    x = builder.op("act", "relu", [x], act="relu")
    deep = builder.op(
        "depthwise", "deep", [x], Depthwise(kernel=(3, 3), padding=(1,) * 4), act="relu"
    )
    side = builder.op("conv", "groups", [deep], Conv(out=8, groups=2), act="relu6")
    x = builder.op("add", "sum", [x, side])
    x = builder.op("deconv", "up", [x], Deconv(out=6, kernel=(2, 2), stride=(2, 2)), act="relu")
    x = builder.op("mean", "pooled", [x], Mean(keepdims=False))
    builder.op("dense", "scores", [x], Dense(5))
    return builder.graph()


def case(samples: int = 48) -> tuple[Model, dict[str, Any]]:
    rng = np.random.default_rng(0)
    model = Model(graph(), random_weights(graph(), rng))
    return model, {"x": rng.standard_normal((samples, 9, 9, 3), np.float32)}


def made(model: Model, inputs: Any, **options: Any) -> Model:
    found: Model = create("ptq", **options).apply(model, Needs(inputs=inputs))
    return found


def codes(model: Model) -> dict[str, LayerCodes]:
    assert model.quantization is not None
    held = model.quantization.weights
    return {name: one for name, one in held.items() if isinstance(one, LayerCodes)}


def error(model: Model, quantized: Model, inputs: Any) -> float:
    """The power of what is wrong with the exact integer outputs, as a share of the outputs'."""
    (real,), (exact,) = (
        list(found.values())
        for found in (execute_all(model, inputs), integer_reals(quantized, inputs))
    )
    return float(np.square(exact - real).sum() / np.square(real).sum())


VALUES = st.builds(
    lambda seed, heavy, one_sided: (
        np.abs(x) if one_sided else x
        for x in [np.random.default_rng(seed).standard_t(heavy, 20_000)]
    ),
    st.integers(0, 2**32),
    st.sampled_from([2.0, 4.0, 30.0]),
    st.booleans(),
).map(lambda one: next(iter(one)))


@REPLAY
@given(VALUES, st.floats(90, 100))
def test_ranges_are_within_what_was_seen(values: Any, percentile: float) -> None:
    bounds = float(values.min()), float(values.max())
    counts = np.histogram(values, 2048, bounds)[0].astype(float)
    errors = {}
    for rule in ("minmax", "percentile", "mse", "kl"):
        low, high = choose_range(bounds, counts, rule, percentile)  # type: ignore[arg-type]
        assert bounds[0] <= low < high <= bounds[1]
        errors[rule] = rounding_error((low, high), values, np.ones_like(values))
        if rule == "percentile":
            inside = ((values >= low) & (values <= high)).mean()
            assert inside >= percentile / 100 - 1e-9
    assert errors["mse"] <= 1.01 * errors["minmax"]
    assert errors["mse"] <= 1.05 * min(errors.values())


def test_a_few_outliers_are_cut_by_their_number_and_not_by_their_error() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.standard_normal(100_000), [80.0, -30.0]])
    bounds = -30.0, 80.0
    counts = np.histogram(values, 2048, bounds)[0].astype(float)
    found = {
        rule: choose_range(bounds, counts, rule, 99.99)  # type: ignore[arg-type]
        for rule in ("minmax", "percentile", "mse", "kl")
    }
    assert found["minmax"] == bounds
    assert found["mse"][1] > 60  # to cut 80 costs more than coarse steps do
    for rule in ("percentile", "kl"):
        low, high = found[rule]
        assert -25 < low < -2.5
        assert 2.5 < high < 25


def test_outputs_of_the_network_keep_their_range() -> None:
    model, inputs = case()
    inputs["x"][0, 0, 0, 0] = 60
    plain, cut = made(model, inputs), made(model, inputs, ranges="percentile", percentile=99.0)
    assert plain.quantization is not None
    assert cut.quantization is not None
    assert cut.quantization["scores"] == plain.quantization["scores"]
    assert cut.quantization["x"].scale < plain.quantization["x"].scale / 5
    assert cut.history[-1] == "calibrated static8 on 48 images, ranges by 99 % of values"


def test_defaults_are_what_they_were() -> None:
    model, inputs = case()
    plain = made(model, inputs)
    assert plain.history[-1] == "calibrated static8 on 48 images"
    assert plain.quantization is not None
    assert not plain.quantization.weights
    assert made(model, inputs, ranges="percentile", percentile=100.0).digest() == plain.digest()


@pytest.mark.parametrize("line", ["", GATES])
def test_every_format_holds_the_codes(line: str, tmp_path: Any) -> None:
    model, inputs = case()
    if line:
        model = random_model(lower(ArchSpec.parse(line)), np.random.default_rng(0))
        rng = np.random.default_rng(1)
        inputs = {"input": rng.standard_normal((48, 16, 16, 3), np.float32)}
    few = made(model, inputs, weight_bits=5, bias_correction=True)
    held = codes(few)
    assert few.quantization is not None
    assert held.keys() == {
        op.name for op in few.graph.ops if few.quantization.is_integer(op) and op.has_weights
    }
    assert max(np.abs(one.weight).max() for one in held.values()) == 15
    source = ModelSubject("model", model)
    name = source.ends.inputs[0].name
    given_inputs = {name: next(iter(inputs.values()))[:, None]}
    for format_ in (create_format("tflite"), create_format("onnx")):
        target = tmp_path / f"few{format_.suffix}"
        write_checked(format_, few, target, source, given_inputs)
        back = read_model(str(target), ReadOptions())
        assert isinstance(back, Model)
        found = sorted(one.weight.ravel().tolist() for one in codes(back).values())
        assert found == sorted(one.weight.ravel().tolist() for one in held.values())


def test_fewer_bits_lose_more_and_learnt_rounding_less() -> None:
    model, inputs = case()
    whole, four, learnt = (
        made(model, inputs, **options)
        for options in (
            {},
            {"weight_bits": 4},
            {"weight_bits": 4, "rounding": "adaround", "iterations": 200},
        )
    )
    losses = [error(model, one, inputs) for one in (whole, learnt, four)]
    assert losses == sorted(losses)
    assert losses[1] < 0.7 * losses[2]
    nearest, chosen = codes(four), codes(learnt)
    for name, one in chosen.items():
        apart = np.abs(one.weight.astype(int) - nearest[name].weight)
        assert apart.max() <= 1
        assert np.abs(one.weight).max() <= 7
    assert (chosen["up"].weight == nearest["up"].weight).all()  # transposed: to nearest
    assert any((chosen[name].weight != nearest[name].weight).any() for name in chosen)
    assert learnt.history[-1] == (
        "calibrated static8 on 48 images; weights of 4 bits, rounding learnt in 200 iterations, "
        "on 48 samples"
    )


@pytest.mark.parametrize("name", ["first", "deep", "groups", "scores"])
def test_what_is_rebuilt_is_never_worse_than_the_nearest(name: str) -> None:
    model, inputs = case()
    quantized = made(model, inputs)
    assert quantized.quantization is not None
    op = quantized.graph[name]
    machine = Simulated(quantized, quantized.quantization)
    tensors = machine.run_real(inputs)
    x, layer = tensors[op.inputs[0]], machine.real[name]
    draws = torch.Generator().manual_seed(0)
    seen = see(op, x, x, layer, 500, draws)
    weight, bias = quantized.weights[name]
    rules = WeightRules(bits=3)
    ends = quantized.quantization[op.inputs[0]], quantized.quantization[name]
    scales = choose_scales(op, weight, bias, rules, ends)
    steps = torch.from_numpy(np.array(scales))
    found = learn_rounding(op, layer, steps, rules.largest, seen, 100, draws).numpy()
    nearest = round_to_nearest(op, weight, scales, rules.largest)

    def loss(chosen: Any) -> float:
        laid = torch.from_numpy(chosen.astype(np.float32)).permute(op.layer.to_torch)
        groups = seen.patches.shape[1]
        unit = steps.expand(len(laid)).reshape(-1, 1)
        rows = (laid.reshape(len(laid), -1) * unit).reshape(groups, len(laid) // groups, -1)
        sums = torch.einsum("pgk,gok->pgo", seen.patches, rows).reshape(len(seen.patches), -1)
        act = torch.relu if op.act == "relu" else (lambda y: torch.clamp(y, 0, 6))
        act = (lambda y: y) if op.act == "none" else act
        return float((act(sums + layer[1]) - act(seen.targets)).square().sum())

    assert loss(found) <= loss(nearest)


def test_corrected_biases_take_the_mean_error_away() -> None:
    model, inputs = case()
    plain, right = (
        made(model, inputs, weight_bits=4, bias_correction=one) for one in (False, True)
    )
    real = execute_all(model, inputs)["scores"].mean(0)
    wrong = [
        np.abs(integer_reals(one, inputs)["scores"].mean(0) - real).max() for one in (plain, right)
    ]
    assert right.quantization is not None
    assert wrong[1] < 0.2 * wrong[0]
    assert wrong[1] < right.quantization["scores"].scale


def test_one_scale_for_a_layer_loses_what_spread_channels_cost_and_equalizing_wins_back() -> None:
    model, inputs = case()
    channels = find_scalable(model.graph)
    most = max(int(along.ids.max(initial=0)) for along in channels.tensors.values())
    factors = np.exp(np.random.default_rng(3).uniform(-3, 3, most + 1))
    factors[0] = 1
    spread = scale_channels(model, channels, factors)
    even = create("equalize").apply(spread, Needs())
    options: dict[str, Any] = {"per_tensor": True, "bias_correction": True}
    lost, regained = (error(model, made(one, inputs, **options), inputs) for one in (spread, even))
    assert regained < lost / 10
    for one in codes(made(even, inputs, **options)).values():
        assert len(set(one.scales.tolist())) == 1


def test_codes_of_the_scheme_with_wide_activations() -> None:
    model, inputs = case()
    wide = made(model, inputs, scheme="static16x8", weight_bits=6, bias_correction=True)
    assert {one.bias.dtype for one in codes(wide).values()} == {np.dtype(np.int64)}
    assert error(model, wide, inputs) < 0.01


def test_options_reach_the_pass_through_quantize() -> None:
    model, inputs = case()
    direct = made(model, inputs, weight_bits=4, ranges="mse")
    scheme = direct.number_format
    wanted = Wanted(scheme, 256, options={"weight_bits": 4, "ranges": "mse"})
    assert quantize(model, inputs, wanted, None).model.digest() == direct.digest()


def test_layers_that_are_left_real_have_their_own_weights(tmp_path: Any) -> None:
    model, inputs = case()
    few = made(model, inputs, weight_bits=3, bias_correction=True)
    mended = leave_real(few, ["first", "groups"])
    assert error(model, mended, inputs) < error(model, few, inputs)
    source = ModelSubject("model", model)
    given_inputs = {source.ends.inputs[0].name: inputs["x"][:, None]}
    for format_ in (create_format("tflite"), create_format("onnx")):
        write_checked(format_, mended, tmp_path / f"part{format_.suffix}", source, given_inputs)


def test_one_image_and_channels_of_zeros_are_no_trouble() -> None:
    model, inputs = case(1)
    weights = {name: tuple(map(np.copy, arrays)) for name, arrays in model.weights.items()}
    weights["first"][0][2:5] = 0
    weights["first"][1][2:4] = 0
    weights["deep"][0][..., 1] = 0
    dead = replace(model, weights=weights)
    for options in (
        {"ranges": "kl"},
        {"ranges": "mse", "weight_bits": 4, "bias_correction": True},
        {"weight_bits": 4, "rounding": "adaround", "iterations": 20, "per_tensor": True},
    ):
        found = made(dead, inputs, **options)
        assert error(dead, found, inputs) < 0.2
        assert all(np.isfinite(one.scales).all() for one in codes(found).values())


def test_a_network_that_is_always_zero_is_quantised() -> None:
    model, inputs = case(4)
    nothing = replace(
        model,
        weights={name: tuple(0 * x for x in arrays) for name, arrays in model.weights.items()},
    )
    for options in ({"ranges": "kl"}, {"weight_bits": 2, "rounding": "adaround", "iterations": 3}):
        found = made(nothing, {"x": 0 * inputs["x"]}, **options)
        assert not integer_reals(found, inputs)["scores"].any()


@pytest.mark.parametrize(
    "options",
    [{"ranges": "mse"}, {"bias_correction": True}, {"rounding": "adaround", "iterations": 2}],
)
def test_bad_samples_are_refused(options: dict[str, Any]) -> None:
    model, inputs = case(3)
    inputs["x"][1, 2, 2, 0] = np.nan
    with pytest.raises(QuantizationError, match=r"tensor 'x' is not finite on the calibration"):
        made(model, inputs, **options)
    with pytest.raises(QuantizationError, match=r"have the shapes .* one N of at least 1"):
        made(model, {"x": np.zeros((0, 9, 9, 3), np.float32)}, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_bits": 9}, "weight_bits"),
        ({"weight_bits": 1}, "weight_bits"),
        ({"percentile": 40.0}, "percentile"),
        ({"iterations": 0}, "iterations"),
        ({"ranges": "entropy"}, "minmax"),
        ({"scheme": "static16x8", "ranges": "kl"}, "'kl' is for int8 activations"),
        ({"percentile": 99.0}, "99 is for ranges=percentile, and ranges is minmax; say so"),
        ({"iterations": 9}, "9 is for rounding=adaround, and rounding is nearest; say so"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create("ptq", **options)


def test_codes_are_of_the_scale_that_is_given() -> None:
    assert rounding_error((0.0, 255.0), np.arange(256.0), np.ones(256)) == 0
    assert QParams.of_range(0.0, 255.0).scale == 1
