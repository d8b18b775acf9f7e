"""The native ONNX writer and the check around onnx-simplifier."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxsim
import pytest
from onnx import TensorProto, helper, numpy_helper

from device_agents.errors import ConfigError, VerificationError
from models import zoo
from models.execute import execute
from models.lower import lower
from models.model import Model, random_model
from models.number_format import STATIC8
from models.spec import ArchSpec
from pipeline.compress.passes.ptq import calibrate
from pipeline.formats import create
from pipeline.formats.api import ExportError
from pipeline.formats.figures import compare
from pipeline.formats.files import run_content
from pipeline.formats.onnx.simplify import simplify
from pipeline.formats.onnx.write import WEIGHT_TYPES, write_onnx

LINE = (
    "33x30x3:symmetric:conv_k3_s2_o16_hardswish:mb_k5_s2_m48_o24_silu_se6-relu-hardsigmoid:"
    "mb_k3_s1_m48_o24_poolskip:mb_k3_s1_m48_o24_skip:conv_k1_s1_o32_relu:"
    "conv_k3_s2_o16_se4-relu-sigmoid:fc16_hardswish:fc10"
)


def case(line: str = LINE, count: int = 32) -> tuple[Model, np.ndarray[Any, Any]]:
    graph = lower(ArchSpec.parse(line))
    height, width, channels = graph.image_shape
    rng = np.random.default_rng(0)
    images = rng.standard_normal((count, channels, height, width), np.float32)
    return random_model(graph, rng), images


def run(content: bytes, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return run_content(create("onnx"), content, images)


def kinds(content: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(content).graph.node)


def test_float32_computes_what_torch_computes() -> None:
    model, images = case()
    content = write_onnx(model)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    error = np.abs(run(content, images) - execute(model, images).numpy()).max()
    assert error < 1e-5


@pytest.mark.parametrize("weight_type", WEIGHT_TYPES)
def test_int8_computes_what_torch_computes(weight_type: str) -> None:
    model, images = case()
    content = write_onnx(calibrate(model, images), weight_type=weight_type)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    expected = execute(model, images).numpy()
    assert compare(expected, run(content, images)).sqnr_db > 25


def test_relu_needs_no_node_where_quantising_saturates() -> None:
    model, images = case("16x16x3:same:conv_k3_s2_o8_relu:conv_k3_s1_o8:fc4")
    assert kinds(write_onnx(model))["Relu"] == 1
    assert kinds(write_onnx(model))["Clip"] == 1
    found = kinds(write_onnx(calibrate(model, images)))
    assert found["Relu"] == found["Clip"] == 0


@pytest.mark.parametrize("name", zoo.zoo())
def test_published_nets(name: str) -> None:
    graph = lower(zoo.get(name).with_input(64, 64, 3))
    rng = np.random.default_rng(0)
    model, images = random_model(graph, rng), rng.standard_normal((1, 3, 64, 64), np.float32)
    error = np.abs(run(write_onnx(model), images) - execute(model, images).numpy())
    assert error.max() < 1e-4


@pytest.mark.parametrize("quantized", [False, True])
def test_simplified_files_compute_the_same_and_keep_their_codes(quantized: bool) -> None:  # noqa: FBT001
    model, images = case()
    content = write_onnx(calibrate(model, images) if quantized else model)
    result = simplify(content)
    np.testing.assert_array_equal(run(result, images), run(content, images))
    assert kinds(result) == kinds(content)
    stored = {i.name: i.data_type for i in onnx.load_from_string(result).graph.initializer}
    for op in model.graph.ops:
        if op.has_weights:
            expected = TensorProto.UINT8 if quantized else TensorProto.FLOAT
            assert stored[f"{op.name}.weight"] == expected


def test_simplifying_is_deterministic() -> None:
    model, images = case()
    model = calibrate(model, images)
    contents = {create("onnx").write(model) for _ in range(2)}
    assert len(contents) == 1


def one_node(value: float) -> bytes:
    """A file that adds `value`."""
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in ("x", "y")]
    constant = numpy_helper.from_array(np.full(4, value, np.float32), "c")
    node = helper.make_node("Add", ["x", "c"], ["y"])
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def test_a_simplifier_that_changes_the_function_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = onnx.load_from_string(one_node(1.5))
    monkeypatch.setattr(onnxsim, "simplify", lambda _model: (changed, True))
    with pytest.raises(VerificationError, match=r"outputs differ by 0\.5"):
        simplify(one_node(1.0))


def test_a_simplifier_that_fails_costs_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = case()
    simplified = create("onnx").write(model)

    def fail(_: object) -> None:
        raise RuntimeError("no such op")

    monkeypatch.setattr(onnxsim, "simplify", fail)
    with pytest.raises(VerificationError, match="onnx-simplifier fails on the file: no such op"):
        simplify(write_onnx(model))
    written = create("onnx").write(model)
    assert written == write_onnx(model)
    np.testing.assert_allclose(run(written, images), run(simplified, images), rtol=0, atol=1e-5)


def test_a_simplifier_that_folds_int8_weights_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = case()
    content = write_onnx(calibrate(model, images))
    folded = onnx.load_from_string(write_onnx(model))
    monkeypatch.setattr(onnxsim, "simplify", lambda _model: (folded, True))
    with pytest.raises(VerificationError, match="quantised constants"):
        simplify(content)


@pytest.mark.parametrize("part", ["weight", "weight.scale", "bias", "bias.scale"])
def test_a_simplifier_that_changes_one_code_or_scale_is_caught(
    monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    model, images = case()
    content = write_onnx(calibrate(model, images))
    changed = onnx.load_from_string(content)
    # The last unit of the last layer: nothing else feels it, and outputs may hide it.
    item = next(i for i in reversed(changed.graph.initializer) if i.name.endswith(part))
    values = numpy_helper.to_array(item).copy()
    values.flat[-1] = np.nextafter(values.flat[-1], 1) if values.dtype.kind == "f" else 1
    item.CopyFrom(numpy_helper.from_array(values, item.name))
    monkeypatch.setattr(onnxsim, "simplify", lambda _model: (changed, True))
    with pytest.raises(VerificationError, match="quantised constants"):
        simplify(content)


def test_equal_constants_of_two_gates_may_be_merged() -> None:
    block = "mb_k3_s1_m16_o8_relu_se8-relu-hardsigmoid_skip"
    graph = lower(ArchSpec.parse(f"8x8x1:same:conv_k3_s1_o8:{block}:{block}:fc3"))
    assert create("onnx").write(random_model(graph, np.random.default_rng(0), STATIC8))


def test_unknown_weight_types_are_refused_by_name() -> None:
    model, _ = case()
    with pytest.raises(ExportError, match="weight type 'int4'; known: uint8, int8"):
        write_onnx(model, weight_type="int4")


def test_what_is_no_onnx_file_is_refused_in_one_sentence() -> None:
    exporter = create("onnx")
    with pytest.raises(ConfigError, match="not an ONNX model: it is a text"):
        exporter.describe(b"TFL3 or something else")
    with pytest.raises(ConfigError, match="onnxruntime refuses the file"):
        exporter.run(b"", {"x": np.zeros((1, 1, 4), np.float32)})  # a message without a field
