"""Quantisation parameters: ranges, sharing, layers, and what calibration sees."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.codes import SIGMOID, QParams, QuantizationError, quantize_layer
from models.execute import execute
from models.graph import INPUT, Op
from models.lower import lower
from models.model import Model, random_model
from models.ops import Conv, Dense, Depthwise
from models.quantization import Quantization
from models.scales import random_quantization
from models.spec import ArchSpec
from pipeline.compress.passes.ptq import calibrate
from pipeline.formats import create
from pipeline.formats.figures import compare
from pipeline.formats.files import run_content
from tests.spec_strategies import REPLAY, specs

if TYPE_CHECKING:
    import torch

LINE = (
    "16x16x3:same:conv_k3_s2_o8:mb_k3_s1_m16_o8_se4-relu-hardsigmoid_skip:"
    "mb_k3_s1_m16_o8_silu_se4-relu-sigmoid_poolskip:fc5"
)
FINITE = st.floats(-1e6, 1e6, width=32)


def case(count: int = 40) -> tuple[Model, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    model = random_model(lower(ArchSpec.parse(LINE)), rng)
    return model, rng.standard_normal((count, 3, 16, 16), np.float32)


def calibrated(model: Model, images: np.ndarray[Any, Any]) -> Quantization:
    found = calibrate(model, images).quantization
    assert found is not None
    return found


@REPLAY
@given(FINITE, FINITE)
def test_a_range_is_covered_and_zero_is_exact(a: float, b: float) -> None:
    params = QParams.of_range(min(a, b), max(a, b))
    assert -128 <= params.zero_point <= 127
    zero = np.zeros(1, np.float32)
    assert params.dequantize(params.quantize(zero)) == 0
    ends = np.array([min(a, b, 0), max(a, b, 0)], np.float32)
    error = np.abs(params.dequantize(params.quantize(ends)) - ends)
    # The zero point is rounded, which moves each end by up to half a step, and then the code is.
    assert (error <= 1.01 * params.scale).all()


def test_known_ranges() -> None:
    assert QParams.of_range(0, 6) == QParams(float(np.float32(6 / 255)), -128)
    assert QParams.of_range(-1, 1) == QParams(
        float(np.float32(2 / 255)), 0
    )  # -0.5, rounded to even
    assert QParams.of_range(2, 4).zero_point == -128  # widened to contain 0
    assert QParams.of_range(-4, -2).zero_point == 127
    assert QParams.of_range(0, 0) == QParams(1.0, 0)  # a dead tensor: any scale will do


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_range_that_is_not_finite_is_refused_with_the_tensor(bad: float) -> None:
    model, images = case()
    images[3, 0, 0, 0] = bad
    with pytest.raises(QuantizationError, match=r"tensor 'input'.*not finite"):
        calibrate(model, images)


def test_calibration_is_the_minimum_and_maximum_over_all_images() -> None:
    model, images = case(70)  # more than two batches
    images[-1] *= 5  # the extremes come last and once
    quantization = calibrated(model, images)
    seen: dict[str, torch.Tensor] = {}
    execute(model, images, lambda name, tensor: seen.update({name: tensor.clone()}))
    for name in (INPUT, "blocks.0.conv", "blocks.1.add", "dense.0"):
        low, high = float(seen[name].min()), float(seen[name].max())
        expected = QParams.of_range(low, high)
        assert quantization[name].scale == pytest.approx(expected.scale, rel=1e-5)
        assert quantization[name].zero_point == expected.zero_point


def test_what_kernels_fix_is_fixed() -> None:
    model, images = case()
    for quantization in (calibrated(model, images), random_quantization(model.graph)):
        assert quantization["blocks.2.pool"] == quantization["blocks.1.add"]
        assert quantization["blocks.2.se.expand.act"] == SIGMOID
        # relu6(x + 3) of a gate, and its sixth
        gate = quantization["blocks.1.se.expand"]
        assert gate.zero_point == -128
        assert gate.scale * 255 <= 6.001
        assert quantization["blocks.1.se.expand.act"].scale * 255 <= 1.001


@pytest.mark.parametrize(
    ("images", "shape"),
    [(np.zeros((0, 3, 16, 16), np.float32), "(0, 3, 16, 16)"),
     (np.zeros((4, 16, 16, 3), np.float32), "(4, 16, 16, 3)")],
)  # fmt: skip
def test_images_that_do_not_fit_are_refused(images: np.ndarray[Any, Any], shape: str) -> None:
    model, _ = case()
    with pytest.raises(QuantizationError) as error:
        calibrate(model, images)
    assert shape in str(error.value)
    assert "(N, 3, 16, 16)" in str(error.value)


def test_json_round_trip_through_text() -> None:
    model, images = case()
    quantization = calibrated(model, images)
    for form in (quantization, replace(quantization, dense_per_output=False)):
        assert Quantization.from_json(json.loads(json.dumps(form.to_json()))) == form
    with pytest.raises(QuantizationError, match="not quantisation parameters"):
        Quantization.from_json({"input": [0.1]})


def test_a_missing_tensor_is_named() -> None:
    with pytest.raises(
        QuantizationError, match=r"tensor 'dense\.0' has no quantisation parameters"
    ):
        Quantization({})["dense.0"]


@REPLAY
@given(specs())
def test_random_quantization_covers_every_tensor(spec: ArchSpec) -> None:
    graph = lower(spec)
    found = random_quantization(graph)
    assert set(found.tensors) == {INPUT, *(op.name for op in graph.ops)}


CONV = Op("conv", "c", (INPUT,), ((1, 4, 4, 3),), Conv(out=4))
DEPTHWISE = Op(
    "depthwise", "d", (INPUT,), ((1, 4, 4, 4),), Depthwise(kernel=(3, 3), padding=(1, 1, 1, 1))
)
DENSE = Op("dense", "f", (INPUT,), ((1, 8),), Dense(4))


@pytest.mark.parametrize("op", [CONV, DEPTHWISE, DENSE], ids=lambda op: op.kind)
def test_layers_are_quantised_per_output_channel(op: Op) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(op.weight_shape, np.float32)
    axis = 3 if op.kind == "depthwise" else 0
    shape = [1] * weight.ndim
    shape[axis] = 4
    weight *= np.array([0.01, 1, 5, 100], np.float32).reshape(shape)
    bias = rng.standard_normal(4).astype(np.float32)
    codes = quantize_layer(op, weight, bias, in_scale=0.02, out_scale=0.05)
    assert codes.weight.dtype == np.int8
    assert codes.weight.min() >= -127
    others = tuple(i for i in range(weight.ndim) if i != axis)
    np.testing.assert_array_equal(np.abs(codes.weight).max(axis=others), 127)
    np.testing.assert_allclose(codes.scales, np.abs(weight).max(axis=others) / 127, rtol=1e-6)
    real = codes.weight * codes.scales.reshape(shape)
    assert (np.abs(real - weight) <= 0.501 * codes.scales.reshape(shape)).all()
    steps = codes.scales.astype(np.float64) * 0.02
    assert (np.abs(codes.bias * steps - bias) <= 0.501 * steps).all()


@pytest.mark.parametrize("op", [CONV, DEPTHWISE, DENSE], ids=lambda op: op.kind)
def test_a_layer_may_have_one_scale_for_all_its_outputs(op: Op) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal(op.weight_shape, np.float32)
    bias = np.array([0, 1, -2, 900], np.float32)
    codes = quantize_layer(op, weight, bias, in_scale=0.02, out_scale=0.05, per_output=False)
    assert codes.scales.shape == (1,)
    assert codes.scales[0] == pytest.approx(np.abs(weight).max() / 127)
    assert np.abs(codes.weight).max() == 127
    assert (np.abs(codes.weight * codes.scales - weight) <= 0.501 * codes.scales).all()
    step = codes.scales.astype(np.float64) * 0.02
    assert (np.abs(codes.bias * step - bias) <= 0.501 * step).all()


def test_scales_are_those_that_a_file_can_hold() -> None:
    assert QParams(1 / 3, 0).scale == np.float32(1 / 3)
    assert QParams(1 / 3, 0) == QParams(float(np.float32(1 / 3)), 0)


def test_a_bias_never_overflows_int32() -> None:
    weight = np.full(CONV.weight_shape, 1e-9, np.float32)
    bias = np.array([0, 1, -1000, 1e6], np.float32)
    codes = quantize_layer(CONV, weight, bias, in_scale=1e-4, out_scale=0.05)
    assert np.abs(codes.bias.astype(np.int64)).max() <= 2**30
    np.testing.assert_allclose(codes.bias * codes.scales.astype(np.float64) * 1e-4, bias, rtol=1e-4)


def test_channels_of_zeros_keep_their_bias() -> None:
    weight = np.zeros(CONV.weight_shape, np.float32)
    bias = np.array([0, 0.5, -0.25, 3], np.float32)
    codes = quantize_layer(CONV, weight, bias, in_scale=0.02, out_scale=0.05)
    assert (codes.weight == 0).all()
    assert (codes.scales > 0).all()
    np.testing.assert_allclose(codes.bias * codes.scales.astype(np.float64) * 0.02, bias, rtol=1e-4)


def test_a_rescaling_that_runtimes_refuse_is_refused_by_name() -> None:
    weight, bias = np.ones(CONV.weight_shape, np.float32), np.zeros(4, np.float32)
    with pytest.raises(QuantizationError, match=r"op 'c': input \* weight / output scale is 787"):
        quantize_layer(CONV, weight, bias, in_scale=1.0, out_scale=1e-5)


@pytest.mark.parametrize("gain", [0.0, 1e-30, 1e-12, 1e-6, 1e3, 1e6])
def test_dead_and_nearly_dead_layers_still_make_files_that_run(gain: float) -> None:
    """Some kernels refuse, and one aborts the process, where scales are far apart."""
    model, images = case()
    for name in ("blocks.0.conv", "blocks.1.depthwise", "blocks.2.project", "blocks.2.expand"):
        weight, bias = model.weights[name]
        weights = {**model.weights, name: (weight * np.float32(gain), bias * np.float32(gain))}
        scaled = calibrate(replace(model, weights=weights), images)
        expected = execute(scaled, images).numpy()
        for format_ in ("tflite", "onnx"):
            exporter = create(format_)
            content = exporter.write(scaled)
            found = compare(expected, run_content(exporter, content, images))
            assert found.sqnr_db > 15, (name, format_)


def test_weights_that_are_not_finite_are_refused_by_name() -> None:
    weight = np.full(CONV.weight_shape, np.nan, np.float32)
    with pytest.raises(QuantizationError, match="op 'c' has weights or biases"):
        quantize_layer(CONV, weight, np.zeros(4, np.float32), in_scale=0.1, out_scale=0.1)


def test_files_that_are_only_timed_need_no_torch() -> None:
    code = (
        "import sys, numpy as np\n"
        "from models.lower import lower\n"
        "from models.spec import ArchSpec\n"
        "from models.model import random_model\n"
        "from models.number_format import STATIC8\n"
        "from pipeline.formats import create\n"
        f"graph = lower(ArchSpec.parse({LINE!r}))\n"
        "model = random_model(graph, np.random.default_rng(0), STATIC8)\n"
        "create('tflite').write(model)\n"
        "loaded = {'torch', 'tensorflow', 'onnx', 'onnxruntime'} & set(sys.modules)\n"
        "sys.exit(str(sorted(loaded)) if loaded else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
