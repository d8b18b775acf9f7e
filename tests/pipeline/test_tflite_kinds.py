"""Every kind of op in TFLite files: int8, in part, halves, operators and their limits."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from models.codes import QParams
from models.graph import Graph, GraphBuilder, GraphError
from models.model import Model
from models.number_format import STATIC8, STATIC16X8
from models.ops import (
    FLOAT,
    KINDS,
    Arg,
    AvgPool,
    Cast,
    Compare,
    Concat,
    Conv,
    Dense,
    DepthToSpace,
    L2Norm,
    LeakyRelu,
    Logical,
    Matmul,
    Pad,
    Reduce,
    Reshape,
    Resize,
    Slice,
    Softmax,
    SpaceToDepth,
    Tile,
    Transpose,
    Unary,
    compute,
)
from models.quantization import Quantization
from models.simplify import fold_batchnorm
from pipeline.formats import create
from pipeline.formats.api import ExportError
from pipeline.formats.tflite.write import write_tflite
from tests.op_draws import SEEDS, Arrays, drawn, modelled

NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
DISCONTINUOUS = ("mod", "floordiv")
"""Kinds that jump, so that the last bit of a real number decides."""


def values_of(model: Model, inputs: Arrays) -> Arrays:
    """What the references give of every tensor of a model."""
    known = {**inputs, **{t.name: model.weights[t.name][0] for t in model.graph.constants}}
    for op in model.graph.ops:
        own = model.weights[op.name] if op.has_weights else ()
        known[op.name] = compute(op, [*(known[name] for name in op.inputs), *own])
    return known


def scales_of(model: Model, inputs: Arrays, dtype: str = "int8") -> Quantization:
    """Parameters of every float32 tensor, whatever TFLite has integer kernels for."""
    graph, values = model.graph, values_of(model, inputs)
    real = [name for name in graph.tensors if graph.dtype(name) == FLOAT]
    found = {
        name: QParams.of_range(float(values[name].min()), float(values[name].max()), dtype=dtype)
        for name in real
    }
    for op in graph.ops:
        floats = [name for name in (*op.inputs, op.name) if name in found]
        if op.rules.shares_scale:
            found |= dict.fromkeys(floats, max((found[n] for n in floats), key=lambda p: p.scale))
        if op.keeps_scale and op.name in found:
            found[op.name] = found[op.inputs[0]]
        if op.act in op.rules.fixed_scale and dtype == "int8":
            found[op.name] = QParams(*op.rules.fixed_scale[op.act])
        elif op.act in op.rules.fixed_scale and op.kind != "logsoftmax":
            found[op.name] = QParams(2.0**-15, 0, "int16")  # values of at most 1
    number_format = STATIC8 if dtype == "int8" else STATIC16X8
    return Quantization(found, dense_per_output=False, number_format=number_format)


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


@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize(
    ("kind", "seed"),
    [*product([kind for kind in KINDS if kind not in DISCONTINUOUS], range(SEEDS))],
)
def test_codes_of_every_kind_are_within_a_step(kind: str, seed: int, dtype: str) -> None:
    model, inputs = modelled(drawn(kind, seed))
    model = fold_batchnorm(model)
    op = model.graph.output
    if kind == "maxpool" and op.attributes.dilation != (1, 1):
        return  # no operator of TFLite
    if op.act == "hardsigmoid":
        return  # half of it is in the layer before: the contract test of ops has it
    scales = scales_of(model, inputs, dtype)
    content = write_tflite(replace(model, quantization=scales))
    given = {n: scales[n].quantize(x) if n in scales.tensors else x for n, x in inputs.items()}
    (found,) = run(content, given).values()
    expected = meanings_of(model, scales, inputs)[op.name]
    assert found.shape == expected.shape
    if found.dtype == dtype:
        codes = scales[op.name].quantize(expected).astype(int)
        steps = {"int8": 1, "int16": 3}[dtype] + (len(model.graph.ops) > 1)
        assert np.abs(found - codes).max() <= steps
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


def alone(
    kind: str, shapes: list[tuple[int, ...]], attributes: Any = None, dtype: str = FLOAT
) -> Graph:
    """A graph of one op that reads inputs of these shapes."""
    builder = GraphBuilder()
    reads = [builder.input(f"x{n}", shape, dtype) for n, shape in enumerate(shapes)]
    builder.op(kind, "op", reads, attributes)
    return builder.graph()


def samples_of(graph: Graph) -> Arrays:
    rng = np.random.default_rng(0)
    return {
        tensor.name: rng.integers(-9, 9, (1, *tensor.shape[1:])).astype(tensor.dtype)
        for tensor in graph.inputs
    }


def versions(content: bytes) -> list[tuple[str, int]]:
    """The operators of a file with their versions, in the order of first use."""
    codes = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content)).operatorCodes
    return [(NAMES[max(c.builtinCode, c.deprecatedBuiltinCode)], c.version) for c in codes]


MAP = (1, 8, 8, 4)
CONVERTED: list[tuple[str, list[tuple[int, ...]], Any, str, int, int]] = [
    ("reshape", [MAP], Reshape((1, 64, 4)), "RESHAPE", 1, 1),
    ("transpose", [MAP], Transpose((0, 3, 1, 2)), "TRANSPOSE", 1, 2),
    ("softmax", [(1, 10)], Softmax(1), "SOFTMAX", 1, 2),
    ("logsoftmax", [(1, 10)], Softmax(1), "LOG_SOFTMAX", 1, 2),
    ("leakyrelu", [MAP], LeakyRelu(0.3), "LEAKY_RELU", 1, 1),
    ("concat", [MAP, MAP], Concat(3), "CONCATENATION", 1, 2),
    ("slice", [MAP], Slice((0, 1, 2, 0), (1, 5, 8, 4), (1, 2, 1, 1)), "STRIDED_SLICE", 1, 2),
    ("pad", [MAP], Pad(((0, 0), (1, 1), (2, 0), (0, 0)), 1.0), "PADV2", 1, 2),
    ("pad", [MAP], Pad(((0, 0), (1, 1), (2, 0), (0, 0)), 0, "reflect"), "MIRROR_PAD", 1, 2),
    ("resize", [MAP], Resize((16, 12), "bilinear"), "RESIZE_BILINEAR", 3, 3),
    ("resize", [MAP], Resize((16, 12), "nearest", "asymmetric"), "RESIZE_NEAREST_NEIGHBOR", 1, 2),
    ("resize", [MAP], Resize((3, 12), "nearest", "half_pixel", "prefer_ceil"),
     "RESIZE_NEAREST_NEIGHBOR", 3, 3),
    ("depthtospace", [MAP], DepthToSpace(2), "DEPTH_TO_SPACE", 1, 2),
    ("spacetodepth", [MAP], SpaceToDepth(2), "SPACE_TO_DEPTH", 1, 2),
    ("tile", [MAP], Tile((1, 2, 1, 1)), "TILE", 1, 3),
    ("matmul", [(1, 3, 4, 5), (1, 3, 6, 5)], Matmul(transpose_b=True), "BATCH_MATMUL", 1, 2),
    ("avgpool", [MAP], AvgPool(kernel=(3, 3)), "AVERAGE_POOL_2D", 1, 2),
    ("add", [(1, 2, 3, 4, 5), (1, 2, 1, 4, 5)], None, "ADD", 1, 2),
    ("sub", [MAP, MAP], None, "SUB", 1, 2),
    ("maximum", [MAP, MAP], None, "MAXIMUM", 1, 2),
    ("minimum", [MAP, MAP], None, "MINIMUM", 1, 2),
    ("reduce", [MAP], Reduce("sum", (1, 2)), "SUM", 1, 2),
    ("reduce", [MAP], Reduce("max", (1, 2)), "REDUCE_MAX", 1, 2),
    ("argmax", [MAP], Arg("argmax", 3), "ARG_MAX", 1, 2),
    ("compare", [MAP, MAP], Compare("less"), "LESS", 1, 2),
    ("compare", [MAP, MAP], Compare("equal"), "EQUAL", 1, 2),
    ("l2norm", [(1, 8)], L2Norm(1), "L2_NORMALIZATION", 1, 2),
    *(("act", [MAP], None, name, 1, 2) for name in ("GELU", "TANH", "RELU", "RELU6")),
]  # fmt: skip
"""Kind, shapes, attributes, operator, and its versions that TFLiteConverter 2.21 writes."""


@pytest.mark.parametrize(("kind", "shapes", "attributes", "operator", "real", "codes"), CONVERTED)
def test_versions_are_those_of_the_converter(
    kind: str,
    shapes: list[tuple[int, ...]],
    attributes: Any,
    operator: str,
    real: int,
    codes: int,
) -> None:
    graph = alone(kind, shapes, attributes) if kind != "act" else acting(operator.lower())
    model = Model(graph, {})
    assert versions(write_tflite(model)) == [(operator, real)]
    one = dict.fromkeys((t.name for t in graph.inputs), QParams(0.05, 3))
    fixed = KINDS[kind].fixed_scale.get(graph.output.act)
    own = QParams(*fixed) if fixed else QParams(0.05, 3)
    scales = Quantization({**one, "op": own} if graph.output.out_dtype == FLOAT else one)
    content = write_tflite(replace(model, quantization=scales))
    assert versions(content) == [(operator, codes)]


def acting(act: str) -> Graph:
    builder = GraphBuilder()
    builder.op("act", "op", [builder.input("x", MAP)], act=act)
    return builder.graph()


@pytest.mark.parametrize(
    ("kind", "dtype", "version"),
    [("add", "int64", 4), ("sub", "int64", 4), ("mul", "int64", 5), ("floordiv", "float32", 2)],
)
def test_versions_follow_the_type_of_numbers(kind: str, dtype: str, version: int) -> None:
    graph = alone(kind, [(1, 3), (1, 3)], None, dtype)
    assert versions(write_tflite(Model(graph, {})))[0][1] == version


@pytest.mark.parametrize(
    ("kind", "shapes", "attributes", "dtype"),
    [
        ("sub", [(1, 2, 3, 1, 5, 2), (1, 2, 3, 4, 5, 2)], None, FLOAT),
        ("maximum", [(1, 2, 1, 4, 5, 2), (1, 2, 3, 4, 5, 2)], None, "int32"),
        ("add", [(1, 2, 1, 4, 1, 2, 3), (1, 1, 3, 4, 1, 2, 3)], None, "int64"),
        ("compare", [(1, 2, 3, 4, 5), (1, 2, 1, 1, 5)], Compare("less"), "int64"),
        ("logical", [(1, 2, 3, 4, 5), (1, 2, 1, 1, 5)], Logical("xor"), "bool"),
        ("transpose", [(1, 2, 3, 1, 2, 3, 2)], Transpose((0, 4, 5, 6, 3, 1, 2)), FLOAT),
        ("transpose", [(1, 2, 3, 1)], Transpose((0, 3, 1, 2)), "int32"),
        ("slice", [(1, 2, 3, 4, 5, 6)],
         Slice((0, 0, 1, 0, 2, 0), (1, 2, 3, 4, 5, 6), (1,) * 6), FLOAT),
        ("slice", [(1, 2, 3, 4, 5, 6)],
         Slice((0, 0, 1, 0, 0, 0), (1, 2, 3, 4, 5, 6), (1, 1, 1, 1, 1, 2)), "int64"),
        ("pad", [(1, 2, 3, 4, 5, 6)], Pad(((0, 0),) * 4 + ((1, 0), (0, 2))), FLOAT),
    ],
)  # fmt: skip
def test_more_axes_than_kernels_know_are_put_together(
    kind: str, shapes: list[tuple[int, ...]], attributes: Any, dtype: str
) -> None:
    model = Model(alone(kind, shapes, attributes, dtype), {})
    inputs = samples_of(model.graph)
    (found,) = run(write_tflite(model), inputs).values()
    np.testing.assert_array_equal(found, values_of(model, inputs)["op"])


@pytest.mark.parametrize(
    ("graph", "sentence"),
    [
        (alone("sub", [(1, 2, 1, 3, 1, 2), (1, 1, 3, 1, 2, 1)]),
         r"op 'op' \(sub\) broadcasts .* over more than 4 axes, which TFLite cannot express"),
        (alone("matmul", [(1, 1, 1, 1, 2, 3), (1, 1, 1, 1, 3, 2)], Matmul()),
         r"op 'op' \(matmul\) multiplies .*, with more than 5 axes"),
        (alone("div", [(1, 3), (1, 3)], None, "int64"), r"op 'op' \(div\) is 'div' of int64"),
        (alone("unary", [(1, 3)], Unary("sign"), "int64"), r"\(unary\) is 'sign' of int64"),
        (alone("argmax", [(1, 3)], Arg("argmin", 1), "int64"), r"is the argmin of int64"),
        (alone("compare", [(1, 3)] * 2, Compare("less"), "bool"), r"is 'less' of bool"),
        (alone("add", [(1, 3)] * 2, None, "uint8"), r"computes with uint8 that is no code"),
    ],
)  # fmt: skip
def test_what_no_kernel_knows_is_refused_by_name(graph: Graph, sentence: str) -> None:
    with pytest.raises(ExportError, match=sentence):
        write_tflite(Model(graph, {}))


SHAPE = (1, 4, 6, 5)


@pytest.mark.parametrize("dtype", ["int32", "int64", "bool"])
@pytest.mark.parametrize(
    ("kind", "attributes", "count"),
    [
        ("reshape", Reshape((1, 24, 5)), 1),
        ("transpose", Transpose((0, 3, 1, 2)), 1),
        ("concat", Concat(2), 2),
        ("slice", Slice((0, 1, 0, 0), (1, 4, 6, 5), (1, 2, 1, 1)), 1),
        ("pad", Pad(((0, 0), (1, 0), (0, 2), (0, 0)), 1.0), 1),
        ("pad", Pad(((0, 0), (1, 0), (0, 2), (0, 0)), 0.0, "edge"), 1),
        ("tile", Tile((1, 2, 1, 3)), 1),
        ("compare", Compare("notequal"), 2),
        ("cast", Cast("float32"), 1),
        ("cast", Cast("bool"), 1),
        *((kind, None, 2) for kind in ("maximum", "add", "sub", "mul", "mod")),
        *(("unary", Unary(function), 1) for function in ("neg", "square")),
        *(("reduce", Reduce(function, (1, 3)), 1) for function in ("sum", "max", "prod")),
    ],
)
def test_whole_numbers_and_truth_values_are_exact(
    kind: str, attributes: Any, count: int, dtype: str
) -> None:
    try:
        graph = alone(kind, [SHAPE] * count, attributes, dtype)
    except GraphError:
        assert dtype == "bool"  # of truth values there is no arithmetic
        return
    rng = np.random.default_rng(0)
    inputs = {tensor.name: rng.integers(1, 9, SHAPE).astype(dtype) for tensor in graph.inputs}
    model = Model(graph, {})
    (found,) = run(write_tflite(model), inputs).values()
    expected = values_of(model, inputs)["op"]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("taken", [False, True])
def test_a_convolution_gives_channels_as_blocks_take_them(*, integer: bool, taken: bool) -> None:
    """Where something else takes them too, a GATHER puts them in order."""
    builder = GraphBuilder()
    conv = Conv(out=18, kernel=(3, 3), padding=(1, 1, 1, 1))
    conv_ = builder.op("conv", "conv", [builder.input("x", (1, 5, 7, 3))], conv, act="relu")
    pixels = builder.op("depthtospace", "pixels", [conv_], DepthToSpace(3, "CRD"))
    model, inputs = modelled(builder.graph(*((pixels, conv_) if taken else (pixels,))))
    scales = scales_of(model, inputs)
    content = write_tflite(replace(model, quantization=scales) if integer else model)
    names = ["CONV_2D", *(["GATHER"] if taken else []), "DEPTH_TO_SPACE"]
    assert operators(content) == names
    given = {"x": scales["x"].quantize(inputs["x"])} if integer else inputs
    found = run(content, given)
    expected = (meanings_of if integer else lambda m, _, i: values_of(m, i))(model, scales, inputs)
    for name, end in zip(model.graph.outputs, model.outputs, strict=True):
        if integer:
            codes = scales[name].quantize(expected[name]).astype(int)
            assert np.abs(found[end.name] - codes).max() <= 1
        else:
            np.testing.assert_allclose(found[end.name], expected[name], rtol=1e-4, atol=1e-5)


def test_reshapes_before_another_or_before_a_dense_layer_are_left_out() -> None:
    builder = GraphBuilder()
    x = builder.op("unary", "abs", [builder.input("x", (1, 4, 6, 5))], Unary("abs"))
    x = builder.op("reshape", "flat", [x], Reshape((1, 24, 5)))
    x = builder.op("reshape", "again", [x], Reshape((1, 1, 24, 5)))
    x = builder.op("transpose", "turned", [x], Transpose((0, 2, 1, 3)))
    y = builder.op("unary", "negative", [x], Unary("neg"))
    y = builder.op("reshape", "vector", [y], Reshape((1, 120)))
    builder.op("dense", "dense", [y], Dense(3))
    model, inputs = modelled(builder.graph("dense", "turned"))
    content = write_tflite(model)
    assert operators(content) == ["ABS", "RESHAPE", "NEG", "FULLY_CONNECTED"]
    expected = values_of(model, inputs)
    for name, found in run(content, inputs).items():
        np.testing.assert_allclose(found, expected[name], rtol=1e-4, atol=1e-5)
    scales = scales_of(model, inputs)
    content = write_tflite(replace(model, quantization=scales))
    assert operators(content) == ["DEQUANTIZE", "ABS", "QUANTIZE", "RESHAPE", *_NEGATIVE]
    read = create("tflite").read_quantization(content, model.graph)
    assert read is not None
    assert read.tensors == scales.tensors


_NEGATIVE = ("DEQUANTIZE", "NEG", "QUANTIZE", "FULLY_CONNECTED")
