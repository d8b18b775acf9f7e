"""Number formats of TFLite files: what their codes mean, and that these codes are kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.schema_py_generated import ActivationFunctionType, Padding

from models.codes import LayerCodes, QParams
from models.execute import execute_all
from models.number_format import DYNAMIC8, FLOAT16, FLOAT32, STATIC8, STATIC16X8
from pipeline.formats.child import environment
from scripts.tflite_maker import TFLiteFile
from tests.converted_names import FORMS, NETWORKS
from tests.tflite_reading import fed, model_of, run, steps_apart

Array = np.ndarray[Any, Any]
ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(11)
NUMBER_FORMATS = {
    "float": {FLOAT32},
    "half": {FLOAT32, FLOAT16},
    "dynamic": {FLOAT32, DYNAMIC8},
    "int8": {STATIC8},
    "int16": {STATIC16X8},
}


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that TFLiteConverter made, in a process of its own."""
    folder = tmp_path_factory.mktemp("converted")
    argv = [sys.executable, "-m", "tests.converted_models", str(folder)]
    subprocess.run(argv, check=True, capture_output=True, timeout=600, cwd=ROOT, env=environment())
    return folder


# TensorFlow writes 16-bit files that its own runtime refuses, or whose kernels round coarsely:
# the 16-bit RESIZE_BILINEAR to ten bits.
NOT_RUN = {
    *(f"{name}.int16" for name in ("activations", "arithmetic", "attention", "normalised")),
    "embedded.int16",
    "resized.int16",
}


RUN = [(name, form) for name in NETWORKS for form in FORMS if f"{name}.{form}" not in NOT_RUN]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "form"), RUN)
def test_a_converted_network_computes_what_litert_computes(
    converted: Path, name: str, form: str
) -> None:
    path = converted / f"{name}.{form}.tflite"
    content, model = path.read_bytes(), model_of(path)
    assert model.number_format in NUMBER_FORMATS[form]
    if form in ("int8", "int16"):
        for apart in steps_apart(model, content, plain=form == "int16"):
            # One code that rounds the other way is carried on by the products after it.
            assert apart.max() <= 5.001
            assert apart.mean() <= (0.65 if form == "int8" else 1.5)
        return
    raw, real = fed(model, content)
    ours = execute_all(model, real)
    for output, expected in zip(model.graph.outputs, run(content, raw), strict=True):
        # With dynamic range LiteRT rounds activations to eight bits, too.
        limit = 0.03 if model.number_format == DYNAMIC8 else 1e-4
        assert ours[output].shape == expected.shape
        assert np.abs(ours[output] - expected).max() <= limit * np.ptp(expected)


def quantized_conv(
    dtype: str, *, weight: str = "int8", zero: int = 0, weight_zero: int = 0
) -> bytes:
    """A convolution in codes throughout, one scale for each channel where weights are int8."""
    file, per_channel = TFLiteFile(), weight == "int8"
    scales = [0.01, 0.02, 0.005] if per_channel else 0.01
    codes = RNG.integers(-120, 120, (3, 2, 3, 4))
    if weight == "uint8":
        codes = codes + 120
    x = file.tensor("x", (1, 6, 9, 4), dtype, scale=0.05, zero_point=zero)
    w = file.tensor(
        "w", (3, 2, 3, 4), weight, data=codes.astype(weight), scale=scales, zero_point=weight_zero
    )
    kind = "int64" if dtype == "int16" else "int32"
    bias = RNG.integers(-2000, 2000, 3).astype(kind)
    b = file.constant("b", bias)
    y = file.tensor("y", (1, 5, 7, 3), dtype, scale=0.11, zero_point=zero)
    fields = {"padding": Padding.VALID, "strideH": 1, "strideW": 1}
    fields |= {"dilationHFactor": 1, "dilationWFactor": 1}
    fields["fusedActivationFunction"] = ActivationFunctionType.RELU
    version = {"int8": 3, "uint8": 1, "int16": 4}[dtype]
    # Kernels take the bias's own scales for those of its sums, and check them.
    tensor = file.graph.tensors[b]
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = np.float32(0.05) * np.atleast_1d(np.array(scales, np.float32))
    tensor.quantization.zeroPoint = np.zeros(3 if per_channel else 1, np.int64)
    file.op("CONV_2D", [x, w, b], [y], ("Conv2DOptions", fields), version=version)
    return file.content([x], [y])


@pytest.mark.parametrize(("dtype", "zero"), [("int8", 7), ("int16", 0)])
def test_a_layer_keeps_the_codes_of_its_file(dtype: str, zero: int) -> None:
    content = quantized_conv(dtype, zero=zero)
    model = model_of(content)
    quantization = model.quantization
    assert quantization is not None
    assert quantization.number_format == (STATIC8 if dtype == "int8" else STATIC16X8)
    assert quantization.tensors["y"] == QParams(0.11, zero, dtype)
    assert quantization.ends == {"x": dtype, "y": dtype}
    codes = quantization.weights["y"]
    assert isinstance(codes, LayerCodes)
    held = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    buffers = [held.buffers[held.subgraphs[0].tensors[n].buffer].data for n in (1, 2)]
    assert codes.weight.tobytes() == buffers[0].tobytes()
    assert codes.bias.tobytes() == buffers[1].tobytes()
    np.testing.assert_array_equal(codes.scales, np.float32([0.01, 0.02, 0.005]))
    (apart,) = steps_apart(model, content)
    assert apart.max() <= 1.001


def test_a_legacy_file_of_unsigned_codes_means_the_same() -> None:
    content = quantized_conv("uint8", weight="uint8", zero=131, weight_zero=117)
    model = model_of(content)
    assert model.quantization is not None
    assert model.quantization.tensors["x"] == QParams(0.05, 3)
    assert model.quantization.ends == {"x": "uint8", "y": "uint8"}
    # Its weights have a zero point, which ours have not: they are quantised anew.
    (apart,) = steps_apart(model, content)
    assert apart.max() <= 3.001
    assert apart.mean() <= 0.5


def test_real_ends_of_an_int8_file_are_said() -> None:
    file = TFLiteFile()
    x, y = file.tensor("x", (1, 5, 7)), file.tensor("y", (1, 5, 7))
    code = file.tensor("x.code", (1, 5, 7), "int8", scale=0.05, zero_point=3)
    gate = file.tensor("gate", (1, 5, 7), "int8", scale=1 / 256, zero_point=-128)
    file.op("QUANTIZE", [x], [code])
    file.op("LOGISTIC", [code], [gate])
    file.op("DEQUANTIZE", [gate], [y])
    content = file.content([x], [y])
    model = model_of(content)
    quantization = model.quantization
    assert quantization is not None
    assert [(op.kind, op.name) for op in model.graph.ops] == [("act", "gate")]
    assert quantization.tensors == {"x": QParams(0.05, 3), "gate": QParams(1 / 256, -128)}
    assert quantization.ends == {"x": "float32", "gate": "float32"}
    (apart,) = steps_apart(model, content)
    assert apart.max() <= 1.001


def test_codes_of_another_scale_are_an_op_that_rounds() -> None:
    file = TFLiteFile()
    x = file.tensor("x", (1, 5, 7), "int8", scale=0.05, zero_point=3)
    same = file.tensor("same", (1, 5, 7), "uint8", scale=0.05, zero_point=131)
    other = file.tensor("other", (1, 5, 7), "int8", scale=0.08, zero_point=-10)
    file.op("QUANTIZE", [x], [other], version=2)
    file.op("QUANTIZE", [x], [same], version=2)
    content = file.content([x], [other, same])
    model = model_of(content)
    kinds = [(op.kind, op.inputs, op.name) for op in model.graph.ops]
    # An output must be an op's, so the one that is the same is a copy.
    assert kinds == [("clip", ("x",), "other"), ("reshape", ("x",), "x.copy")]
    for apart in steps_apart(model, content):
        assert apart.max() <= 1.001


def test_a_float_part_of_an_int8_file_stays_real() -> None:
    file = TFLiteFile()
    x = file.tensor("x", (1, 5, 7), "int8", scale=0.05, zero_point=3)
    real, power = file.tensor("real", (1, 5, 7)), file.tensor("power", (1, 5, 7))
    y = file.tensor("y", (1, 5, 7), "int8", scale=0.1, zero_point=-100)
    file.op("DEQUANTIZE", [x], [real])
    file.op("EXP", [real], [power])
    file.op("QUANTIZE", [power], [y])
    content = file.content([x], [y])
    model = model_of(content)
    assert model.quantization is not None
    assert model.quantization.float_ops == {"power"}
    assert not model.quantization.is_integer(model.graph["power"])
    (apart,) = steps_apart(model, content)
    assert apart.max() <= 1.001


def dense(weight: int, file: TFLiteFile, width: int, units: int, dtype: str = "float32") -> bytes:
    """A dense layer with a weight that is there already, and a bias."""
    x = file.tensor("x", (1, width), dtype)
    bias = file.constant("bias", RNG.normal(0, 1, units).astype(np.float32))
    y = file.tensor("y", (1, units), dtype)
    options = ("FullyConnectedOptions", {})
    version = 9 if file.graph.tensors[weight].type != schema.TensorType.FLOAT32 else 8
    file.op("FULLY_CONNECTED", [x, weight, bias], [y], options, version=version)
    return file.content([x], [y])


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_weights_that_the_file_turns_back_itself(dtype: str) -> None:
    file = TFLiteFile()
    values = RNG.normal(0, 30, (6, 11)).astype(dtype)
    scales = np.linspace(0.01, 0.02, 6) if dtype == "int8" else None
    held = file.tensor("held", (6, 11), dtype, data=values, scale=scales)
    weight = file.tensor("weight", (6, 11))
    file.op("DEQUANTIZE", [held], [weight], version=5 if dtype == "int8" else 3)
    content = dense(weight, file, 11, 6)
    model = model_of(content)
    quantization = model.quantization
    assert quantization is not None
    if dtype == "float16":
        assert quantization.number_format == FLOAT16
        np.testing.assert_array_equal(model.weights["y"][0], values.astype(np.float32))
    else:
        assert str(quantization.number_format) == "weight-only-int8-float32-channel"
        np.testing.assert_array_equal(quantization.weights["y"].weight, values)
    raw, real = fed(model, content)
    expected = run(content, raw)[0]
    assert np.abs(execute_all(model, real)["y"] - expected).max() <= 1e-4 * np.ptp(expected)


def test_dynamic_range_keeps_codes_of_weights() -> None:
    file = TFLiteFile()
    codes, scales = RNG.integers(-127, 128, (6, 32)).astype(np.int8), np.linspace(0.01, 0.02, 6)
    weight = file.tensor("weight", (6, 32), "int8", data=codes, scale=scales)
    model = model_of(dense(weight, file, 32, 6))
    quantization = model.quantization
    assert quantization is not None
    assert quantization.number_format == DYNAMIC8
    assert quantization.dense_per_output
    assert quantization.tensors == {}
    np.testing.assert_array_equal(quantization.weights["y"].weight, codes)
    expected = codes * np.float32(scales)[:, None]
    np.testing.assert_allclose(model.weights["y"][0], expected, rtol=1e-6)


def test_a_table_of_codes_makes_no_network_of_codes() -> None:
    file = TFLiteFile()
    words = file.tensor("words", (1, 5), "int32")
    rows = RNG.integers(-127, 128, (20, 32)).astype(np.int8)
    table = file.tensor("table", (20, 32), "int8", data=rows, scale=0.02)
    found, real = file.tensor("found", (), "int8", scale=0.02), file.tensor("real", ())
    file.op("GATHER", [table, words], [found], ("GatherOptions", {"axis": 0}))
    file.op("DEQUANTIZE", [found], [real], version=2)
    weight = file.tensor("w", (6, 32), "int8", data=rows[:6], scale=np.linspace(0.01, 0.02, 6))
    bias, y = file.constant("b", np.zeros(6, np.float32)), file.tensor("y", ())
    options = ("FullyConnectedOptions", {"keepNumDims": True})
    file.op("FULLY_CONNECTED", [real, weight, bias], [y], options, version=9)
    content = file.content([words], [y])
    model = model_of(content)
    assert model.number_format == DYNAMIC8
    raw, given = fed(model, content)
    expected = run(content, raw)[0]
    assert np.abs(execute_all(model, given)["y"] - expected).max() <= 0.03 * np.ptp(expected)


def test_four_bit_weights_are_two_in_a_byte() -> None:
    file, codes = TFLiteFile(), RNG.integers(-7, 8, (3, 32))
    packed = ((codes.reshape(-1, 2)[:, 1] & 15) << 4 | codes.reshape(-1, 2)[:, 0] & 15).astype("u1")
    weight = file.tensor("weight", (3, 32), "int4", data=packed.tobytes(), scale=0.1)
    model = model_of(dense(weight, file, 32, 3))
    np.testing.assert_allclose(model.weights["y"][0], codes * np.float32(0.1), rtol=1e-6)


def sparse_rows(values: Array, block: int) -> tuple[Array, Any]:
    """Store a matrix as rows of blocks (1, block), those of zeros alone left out."""
    rows, width = values.shape
    blocks = values.reshape(rows, width // block, block)
    there = blocks.any(axis=2)
    segments = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    sparsity = schema.SparsityParametersT()
    sparsity.traversalOrder = np.array([0, 1, 2], np.int32)
    sparsity.blockMap = np.array([1], np.int32)
    sparsity.dimMetadata = [schema.DimensionMetadataT() for _ in range(3)]
    first, second, third = sparsity.dimMetadata
    first.format = third.format = schema.DimensionType.DENSE
    first.denseSize, third.denseSize = rows, block
    second.format = schema.DimensionType.SPARSE_CSR
    for name, numbers in (("Segments", segments), ("Indices", np.nonzero(there)[1])):
        vector = schema.Uint8VectorT()
        vector.values = numbers.astype(np.uint8)
        setattr(second, f"array{name}", vector)
        setattr(second, f"array{name}Type", schema.SparseIndexVector.Uint8Vector)
    return blocks[there].reshape(-1), sparsity


@pytest.mark.parametrize("reader", ["FULLY_CONNECTED", "DENSIFY"])
def test_sparse_weights_get_their_zeros_back(reader: str) -> None:
    values = RNG.normal(0, 1, (5, 12)).astype(np.float32)
    values *= np.repeat(RNG.random((5, 3)) < 0.4, 4, axis=1)
    stored, sparsity = sparse_rows(values, 4)
    assert 0 < stored.size < values.size
    file = TFLiteFile()
    weight = file.tensor("stored", (5, 12), data=stored, sparsity=sparsity)
    if reader == "DENSIFY":
        whole = file.tensor("whole", (5, 12))
        file.op("DENSIFY", [weight], [whole])
        weight = whole
    content = dense(weight, file, 12, 5)
    model = model_of(content)
    np.testing.assert_array_equal(model.weights["y"][0], values)
    raw, real = fed(model, content)
    expected = run(content, raw)[0]
    assert np.abs(execute_all(model, real)["y"] - expected).max() <= 1e-4 * np.ptp(expected)
