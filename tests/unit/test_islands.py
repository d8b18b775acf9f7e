"""Ops that stay real among ops with codes: which they are, and what is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.execute import execute_all
from models.fold import random_weights
from models.graph import Graph, GraphBuilder
from models.integer import integer_outputs, integer_reals
from models.islands import find_float_ops
from models.model import Model
from models.number_format import STATIC8, STATIC16X8, NumberFormat
from models.ops import Concat, Conv, Dense, LayerNorm, Reshape, Softmax, Transpose, Unary
from models.quantization import hardsigmoid_sources
from models.scales import from_ranges, random_quantization


def encoder() -> Graph:
    """A layer norm between dense layers, shapes moved about on both sides of it."""
    builder = GraphBuilder()
    builder.input("x", (1, 3, 4, 2))
    builder.op("reshape", "flat", ["x"], Reshape((1, 3, 8)))
    builder.op("dense", "wide", ["flat"], Dense(8))
    builder.op("transpose", "turned", ["wide"], Transpose((0, 2, 1)))
    builder.constant("scale", (3,))
    builder.constant("shift", (3,))
    builder.op("layernorm", "norm", ["turned", "scale", "shift"], LayerNorm(1, 1e-5))
    builder.op("transpose", "back", ["norm"], Transpose((0, 2, 1)))
    builder.op("dense", "out", ["back"], Dense(5))
    builder.op("softmax", "shares", ["out"], Softmax(2))
    return builder.graph("shares", "norm")


def gated(*, again: bool = False) -> Graph:
    """A hard-sigmoid behind a convolution, which something else reads too if `again`."""
    builder = GraphBuilder()
    builder.input("x", (1, 4, 3, 2))
    builder.op("conv", "gate", ["x"], Conv(out=2))
    builder.op("act", "hard", ["gate"], act="hardsigmoid")
    builder.op("mul", "scaled", ["hard", "gate" if again else "x"])
    return builder.graph()


def ranges_of(model: Model, inputs: dict[str, Any]) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}
    execute_all(
        model, inputs, lambda name, x: found.update({name: (float(x.min()), float(x.max()))})
    )
    return found


def quantized(
    graph: Graph, number_format: NumberFormat = STATIC8, float_ops: tuple[str, ...] = ()
) -> tuple[Model, dict[str, Any]]:
    rng = np.random.default_rng(0)
    model = Model(graph, random_weights(graph, rng))
    inputs = {t.name: rng.standard_normal((6, *t.shape[1:]), np.float32) for t in graph.inputs}
    ranges = ranges_of(model, inputs)
    scales = from_ranges(
        graph, ranges, model.weights, number_format=number_format, float_ops=float_ops
    )
    return model.with_quantization(scales, done="here"), inputs


def test_what_has_no_integer_kernel_stays_real_and_what_moves_its_values_too() -> None:
    assert find_float_ops(encoder()) == {"norm", "back"}
    model, _ = quantized(encoder())
    assert model.quantization is not None
    # `back` has codes for the layer that reads it; what the norm gives is read by nothing else.
    assert model.quantization.tensors.keys() == {
        *("x", "flat", "wide", "turned", "back", "out", "shares"),
    }
    assert model.quantization.made_as_codes(encoder()) == {
        *("x", "flat", "wide", "turned", "out", "shares"),
    }


def test_an_input_that_is_only_moved_to_real_ops_is_no_codes() -> None:
    assert find_float_ops(encoder(), ["wide"]) >= {"flat", "wide"}
    model, _ = quantized(encoder(), float_ops=("wide",))
    assert model.quantization is not None
    assert "x" not in model.quantization.tensors


def front(*, log: bool = True) -> Graph:
    """The power of two bands, and its logarithm."""
    builder = GraphBuilder()
    builder.input("x", (1, 6, 4, 2))
    builder.op("conv", "low", ["x"], Conv(out=2))
    builder.op("conv", "high", ["x"], Conv(out=3))
    builder.op("reshape", "flat", ["high"], Reshape((1, 6, 4, 3)))
    builder.op("concat", "bands", ["low", "flat"], Concat(3))
    builder.op("mul", "power", ["bands", "bands"])
    if log:
        builder.op("unary", "made", ["power"], Unary("log"))
    else:
        builder.op("act", "made", ["power"], act="relu6")
    builder.op("conv", "out", ["made"], Conv(out=2))
    return builder.graph()


def test_what_real_ops_alone_read_is_real_back_to_the_layers() -> None:
    assert find_float_ops(front()) == {"bands", "power", "made"}
    assert find_float_ops(front(log=False)) == set()


def test_bands_whose_logarithm_is_taken_keep_scales_of_their_own() -> None:
    rng = np.random.default_rng(0)
    weights = dict(random_weights(front(), rng))
    weights["high"] = tuple(array * np.float32(1e-3) for array in weights["high"])
    model = Model(front(), weights)
    inputs = {"x": rng.uniform(0.5, 1, (6, 6, 4, 2)).astype(np.float32)}
    scales = from_ranges(model.graph, ranges_of(model, inputs), weights)
    assert scales["low"].scale > 100 * scales["high"].scale
    assert scales["flat"] == scales["high"]


@pytest.mark.parametrize("asked", ["gate", "hard"])
def test_both_halves_of_a_gate_are_real_or_none_is(asked: str) -> None:
    assert find_float_ops(gated()) == set()
    assert find_float_ops(gated(), [asked]) == {"gate", "hard"}
    model, _ = quantized(gated())
    assert hardsigmoid_sources(model.graph, model.quantization) == {"gate"}
    model, _ = quantized(gated(), float_ops=(asked,))
    assert hardsigmoid_sources(model.graph, model.quantization) == set()


def test_a_hard_sigmoid_that_is_no_gate_is_computed_in_real_numbers() -> None:
    assert find_float_ops(gated(again=True)) == {"hard"}
    model, inputs = quantized(gated(again=True))
    expected = execute_all(model, inputs)["scaled"]
    found = integer_reals(model, inputs)["scaled"]
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("make", [encoder, gated])
def test_int16_activations_leave_the_error_of_the_weights_alone(make: Any) -> None:
    errors = []
    for number_format in (STATIC8, STATIC16X8):
        model, inputs = quantized(make(), number_format)
        found, expected = integer_reals(model, inputs), execute_all(model, inputs)
        errors.append(max(np.abs(found[name] - expected[name]).max() for name in expected))
        if number_format == STATIC16X8:
            codes = integer_outputs(model, inputs)[make().outputs[0]]
            assert codes.dtype == np.int16
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize("float_ops", [(), ("wide",), ("out",), ("wide", "out")])
def test_the_more_is_real_the_nearer(float_ops: tuple[str, ...]) -> None:
    model, inputs = quantized(encoder(), float_ops=float_ops)
    found, expected = integer_reals(model, inputs), execute_all(model, inputs)
    bound = 2e-6 if float_ops == ("wide", "out") else 0.1
    # The norm is an output as it is made: real, whatever is around it.
    assert found["norm"].dtype == np.float32
    assert np.abs(found["norm"] - expected["norm"]).max() < bound * np.abs(expected["norm"]).max()


def test_all_that_a_concatenation_reads_has_one_scale_but_what_kernels_fix() -> None:
    builder = GraphBuilder()
    builder.input("x", (1, 4, 3, 2))
    builder.op("conv", "small", ["x"], Conv(out=2))
    builder.op("conv", "large", ["x"], Conv(out=3))
    builder.op("act", "gate", ["small"], act="sigmoid")
    builder.op("concat", "all", ["small", "gate", "large"], Concat(3))
    graph = builder.graph()
    ranges = {"x": (-1.0, 1.0), "small": (-0.5, 1.0), "gate": (0.3, 0.7), "large": (-9.0, 3.0),
              "all": (-9.0, 3.0)}  # fmt: skip
    found = from_ranges(graph, ranges)
    assert found["small"] == found["large"] == found["all"]
    assert found["all"].scale == np.float32(12 / 255)
    assert found["gate"].scale == np.float32(1 / 256)


def test_scales_are_assumed_for_any_graph() -> None:
    found = random_quantization(encoder())
    assert found.float_ops == {"norm", "back"}


@pytest.mark.parametrize(("high", "real"), [(0.9, False), (0.04, False), (0.02, True)])
def test_what_a_fixed_scale_rounds_to_nothing_stays_real(*, high: float, real: bool) -> None:
    builder = GraphBuilder()
    builder.input("x", (1, 4, 3, 2))
    builder.op("conv", "scores", ["x"], Conv(out=2))
    builder.op("act", "found", ["scores"], act="sigmoid")
    ranges = {"x": (-1.0, 1.0), "scores": (-9.0, -3.0), "found": (0.0, high)}
    found = from_ranges(builder.graph(), ranges)
    assert ("found" in found.float_ops) == real
