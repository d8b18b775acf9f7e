"""Random networks: the native files compute what torch computes, in both number formats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hypothesis import Phase, given, settings

from models.execute import _run, execute
from models.fold import Weights, random_weights
from models.graph import INPUT, Graph, lower
from pipeline.compress.ptq import calibrate
from pipeline.compress.quantization import (
    Quantization,
    channel_axis,
    hardsigmoid_sources,
    quantize_layer,
)
from pipeline.export import create
from pipeline.export.onnx import write_onnx
from pipeline.export.tflite import write_tflite
from tests.spec_strategies import REPLAY, specs

if TYPE_CHECKING:
    from models.spec import ArchSpec

# A failure is shown as found: shrinking would run hundreds of files.
EXAMPLES = settings(REPLAY, max_examples=100, phases=[Phase.explicit, Phase.generate])


def sample(spec: ArchSpec) -> tuple[Graph, Weights, np.ndarray[Any, Any]]:
    graph = lower(spec)
    height, width, channels = graph.input_shape
    rng = np.random.default_rng(7)
    images = rng.standard_normal((6, channels, height, width), np.float32)
    return graph, random_weights(graph, rng), images


def run(format_: str, content: bytes, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    exporter = create(format_)
    io = exporter.describe(content)
    return io.unpack(exporter.run(content, io.pack(images)))


def simulate(
    graph: Graph, weights: Weights, quantization: Quantization, images: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Execute with every weight and tensor rounded to its codes: what integer kernels compute."""
    gates = hardsigmoid_sources(graph)

    def rounded(name: str, tensor: torch.Tensor) -> torch.Tensor:
        params = quantization[name]
        return torch.from_numpy(params.dequantize(params.quantize(tensor.numpy())))

    tensors = {INPUT: rounded(INPUT, torch.from_numpy(images))}
    for op in graph.ops:
        layer = {}
        if op.has_weights:
            weight, bias = weights[op.name]
            scales = quantization[op.inputs[0]].scale, quantization[op.name].scale
            shifted = bias + np.float32(3 if op.name in gates else 0)
            codes = quantize_layer(op, weight, shifted, in_scale=scales[0], out_scale=scales[1])
            shape = [1] * weight.ndim
            shape[channel_axis(op)] = -1
            real = codes.weight * codes.scales.reshape(shape)
            layer[op.name] = (real, codes.bias * codes.scales * np.float32(scales[0]))
        inputs = [tensors[name] for name in op.inputs]
        if op.kind == "act" and op.act == "hardsigmoid":
            result = inputs[0] / 6
        elif op.kind == "act" and op.act == "silu":
            gate = np.round(torch.sigmoid(inputs[0]).numpy() * 256).clip(0, 255) / 256
            result = inputs[0] * torch.from_numpy(gate.astype(np.float32))
        else:
            with torch.no_grad():
                result = _run(op, layer, inputs)
        if op.name in gates:
            result = result.clamp(0, 6)
        tensors[op.name] = rounded(op.name, result)
    return tensors[graph.output.name].numpy()


def rms(values: np.ndarray[Any, Any]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


@EXAMPLES
@given(specs())
def test_float_files_compute_what_torch_computes(spec: ArchSpec) -> None:
    graph, weights, images = sample(spec)
    expected = execute(graph, weights, images).numpy()
    limit = 1e-5 * max(1.0, float(np.abs(expected).max()))
    assert np.abs(run("tflite", write_tflite(graph, weights), images) - expected).max() <= limit
    assert np.abs(run("onnx", write_onnx(graph, weights), images) - expected).max() <= limit


@EXAMPLES
@given(specs())
def test_int8_files_compute_what_rounded_torch_computes(spec: ArchSpec) -> None:
    graph, weights, images = sample(spec)
    quantization = calibrate(graph, weights, images)
    exact = execute(graph, weights, images).numpy()
    expected = simulate(graph, weights, quantization, images)
    step = quantization[graph.output.name].scale
    files = [
        ("tflite", write_tflite(graph, weights, quantization)),
        ("onnx", write_onnx(graph, weights, quantization)),
        ("onnx", write_onnx(graph, weights, quantization, activations="int8")),
    ]
    for format_, content in files:
        found = run(format_, content, images)
        # Kernels round at other places than torch, and what rounding does to the output depends
        # on the network: the difference must stay below what rounding itself does there.
        assert rms(found - expected) <= rms(expected - exact) + 2 * step, format_
        assert rms(found - exact) <= 1.5 * (rms(expected - exact) + 2 * step), format_
