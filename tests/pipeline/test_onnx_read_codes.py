"""Quantised ONNX files, read with the scales and codes that they came with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

from models.codes import LayerCodes, QParams
from models.integer import integer_outputs
from models.model import Model
from pipeline.formats.api import Unsupported
from pipeline.formats.onnx.read import read_onnx
from tests.onnx_cases import FIRST, LAST, Case, check, draw_inputs, open_session, run_read

if TYPE_CHECKING:
    from collections.abc import Mapping

Array = np.ndarray[Any, Any]


class Quantised(Case):
    """Nodes between quantised tensors, each with a scale that fits it."""

    def __init__(self, dtype: str = "uint8") -> None:
        super().__init__(17)
        self.dtype = dtype

    def scale(self, scale: float, zero: int) -> list[str]:
        held = zero + (128 if self.dtype == "uint8" else 0)
        return [self.constant(scale, np.float32), self.constant(held, self.dtype)]

    def coded(self, x: str, scale: float, zero: int) -> str:
        return self.node("QuantizeLinear", x, *self.scale(scale, zero))

    def passed(self, x: str, scale: float, zero: int) -> str:
        given = self.scale(scale, zero)
        return self.node("DequantizeLinear", self.node("QuantizeLinear", x, *given), *given)

    def real_weight(self, shape: tuple[int, ...], axis: int, *, unsigned: bool = False) -> str:
        channels = shape[axis]
        codes = self.rng.integers(-127, 128, shape)
        dtype, middle = ("uint8", 128) if unsigned else ("int8", 0)
        scales = self.constant(self.rng.uniform(0.002, 0.006, channels), np.float32)
        zeros = self.constant(np.full(channels, middle), dtype)
        held = self.constant(codes + middle, dtype)
        return self.node("DequantizeLinear", held, scales, zeros, axis=axis)


def check_codes(content: bytes, *, off: int = 1, disabled: bool = True) -> Model:
    """Hold what was read, computed with codes, against onnxruntime: at most `off` codes away."""
    model = read_onnx(content)
    assert isinstance(model, Model), model.sentence
    held = model.quantization
    assert held is not None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if disabled:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(content, options)
    inputs = draw_inputs(model, session, seed=3)
    fed: dict[str, Array] = {}
    for tensor, end in zip(model.graph.inputs, model.inputs, strict=True):
        value = inputs[end.name]
        if value.dtype.kind in "iu":
            shift = 128 if value.dtype == np.uint8 else 0
            value = held[tensor.name].dequantize(value.astype(np.int32) - shift)
        fed[tensor.name] = value.transpose(LAST[end.layout]) if end.layout else value
    found = integer_outputs(model, fed)
    for name, end, right in zip(
        model.graph.outputs, model.outputs, session.run(None, inputs), strict=True
    ):
        value, scale = found[name], held[name].scale
        if value.dtype.kind == "i":
            value = held[name].dequantize(value)
        if right.dtype.kind in "iu":
            shift = 128 if right.dtype == np.uint8 else 0
            right = held[name].dequantize(right.astype(np.int32) - shift)  # noqa: PLW2901
        value = value.transpose(FIRST[end.layout]) if end.layout else value
        assert np.abs(value - right).max() <= (off + 0.01) * scale
        assert np.abs(right).max() > 10 * scale
    return model


def params(model: Model) -> Mapping[str, QParams]:
    assert model.quantization is not None
    return model.quantization.tensors


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("unsigned", [True, False])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_convolution_between_codes_keeps_them(dtype: str, unsigned: bool, groups: int) -> None:  # noqa: FBT001
    case = Quantised(dtype)
    x = case.passed(case.input("x", 1, 4, 7, 5), 0.02, -3)
    weight = case.real_weight((8, 4 // groups, 3, 2), 0, unsigned=unsigned)
    y = case.node("Conv", x, weight, case.weight(8), group=groups, pads=[1, 0, 1, 1])
    model = check_codes(case.content(case.passed(y, 0.011, 5)))
    (op,) = model.graph.ops
    assert model.quantization is not None
    assert model.quantization.is_integer(op)
    assert isinstance(model.quantization.weights[op.name], LayerCodes)
    assert params(model)["x"] == QParams(0.02, -3)
    assert params(model)[op.name] == QParams(0.011, 5)
    assert set(model.quantization.ends.values()) == {"float32"}


def test_a_bias_of_codes_is_kept() -> None:
    case = Quantised()
    x = case.passed(case.input("x", 1, 6), 0.02, 0)
    codes = case.constant(case.rng.integers(-127, 128, (6, 5)), np.int8)
    one = case.constant(0.004, np.float32)
    weight = case.node("DequantizeLinear", codes, one, case.constant(0, np.int8))
    bias = np.array([100, -50, 7, 0, 300], np.int32)
    unit = case.constant(np.float32(0.02) * np.float32(0.004), np.float32)
    real = case.node("DequantizeLinear", case.constant(bias), unit, case.constant(0, np.int32))
    y = case.node("Gemm", x, weight, real)
    model = check_codes(case.content(case.passed(y, 0.01, 0)))
    assert model.quantization is not None
    held = model.quantization.weights[model.graph.ops[0].name]
    assert isinstance(held, LayerCodes)
    np.testing.assert_array_equal(held.bias, bias)
    assert held.scales.tolist() == [np.float32(0.004)]


@pytest.mark.parametrize("left_out", [True, False])
def test_a_relu_that_saturating_stands_for_is_put_back(left_out: bool) -> None:  # noqa: FBT001
    case = Quantised()
    x = case.passed(case.input("x", 1, 4, 7, 5), 0.02, 0)
    y = case.node("Conv", x, case.real_weight((6, 4, 3, 3), 0), case.weight(6))
    y = y if left_out else case.node("Relu", y)
    content = case.content(case.passed(y, 0.008, -128))
    model = check_codes(content)
    assert [(op.kind, op.act) for op in model.graph.ops] == [("conv", "relu")]
    inputs = draw_inputs(model, open_session(content), 3)
    (found,) = run_read(model, inputs)
    assert found.min() == 0


def test_codes_are_moved_about_and_keep_their_meaning() -> None:
    case = Quantised("int8")
    x = case.coded(case.input("x", 1, 4, 8, 6), 0.03, 4)
    x = case.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = case.node("Transpose", x, perm=[0, 2, 3, 1])
    x = case.node("Reshape", x, case.constant([1, 12, 4], np.int64))
    model = check_codes(case.content(case.node("DequantizeLinear", x, *case.scale(0.03, 4))))
    assert set(params(model).values()) == {QParams(0.03, 4)}
    assert "transpose" not in {op.kind for op in model.graph.ops}


def test_a_file_of_codes_at_both_ends() -> None:
    case = Quantised()
    given = case.scale(0.02, 0)
    x = case.node("DequantizeLinear", case.input("x", 1, 3, 6, 5, dtype=np.uint8), *given)
    y = case.node("Conv", x, case.real_weight((4, 3, 3, 3), 0), case.weight(4))
    model = check_codes(case.content(case.coded(y, 0.004, 0)))
    assert model.quantization is not None
    assert model.quantization.ends == {"x": "uint8", model.graph.outputs[0]: "uint8"}
    assert model.graph.inputs[0].dtype == "float32"


def test_a_tensor_that_is_scaled_again() -> None:
    case = Quantised()
    x = case.passed(case.input("x", 1, 8), 0.02, 0)
    again = case.passed(x, 0.05, 10)
    both = case.node("Add", x, again)
    model = check_codes(case.content(case.passed(both, 0.06, 0)))
    assert QParams(0.05, 10) in params(model).values()


@pytest.mark.parametrize(
    ("dtype", "zero", "most"),
    # On x86 without VNNI sums of two products of a signed code saturate, so those are small.
    [(np.int8, 0, 63), (np.uint8, 128, 127)],
)
def test_ops_of_codes_are_read_as_the_real_ones(dtype: Any, zero: int, most: int) -> None:
    case = Quantised()

    def weights(*shape: int) -> str:
        return case.constant(zero + case.rng.integers(-most, most + 1, shape), dtype)

    first = case.scale(0.02, 0)
    x = case.node("QuantizeLinear", case.input("x", 1, 4, 7, 5), *first)
    codes = weights(6, 4, 3, 3)
    scales = case.constant(case.rng.uniform(0.002, 0.006, 6), np.float32)
    zeros = case.constant(np.full(6, zero), dtype)
    bias = case.constant(case.rng.integers(-900, 900, 6), np.int32)
    second = case.scale(0.012, 3)
    y = case.node("QLinearConv", x, *first, codes, scales, zeros, *second, bias)
    third = case.scale(0.02, 0)
    y = case.node("QLinearAdd", y, *second, y, *second, *third, domain="com.microsoft")
    fourth = case.scale(0.01, 0)
    y = case.node(
        "QLinearGlobalAveragePool", y, *third, *fourth, domain="com.microsoft", channels_last=0
    )
    y = case.node("Flatten", y)
    table = weights(6, 5)
    one = [case.constant(0.01, np.float32), case.constant(zero, dtype)]
    fifth = case.scale(0.006, 0)
    y = case.node("QLinearMatMul", y, *fourth, table, *one, *fifth)
    content = case.content(case.node("DequantizeLinear", y, *fifth))
    model = check_codes(content, off=3)
    assert model.quantization is not None
    assert all(model.quantization.is_integer(op) for op in model.graph.ops)
    assert len(model.quantization.weights) == 2


@pytest.mark.parametrize("kind", ["MatMulInteger", "ConvInteger"])
def test_codes_that_are_found_while_it_runs_are_real_numbers(kind: str) -> None:
    case = Case()
    shape = (1, 3, 7, 5) if kind == "ConvInteger" else (1, 4, 6)
    coded = case.node("DynamicQuantizeLinear", case.input("x", *shape), outputs=3)
    weight = (4, 3, 3, 3) if kind == "ConvInteger" else (6, 5)
    codes = case.constant(case.rng.integers(0, 255, weight), np.uint8)
    y = case.node(kind, coded, codes, f"{coded}_2", case.constant(120, np.uint8))
    scale = case.node("Mul", f"{coded}_1", case.constant(0.01, np.float32))
    y = case.node("Mul", case.node("Cast", y, to=onnx.TensorProto.FLOAT), scale)
    model = check(case.content(y), tolerance=0.03)
    assert len(model.graph.ops) == 1
    assert model.quantization is None


def test_codes_that_are_found_while_it_runs_are_not_given_away() -> None:
    case = Case()
    codes = case.node("DynamicQuantizeLinear", case.input("x", 3, 5), outputs=3)
    found = read_onnx(case.content(codes))
    assert isinstance(found, Unsupported)
    assert "(gives codes to the outside, and their scale is only known" in found.sentence


def test_codes_that_are_found_while_it_runs_are_made_real_again() -> None:
    case = Case()
    codes = case.node("DynamicQuantizeLinear", case.input("x", 3, 5), outputs=3)
    scale, zero = f"{codes}_1", f"{codes}_2"
    check(case.content(case.node("DequantizeLinear", codes, scale, zero)), tolerance=0.01)
    again = case.node("Add", scale, case.constant(1.0, np.float32))
    found = read_onnx(case.content(again))
    assert isinstance(found, Unsupported)
    assert "(gives codes to Add, and their scale is only known" in found.sentence


def test_weights_of_codes_alone() -> None:
    case = Quantised()
    weight = case.real_weight((6, 4, 3, 3), 0)
    y = case.node("Relu", case.node("Conv", case.input("x", 1, 4, 7, 5), weight))
    held = check(case.content(y)).quantization
    assert held is not None
    assert str(held.number_format) == "weight-only-int8-float32-channel"
    assert len(held.weights) == 1


def test_weights_in_blocks_are_read_as_real_numbers() -> None:
    case = Case(21)
    codes = case.constant(case.rng.integers(-8, 8, (6, 5)), np.int8)
    scales = case.constant(case.rng.uniform(0.01, 0.1, (3, 5)), np.float32)
    weight = case.node("DequantizeLinear", codes, scales, axis=0, block_size=2)
    check(case.content(case.node("MatMul", case.input("x", 1, 6), weight)))


def test_a_table_of_codes_is_looked_up_in_real_numbers() -> None:
    case = Case()
    table = case.constant(case.rng.integers(0, 255, (9, 4)), np.uint8)
    rows = case.node("Gather", table, case.input("ids", 1, 6, dtype=np.int64))
    scale = [case.constant(0.02, np.float32), case.constant(130, np.uint8)]
    check(case.content(case.node("DequantizeLinear", rows, *scale)))


def test_an_op_that_takes_codes_for_numbers_is_named() -> None:
    case = Quantised()
    x = case.coded(case.input("x", 1, 4), 0.02, 0)
    found = read_onnx(case.content(case.node("Add", x, x)))
    assert isinstance(found, Unsupported)
    assert "computes with codes as if they were numbers" in found.sentence


def test_int16_activations() -> None:
    case = Case(21)
    given = [case.constant(0.0002, np.float32), case.constant(0, np.int16)]
    x = case.node("QuantizeLinear", case.input("x", 1, 8), *given)
    x = case.node("DequantizeLinear", x, *given)
    codes = case.constant(case.rng.integers(-127, 128, (8, 5)), np.int8)
    one = [case.constant(0.01, np.float32), case.constant(0, np.int8)]
    y = case.node("MatMul", x, case.node("DequantizeLinear", codes, *one))
    y = case.node("DequantizeLinear", case.node("QuantizeLinear", y, *given), *given)
    model = check_codes(case.content(y), off=2)
    assert model.quantization is not None
    assert str(model.quantization.number_format) == "static16x8"


@pytest.mark.parametrize("twice", [True, False])
def test_real_ops_read_what_the_codes_of_a_real_input_mean(twice: bool) -> None:  # noqa: FBT001
    case = Quantised()
    given = case.input("x", 1, 4, 7, 5)
    first = case.passed(given, 0.4, 3)
    second = case.passed(given, 0.4, 3) if twice else first
    weight = case.real_weight((4, 4, 1, 1), 0)
    layer = case.passed(case.node("Conv", first, weight, case.weight(4)), 0.011, 5)
    real = case.node("Sigmoid", second)  # no codes of it
    model = check_codes(case.content(case.passed(case.node("Add", real, layer), 0.02, 0)))
    assert model.quantization is not None
    assert model.quantization.ends["x"] == "float32"
    kinds = {op.kind: model.quantization.is_integer(op) for op in model.graph.ops}
    kinds.pop("transpose", None)
    assert kinds == {"conv": True, "clip": True, "act": False, "add": False}


def test_a_real_op_whose_output_is_quantised_last_is_clipped() -> None:
    case = Quantised()
    x = case.passed(case.input("x", 1, 4, 7, 5), 0.02, 0)
    y = case.node("Mul", x, case.node("Sigmoid", x))
    check_codes(case.content(case.passed(y, 0.004, -100)))


def test_a_tensor_that_is_quantised_in_two_ways_is_rounded_once_in_each() -> None:
    case = Quantised()
    x = case.input("x", 1, 8)
    first, second = case.passed(x, 0.06, 0), case.passed(x, 0.05, 10)
    y = case.passed(case.node("Add", first, second), 0.01, 0)
    model = check_codes(case.content(y))
    assert {QParams(0.06, 0), QParams(0.05, 10)} <= set(params(model).values())


def test_a_tensor_that_is_read_as_it_was_made_as_well() -> None:
    case = Quantised()
    x = case.passed(case.input("x", 1, 4, 7, 5), 0.02, 0)
    y = case.node("Conv", x, case.real_weight((4, 4, 3, 3), 0), case.weight(4))
    coded = case.passed(y, 0.4, 0)
    y = case.node("Add", coded, case.node("Sigmoid", y))
    model = check_codes(case.content(case.passed(y, 0.02, 0)))
    assert model.quantization is not None
    (layer,) = (op for op in model.graph.ops if op.kind == "conv")
    assert not model.quantization.is_integer(layer)


def test_a_layer_of_real_weights_between_codes_stays_real() -> None:
    case = Quantised()
    x = case.passed(case.input("x", 1, 4, 7, 5), 0.02, 0)
    y = case.node("Conv", x, case.weight(4, 4, 3, 3), case.weight(4))
    model = check_codes(case.content(case.passed(y, 0.011, 5)))
    assert model.quantization is not None
    (layer,) = (op for op in model.graph.ops if op.kind == "conv")
    assert model.quantization.float_ops == {layer.name}
