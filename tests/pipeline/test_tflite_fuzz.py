"""Random networks: the native files compute what torch computes, in both number formats."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hypothesis import Phase, given, settings

from models.execute import execute
from models.graph import INPUT
from models.integer import integer_logits
from models.lower import lower
from models.model import Model, random_model
from models.quantization import (
    hardsigmoid_sources,
)
from models.torch_forms import run_op
from pipeline.compress.passes.ptq import calibrate
from pipeline.formats import create
from pipeline.formats.figures import compare
from pipeline.formats.files import run_content
from pipeline.formats.onnx import ONNX
from pipeline.formats.onnx.write import write_onnx
from pipeline.formats.tflite.write import write_tflite
from pipeline.formats.verify import compute_integers
from tests.spec_strategies import REPLAY, specs

if TYPE_CHECKING:
    from models.spec import ArchSpec

# A failure is shown as found: shrinking would run hundreds of files.
EXAMPLES = settings(REPLAY, max_examples=100, phases=[Phase.explicit, Phase.generate])
FEWER = settings(EXAMPLES, max_examples=50)


def sample(spec: ArchSpec) -> tuple[Model, np.ndarray[Any, Any]]:
    graph = lower(spec)
    height, width, channels = graph.image_shape
    rng = np.random.default_rng(7)
    images = rng.standard_normal((6, channels, height, width), np.float32)
    return random_model(graph, rng), images


def run(format_: str, content: bytes, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return run_content(create(format_), content, images)


def simulate(model: Model, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Execute in torch with every weight and tensor rounded to its codes: another opinion."""
    graph, weights, quantization = model.graph, model.weights, model.quantization
    assert quantization is not None
    gates = hardsigmoid_sources(graph, None)

    def rounded(name: str, tensor: torch.Tensor) -> torch.Tensor:
        params = quantization[name]
        return torch.from_numpy(params.dequantize(params.quantize(tensor.numpy())))

    tensors = {INPUT: rounded(INPUT, torch.from_numpy(images))}
    for op in graph.ops:
        layer: tuple[np.ndarray[Any, Any], ...] = ()
        if op.has_weights:
            weight, bias = weights[op.name]
            codes = quantization.layer(op, weight, bias + np.float32(3 if op.name in gates else 0))
            scales = np.broadcast_to(codes.scales, bias.shape)
            shape = [1] * weight.ndim
            shape[op.layer.channel_axis] = -1
            in_scale = np.float32(quantization[op.inputs[0]].scale)
            layer = (codes.weight * scales.reshape(shape), codes.bias * scales * in_scale)
        inputs = [tensors[name] for name in op.inputs]
        if op.act == "hardsigmoid":
            result = inputs[0] / 6
        elif op.act == "silu":
            gate = np.round(torch.sigmoid(inputs[0]).numpy() * 256).clip(0, 255) / 256
            result = inputs[0] * torch.from_numpy(gate.astype(np.float32))
        else:
            with torch.no_grad():
                result = run_op(op, inputs, [torch.from_numpy(np.float32(a)) for a in layer])
        if op.name in gates:
            result = result.clamp(0, 6)
        tensors[op.name] = rounded(op.name, result)
    return tensors[graph.output.name].numpy()


@EXAMPLES
@given(specs())
def test_float_files_compute_what_torch_computes(spec: ArchSpec) -> None:
    model, images = sample(spec)
    expected = execute(model, images).numpy()
    limit = 1e-5 * max(1.0, float(np.abs(expected).max()))
    assert np.abs(run("tflite", write_tflite(model), images) - expected).max() <= limit
    assert np.abs(run("onnx", write_onnx(model), images) - expected).max() <= limit


@FEWER
@given(specs())
def test_integer_arithmetic_is_what_rounded_torch_computes(spec: ArchSpec) -> None:
    model, images = sample(spec)
    model = calibrate(model, images)
    quantization = model.quantization
    assert quantization is not None
    for form in (quantization, replace(quantization, dense_per_output=False)):
        quantized = replace(model, quantization=form)
        found = integer_logits(quantized, images)
        apart = np.abs(found - simulate(quantized, images))
        step = quantization[model.graph.output.name].scale
        # The same rounding in float32 and in another order: a code on the border may fall either
        # way, and the layers after it carry that on.
        assert np.median(apart) <= 1.001 * step
        assert apart.max() <= 6 * step


@FEWER
@given(specs())
def test_int8_files_compute_what_their_codes_mean(spec: ArchSpec) -> None:
    model, images = sample(spec)
    model = calibrate(model, images)
    assert model.quantization is not None
    exact = execute(model, images).numpy()
    for exporter, content in (
        (create("tflite"), write_tflite(model)),
        (create("onnx"), write_onnx(model)),
        (ONNX("int8"), write_onnx(model, weight_type="int8")),
    ):
        form = exporter.read_quantization(content, model.graph)
        assert form is not None
        assert form.tensors == model.quantization.tensors
        integers = compute_integers(exporter, content, model, images)
        found = compare(exact, run_content(exporter, content, images), None, integers)
        assert found.integers is not None
        assert found.integers.agrees, (exporter.int8_form, found)
