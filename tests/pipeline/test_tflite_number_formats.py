"""TFLite files that hold weights small, or compute with codes only in part, and their ends."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from models.codes import QParams, quantize_weight
from models.execute import execute_all
from models.fold import random_weights
from models.graph import Graph, GraphBuilder
from models.integer import integer_outputs
from models.model import Model
from models.number_format import DYNAMIC8, FLOAT16, STATIC8, NumberFormat
from models.ops import AvgPool, Conv, Deconv, Dense, Depthwise, Mean, Softmax, Unary
from models.quantization import Quantization
from pipeline.compress.passes.ptq import calibrate_all
from pipeline.compress.quantize import Wanted, quantize
from pipeline.formats import create
from pipeline.formats.api import ExportError
from pipeline.formats.tflite.write import write_tflite

WEIGHTS8 = NumberFormat("int8", "float32", "channel", "weight-only")
X = np.random.default_rng(1).standard_normal((4, 12, 10, 8), np.float32)
NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


def layers() -> Graph:
    """Every kind of layer, one after another, large enough to be worth holding small."""
    builder = GraphBuilder()
    x = builder.input("x", (1, 12, 10, 8))
    x = builder.op("conv", "conv", [x], Conv(out=16, kernel=(3, 3), padding=(1,) * 4), act="relu")
    x = builder.op("depthwise", "depthwise", [x], Depthwise(kernel=(3, 3), dilation=(2, 1)))
    grouped = Conv(out=24, kernel=(3, 1), groups=4)
    x = builder.op("conv", "grouped", [x], grouped, act="relu6")
    x = builder.op("deconv", "deconv", [x], Deconv(out=12, kernel=(4, 4), stride=(2, 2)))
    x = builder.op("dense", "places", [x], Dense(20))
    x = builder.op("mean", "mean", [x], Mean(keepdims=False))
    builder.op("dense", "scores", [x], Dense(9))
    return builder.graph()


def model_of(graph: Graph) -> Model:
    return Model(graph, random_weights(graph, np.random.default_rng(0)))


def run(content: bytes, x: Any) -> Any:
    """The only output of a file, for samples one by one."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for sample in x:
        interpreter.set_tensor(source["index"], sample[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(result["index"]))
    return np.concatenate(rows)


def operators(content: bytes) -> list[str]:
    return [item["op_name"] for item in Interpreter(model_content=content)._get_ops_details()]


def partitions(content: bytes) -> int:
    interpreter = Interpreter(model_content=content, num_threads=1)
    before = len(interpreter._get_ops_details())
    interpreter.allocate_tensors()
    return len(interpreter._get_ops_details()) - before


def parsed(content: bytes) -> schema.ModelT:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))


def versions(content: bytes) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for code in parsed(content).operatorCodes:
        name = NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]
        found.setdefault(name, set()).add(code.version)
    return found


def weight_types(content: bytes) -> dict[str, int]:
    tensors = parsed(content).subgraphs[0].tensors
    names = {tensor.name.decode(): tensor.type for tensor in tensors}
    return {n.removesuffix(".weight"): t for n, t in names.items() if n.endswith(".weight")}


@pytest.mark.parametrize(
    ("number_format", "dequantized", "tolerance"),
    [(FLOAT16, 6, 1e-3), (DYNAMIC8, 1, 0.05), (WEIGHTS8, 6, 0.03)],
    ids=str,
)
def test_weights_held_small_compute_nearly_the_same(
    number_format: NumberFormat, dequantized: int, tolerance: float
) -> None:
    model = model_of(layers())
    expected = execute_all(model, {"x": X})["scores"]
    quantization = Quantization({}, number_format=number_format)
    content = write_tflite(replace(model, quantization=quantization))
    found = run(content, X)
    assert np.abs(found - expected).max() < tolerance * np.abs(expected).max()
    plain = Counter(operators(write_tflite(model)))
    assert Counter(operators(content)) - plain == Counter(DEQUANTIZE=dequantized)
    held = schema.TensorType.FLOAT16 if number_format == FLOAT16 else schema.TensorType.INT8
    assert set(weight_types(content).values()) == {held}
    if number_format in create("tflite").number_formats:
        assert create("tflite").read_number_format(content) == number_format


def test_versions_of_dynamic_range_are_the_lowest_that_know_it() -> None:
    quantization = Quantization({}, number_format=DYNAMIC8)
    found = versions(write_tflite(replace(model_of(layers()), quantization=quantization)))
    assert found["CONV_2D"] == {5, 6}  # with a scale for each output; of groups
    assert found["DEPTHWISE_CONV_2D"] == {6}
    assert found["FULLY_CONNECTED"] == {9}  # 12 has a scale for each output, and old ones refuse it
    assert found["TRANSPOSE_CONV"] == {3}
    assert found["DEQUANTIZE"] == {5}


def test_dense_codes_with_a_scale_for_each_output_are_kept() -> None:
    model = model_of(layers())
    op = model.graph["scores"]
    codes = quantize_weight(op, model.weights["scores"][0])
    held = Quantization({}, number_format=DYNAMIC8, weights={"scores": codes})
    content = write_tflite(replace(model, quantization=held))
    assert versions(content)["FULLY_CONNECTED"] == {9, 12}
    expected = execute_all(model, {"x": X})["scores"]
    assert np.abs(run(content, X) - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize("number_format", [FLOAT16, DYNAMIC8], ids=str)
def test_a_layer_may_keep_its_weight(number_format: NumberFormat) -> None:
    quantization = Quantization(
        {}, number_format=number_format, float_ops=frozenset(["grouped", "scores"])
    )
    types = weight_types(write_tflite(replace(model_of(layers()), quantization=quantization)))
    real = {name for name, dtype in types.items() if dtype == schema.TensorType.FLOAT32}
    assert real == {"grouped", "scores"}


def test_weights_that_halves_cannot_hold_are_refused_by_name() -> None:
    model = model_of(layers())
    weights = dict(model.weights)
    weights["deconv"] = (weights["deconv"][0] * np.float32(1e6), weights["deconv"][1])
    halves = Quantization({}, number_format=FLOAT16)
    with pytest.raises(ExportError, match=r"op 'deconv' \(deconv\) has weights up to .*float16"):
        write_tflite(replace(model, weights=weights, quantization=halves))


def test_halves_and_weights8_are_one_partition() -> None:
    for number_format in (FLOAT16, WEIGHTS8):
        quantization = Quantization({}, number_format=number_format)
        assert partitions(write_tflite(replace(model_of(layers()), quantization=quantization))) == 1


def chain() -> Graph:
    """Three convolutions; the second is read by the third and beside it by an addition."""
    builder = GraphBuilder()
    x = builder.input("x", (1, 12, 10, 8))
    for number in range(3):
        x = builder.op("conv", f"conv{number}", [x], Conv(out=8, kernel=(3, 3), padding=(1,) * 4))
    x = builder.op("add", "sum", [x, "conv1"])
    x = builder.op("unary", "exp", [x], Unary("exp"))
    builder.op("mean", "mean", [x], Mean(keepdims=False))
    return builder.graph()


def test_a_network_that_is_real_in_part_has_conversions_at_its_borders() -> None:
    model = model_of(chain())
    whole = calibrate_all(model, {"x": X}).quantization
    assert whole is not None
    part = replace(whole, dense_per_output=False, float_ops=whole.float_ops | {"conv1"})
    model = replace(model, quantization=part)
    content = write_tflite(model)
    assert operators(content) == [
        *("CONV_2D", "DEQUANTIZE", "CONV_2D"),  # conv1 is real
        *("QUANTIZE", "CONV_2D", "DEQUANTIZE"),  # conv2 reads its codes
        # Of codes there is no exponential, and what it alone reads loses nothing by being real.
        *("ADD", "EXP", "QUANTIZE", "MEAN"),
    ]
    codes = part["x"].quantize(X)
    (expected,) = integer_outputs(model, {"x": X}).values()
    found = run(content, codes)
    assert found.dtype == expected.dtype == np.int8
    assert np.abs(found.astype(int) - expected).max() <= 3  # an exponential magnifies a step
    read = create("tflite").read_quantization(content, model.graph)
    assert read is not None
    assert {name: part[name] for name in read.tensors} == dict(read.tensors)
    assert "conv1" in read.float_ops


@pytest.mark.parametrize("given", ["float32", "int8", "uint8"])
@pytest.mark.parametrize("taken", ["float32", "int8", "uint8"])
def test_ends_are_what_the_model_says(given: str, taken: str) -> None:
    builder = GraphBuilder()
    conv = builder.op("conv", "conv", [builder.input("x", (1, 12, 10, 8))], Conv(out=4))
    model = model_of(builder.graph(conv))
    params = {"x": QParams(0.03, -5), "conv": QParams(0.05, 7)}
    scales = Quantization(params, ends={"x": given, "conv": taken})
    content = write_tflite(replace(model, quantization=scales))
    codes = params["x"].quantize(X)
    x: Any = {"float32": params["x"].dequantize(codes), "int8": codes}.get(
        given, (codes.astype(int) + 128).astype(np.uint8)
    )
    (expected,) = integer_outputs(
        replace(model, quantization=replace(scales, ends={})), {"x": params["x"].dequantize(codes)}
    ).values()
    found = run(content, x)
    assert found.dtype == taken
    if taken == "float32":
        found = params["conv"].quantize(found)
    elif taken == "uint8":
        found = found.astype(int) - 128
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert len(operators(content)) == 1 + (given != "int8") + (taken != "int8")


def test_a_hard_swish_is_quantised_into_one_partition() -> None:
    """Its kernel of codes would part the network; of real numbers XNNPACK has one."""
    builder = GraphBuilder()
    x = builder.op("conv", "first", [builder.input("x", (1, 12, 10, 8))], Conv(out=16))
    x = builder.op("act", "swish", [x], act="hardswish")
    builder.op("conv", "last", [x], Conv(out=6))
    model = model_of(builder.graph())
    made = quantize(model, {"x": X}, Wanted(STATIC8, 4), None).model
    content = write_tflite(made)
    assert operators(content) == ["CONV_2D", "DEQUANTIZE", "HARD_SWISH", "QUANTIZE", "CONV_2D"]
    assert partitions(content) == 1
    assert made.quantization is not None
    found = made.quantization["last"].dequantize(run(content, made.quantization["x"].quantize(X)))
    expected = execute_all(model, {"x": X})["last"]
    assert np.abs(found - expected).max() < 0.03 * np.ptp(expected)


@pytest.mark.parametrize(
    ("kind", "attributes", "act"),
    [
        ("act", None, "relu6"),
        ("act", None, "gelu"),
        ("avgpool", AvgPool(kernel=(3, 3), padding=(1, 1, 1, 1)), "none"),
        ("softmax", Softmax(3), "none"),
    ],
)
def test_what_is_slow_as_codes_is_real_where_it_is_large(
    kind: str, attributes: Any, act: str
) -> None:
    for side, real in ((4, False), (24, True)):
        builder = GraphBuilder()
        x = builder.input("x", (1, side, side, 8))
        builder.op(kind, "op", [x], attributes, act=act)
        model = Model(builder.graph(), {})
        data = np.random.default_rng(0).standard_normal((3, side, side, 8), np.float32)
        quantized = calibrate_all(model, {"x": data})
        assert quantized.quantization is not None
        content = write_tflite(quantized)
        assert (operators(content)[0] == "DEQUANTIZE") is real
        assert partitions(content) == int(real)
        (expected,) = integer_outputs(quantized, {"x": data}).values()
        found = run(content, quantized.quantization["x"].quantize(data))
        assert np.abs(found.astype(int) - expected).max() <= 1
