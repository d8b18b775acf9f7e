"""Which tensors and weights are codes: mixed formats, codes that a file came with, int16."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from models.codes import (
    LayerCodes,
    QParams,
    QuantizationError,
    WeightCodes,
    quantize_layer,
    quantize_weight,
)
from models.fold import random_weights
from models.graph import Graph, GraphBuilder, Op
from models.model import Model, random_model
from models.number_format import DYNAMIC8, FLOAT16, NAMED, STATIC8, STATIC16X8, NumberFormat
from models.ops import Conv, Dense
from models.quantization import Quantization
from models.scales import random_quantization

if TYPE_CHECKING:
    from pathlib import Path

DENSE = Op("dense", "f", ("x",), ((1, 8),), Dense(4))


def graph() -> Graph:
    """Two convolutions one after the other, and their sum."""
    builder = GraphBuilder()
    builder.input("x", (1, 5, 4, 3))
    builder.op("conv", "first", ["x"], Conv(out=3))
    builder.op("conv", "second", ["first"], Conv(out=3))
    builder.op("add", "sum", ["first", "second"])
    return builder.graph("second", "sum")


def params(*names: str, dtype: str = "int8") -> dict[str, QParams]:
    return {name: QParams(0.1 + n / 100, 0, dtype) for n, name in enumerate(names)}


ALL = params("x", "first", "second", "sum")


def test_an_op_is_integer_where_all_its_tensors_have_parameters() -> None:
    ops = {op.name: op for op in graph().ops}
    whole = Quantization(ALL)
    assert all(map(whole.is_integer, ops.values()))
    assert whole.made_as_codes(graph()) == {"x", "first", "second", "sum"}
    mixed = Quantization(params("x", "first", "sum"))
    assert [name for name, op in ops.items() if mixed.is_integer(op)] == ["first"]
    assert mixed.made_as_codes(graph()) == {"x", "first"}


def test_an_op_may_stay_real_between_integer_ones() -> None:
    ops = {op.name: op for op in graph().ops}
    mixed = Quantization(ALL, float_ops=frozenset({"second"}), ends={"x": "float32"})
    assert [name for name, op in ops.items() if mixed.is_integer(op)] == ["first", "sum"]
    assert mixed.made_as_codes(graph()) == {"first", "sum"}
    assert [op.name for op in ops.values() if mixed.has_weight_codes(op)] == ["first"]


@pytest.mark.parametrize("number_format", [FLOAT16, DYNAMIC8])
def test_without_fixed_scales_only_weights_are_codes(number_format: NumberFormat) -> None:
    ops = graph().ops
    found = Quantization({}, number_format=number_format, float_ops=frozenset({"second"}))
    assert not any(map(found.is_integer, ops))
    held = [op.name for op in ops if found.has_weight_codes(op)]
    assert held == (["first"] if number_format == DYNAMIC8 else [])


def test_codes_of_a_file_are_kept_as_they_are() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 8), np.float32)
    bias = rng.standard_normal(4).astype(np.float32)
    held = LayerCodes(
        rng.integers(-128, 128, (4, 8), np.int8),
        np.full(4, 0.25, np.float32),
        np.arange(4, dtype=np.int32),
    )
    found = Quantization(params("x", "f"), weights={"f": held})
    assert found.layer(DENSE, weight, bias) is held
    assert found.weight(DENSE, weight) is held
    without = Quantization(params("x", "f"))
    assert without.layer(DENSE, weight, bias) == quantize_layer(
        DENSE, weight, bias, in_scale=without["x"].scale, out_scale=without["f"].scale
    )


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_any_quantization_is_read_back_as_it_was(dtype: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    network = graph()
    codes = {
        "first": quantize_weight(network["first"], rng.standard_normal((3, 1, 1, 3), np.float32)),
        "second": LayerCodes(
            rng.integers(-127, 128, (3, 1, 1, 3), np.int8),
            np.array([0.5], np.float32),
            np.arange(3, dtype=np.int64 if dtype == "int16" else np.int32),
        ),
    }
    quantization = Quantization(
        params("x", "first", "second", dtype=dtype),
        number_format=STATIC8 if dtype == "int8" else STATIC16X8,
        weights=codes,
        float_ops=frozenset({"sum"}),
        ends={"x": "uint8", "sum": "float32"},
    )
    model = Model(network, random_weights(network, rng), quantization)
    model.save(tmp_path / "model.npz")
    loaded = Model.load(tmp_path / "model.npz")
    assert loaded.quantization == quantization
    assert loaded.digest() == model.digest()
    other = {**codes, "first": replace(codes["first"], scales=codes["first"].scales * 2)}
    changed = replace(model, quantization=replace(quantization, weights=other))
    assert changed.quantization != quantization
    assert changed.digest() != model.digest()


def test_a_plain_quantization_says_no_more_than_it_did() -> None:
    assert Quantization(params("x")).to_json() == {
        "number_format": "static8",
        "tensors": {"x": [float(np.float32(0.1)), 0]},
        "dense_per_output": True,
    }


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"tensors": {"x": [0.1, 3, "int16"]}}, "zero point 3"),
        ({"tensors": {"x": [0.1, 0, "int4"]}}, "int4"),
        ({"tensors": {"x": [0.1]}}, "not quantisation parameters"),
        ({"weights": ["first"]}, "not quantisation parameters"),
        ({"ends": {"x": "float64"}}, "end 'x' is 'float64'; have float32"),
    ],
)
def test_what_is_none_is_refused(change: dict[str, Any], why: str) -> None:
    data = json.loads(json.dumps(Quantization(params("x")).to_json())) | change
    with pytest.raises(QuantizationError, match=why):
        Quantization.from_json(data, {})


def test_int16_codes_are_symmetric() -> None:
    found = QParams.of_range(-1, 3, dtype="int16")
    assert (found.zero_point, found.limits) == (0, (-32768, 32767))
    assert found.scale == np.float32(3 / 32767)
    codes = found.quantize(np.array([-1, 0, 3, 99], np.float32))
    assert codes.dtype == np.int16
    assert codes[1:].tolist() == [0, 32767, 32767]
    np.testing.assert_allclose(found.dequantize(codes)[:3], [-1, 0, 3], atol=found.scale)


def test_beside_int16_activations_a_bias_has_64_bits() -> None:
    weight, bias = np.full((4, 8), 1e-3, np.float32), np.full(4, 7e3, np.float32)
    found = Quantization(params("x", "f", dtype="int16")).layer(DENSE, weight, bias)
    assert found.bias.dtype == np.int64
    np.testing.assert_allclose(found.bias * (found.scales * found.scales.dtype.type(0.1)), bias,
                               rtol=1e-5)  # fmt: skip


def test_a_weight_of_zeros_has_codes() -> None:
    found = quantize_weight(DENSE, np.zeros((4, 8), np.float32), per_output=False)
    assert found == WeightCodes(np.zeros((4, 8), np.int8), np.ones(1, np.float32))
    assert (found.dequantize(DENSE) == 0).all()


@pytest.mark.parametrize("name", NAMED)
def test_scales_can_be_assumed_for_every_named_format(name: str) -> None:
    model = random_model(graph(), np.random.default_rng(0), NAMED[name])
    assert model.number_format == NAMED[name]
    if NAMED[name].is_static:
        assert all(map(random_quantization(graph(), NAMED[name]).is_integer, graph().ops))
