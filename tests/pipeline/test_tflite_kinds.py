"""Every kind of op in TFLite files: int8, in part, halves, operators and their limits."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from models.codes import QParams
from models.graph import GraphBuilder
from models.model import Model
from models.ops import FLOAT, KINDS, compute
from models.quantization import Quantization
from models.simplify import fold_batchnorm
from pipeline.formats.tflite.write import write_tflite
from tests.op_draws import SEEDS, Arrays, drawn, modelled

DISCONTINUOUS = ("mod", "floordiv")
"""Kinds that jump, so that the last bit of a real number decides."""


def values_of(model: Model, inputs: Arrays) -> Arrays:
    """What the references give of every tensor of a model."""
    known = {**inputs, **{t.name: model.weights[t.name][0] for t in model.graph.constants}}
    for op in model.graph.ops:
        own = model.weights[op.name] if op.has_weights else ()
        known[op.name] = compute(op, [*(known[name] for name in op.inputs), *own])
    return known


def scales_of(model: Model, inputs: Arrays) -> Quantization:
    """Parameters of every float32 tensor, whatever TFLite has integer kernels for."""
    graph, values = model.graph, values_of(model, inputs)
    real = [name for name in graph.tensors if graph.dtype(name) == FLOAT]
    found = {n: QParams.of_range(float(values[n].min()), float(values[n].max())) for n in real}
    for op in graph.ops:
        floats = [name for name in (*op.inputs, op.name) if name in found]
        if op.rules.shares_scale:
            found |= dict.fromkeys(floats, max((found[n] for n in floats), key=lambda p: p.scale))
        if op.rules.keeps_scale and op.name in found:
            found[op.name] = found[op.inputs[0]]
        if op.act in op.rules.fixed_scale:
            found[op.name] = QParams(*op.rules.fixed_scale[op.act])
    return Quantization(found, dense_per_output=False)


def operators(content: bytes) -> list[str]:
    """The names of a file's operators."""
    return [item["op_name"] for item in Interpreter(model_content=content)._get_ops_details()]


def run(content: bytes, inputs: Arrays) -> dict[str, Any]:
    """Run samples one by one by the names of the signature."""
    runner = Interpreter(model_content=content, num_threads=1).get_signature_runner()
    count = len(next(iter(inputs.values()), [0]))
    rows = [
        runner(**{n: np.ascontiguousarray(x[i : i + 1]) for n, x in inputs.items()})
        for i in range(count)
    ]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def meanings_of(model: Model, scales: Quantization, inputs: Arrays) -> Arrays:
    """What every tensor means: an op with codes reads and gives what codes mean, as the inputs."""

    def meant(name: str, value: Any) -> Any:
        params = scales.tensors.get(name)
        return value if params is None else params.dequantize(params.quantize(value))

    known = {name: meant(name, value) for name, value in inputs.items()}
    known |= {tensor.name: model.weights[tensor.name][0] for tensor in model.graph.constants}
    for op in model.graph.ops:
        integer = scales.is_integer(op)
        read = [meant(name, known[name]) if integer else known[name] for name in op.inputs]
        own: tuple[Any, ...] = ()
        if op.has_weights:
            codes = scales.layer(op, *model.weights[op.name])
            bias = codes.bias * codes.scales * np.float32(scales[op.inputs[0]].scale)
            own = codes.dequantize(op), bias.astype(np.float32)
        result = compute(op, [*read, *own])
        known[op.name] = meant(op.name, result) if integer else result
    return known


@pytest.mark.parametrize(
    ("kind", "seed"),
    [*product([kind for kind in KINDS if kind not in DISCONTINUOUS], range(SEEDS))],
)
def test_int8_files_of_every_kind_are_within_a_step(kind: str, seed: int) -> None:
    model, inputs = modelled(drawn(kind, seed))
    model = fold_batchnorm(model)
    op = model.graph.output
    if kind == "maxpool" and op.attributes.dilation != (1, 1):
        return  # no operator of TFLite
    if op.act == "hardsigmoid":
        return  # half of it is in the layer before: the contract test of ops has it
    scales = scales_of(model, inputs)
    content = write_tflite(replace(model, quantization=scales))
    given = {n: scales[n].quantize(x) if n in scales.tensors else x for n, x in inputs.items()}
    (found,) = run(content, given).values()
    expected = meanings_of(model, scales, inputs)[op.name]
    assert found.shape == expected.shape
    if found.dtype == np.int8:
        codes = scales[op.name].quantize(expected).astype(int)
        assert np.abs(found - codes).max() <= (1 if len(model.graph.ops) == 1 else 2)
    elif found.dtype == np.float32:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("integer", [False, True])
def test_a_hard_sigmoid_may_stand_anywhere(*, integer: bool) -> None:
    """Behind a layer half of it is fused; behind anything else it is three operators in two."""
    builder = GraphBuilder()
    builder.op("act", "gate", [builder.input("x", (1, 5, 7, 3))], act="hardsigmoid")
    x = 4 * np.random.default_rng(0).standard_normal((3, 5, 7, 3), np.float32)
    model = Model(builder.graph(), {})
    scales = scales_of(model, {"x": x})
    expected = values_of(model, {"x": x})["gate"]
    content = write_tflite(replace(model, quantization=scales) if integer else model)
    assert operators(content) == ["ADD", "MUL"]
    (found,) = run(content, {"x": scales["x"].quantize(x) if integer else x}).values()
    real = scales["gate"].dequantize(found) if integer else found
    assert np.abs(real - expected).max() < (0.02 if integer else 1e-6)
