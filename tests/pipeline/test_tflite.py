"""The native TFLite writer: file structure, every op in both number formats, refusals."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from models import zoo
from models.codes import QParams
from models.execute import execute
from models.graph import INPUT, Graph, GraphBuilder
from models.lower import lower
from models.model import Model, random_model
from models.number_format import FLOAT32, STATIC8, NumberFormat
from models.ops import Conv, compute
from models.quantization import Quantization
from models.scales import random_quantization
from models.spec import ArchSpec
from models.window import Window
from pipeline.compress.passes.ptq import calibrate
from pipeline.formats import create
from pipeline.formats.api import ExportError
from pipeline.formats.figures import compare
from pipeline.formats.files import run_content
from pipeline.formats.tflite.flatbuffer import ALIGNMENT
from pipeline.formats.tflite.run import run_tflite
from pipeline.formats.tflite.write import write_tflite

if TYPE_CHECKING:
    from models.fold import Weights

# Together these hold every op kind, every activation, both paddings and a PAD.
EVERYTHING = (
    (
        "33x30x3:symmetric:conv_k3_s2_o16_hardswish:mb_k5_s2_m48_o24_silu_se6-relu-hardsigmoid:"
        "mb_k3_s1_m48_o24_poolskip:mb_k3_s1_m48_o24_skip:conv_k1_s1_o32_relu:fc16_hardswish:fc10"
    ),
    (
        "32x28x1:same:conv_k3_s1_o16:ds_k3_s2_o16_relu:mb_k3_s2_m48_o24_se6-silu-sigmoid:"
        "conv_k1_s1_o32_linear:fc16_relu6:fc7"
    ),
    "32x32x3:symmetric:conv_k3_s2_o8_linear:conv_k7_s2_o8_silu:conv_k1_s2_o8:fc3",
)
NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if code is not name}


def graph_of(line: str) -> Graph:
    return lower(ArchSpec.parse(line))


def model_of(graph: Graph, number_format: NumberFormat = FLOAT32) -> Model:
    return random_model(graph, np.random.default_rng(0), number_format)


def images_of(graph: Graph, count: int = 8, seed: int = 1) -> np.ndarray[Any, Any]:
    height, width, channels = graph.image_shape
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, channels, height, width), np.float32)


def run(content: bytes, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return run_content(create("tflite"), content, images)


def parsed(content: bytes) -> Any:
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))


def operators(content: bytes) -> list[str]:
    model = parsed(content)
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    return [NAMES[codes[op.opcodeIndex]] for op in model.subgraphs[0].operators]


def partitions(content: bytes) -> int:
    """Delegate partitions: each is appended as one node when tensors are allocated."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    before = len(interpreter._get_ops_details())
    interpreter.allocate_tensors()
    return len(interpreter._get_ops_details()) - before


@pytest.mark.parametrize("line", EVERYTHING)
def test_float32_computes_what_torch_computes(line: str) -> None:
    graph = graph_of(line)
    model, images = model_of(graph), images_of(graph)
    expected = execute(model, images).numpy()
    content = write_tflite(model)
    assert np.abs(run(content, images) - expected).max() < 1e-5
    assert partitions(content) == 1


@pytest.mark.parametrize("line", EVERYTHING)
@pytest.mark.parametrize("float_io", [False, True])
def test_int8_computes_what_torch_computes(line: str, *, float_io: bool) -> None:
    graph = graph_of(line)
    model, images = model_of(graph), images_of(graph, 32)
    expected = execute(model, images).numpy()
    content = write_tflite(calibrate(model, images), float_io=float_io)
    assert compare(expected, run(content, images)).sqnr_db > 25


def test_float_io_adds_one_op_at_each_end_and_changes_no_output() -> None:
    graph = graph_of(EVERYTHING[1])
    model, images = model_of(graph), images_of(graph)
    model = calibrate(model, images)
    inner, outer = write_tflite(model), write_tflite(model, float_io=True)
    assert operators(outer) == ["QUANTIZE", *operators(inner), "DEQUANTIZE"]
    ends = create("tflite").describe(outer)
    assert (ends.input.dtype, ends.output.dtype) == ("float32", "float32")
    np.testing.assert_array_equal(run(outer, images), run(inner, images))


@pytest.mark.parametrize("name", zoo.zoo())
def test_published_nets_in_float32(name: str) -> None:
    graph = lower(zoo.get(name).with_input(64, 64, 3))
    model, images = model_of(graph), images_of(graph, 2)
    content = write_tflite(model)
    assert np.abs(run(content, images) - execute(model, images).numpy()).max() < 1e-4
    assert partitions(content) == 1


@pytest.mark.parametrize("name", zoo.zoo())
def test_published_nets_in_int8_load_and_delegate(name: str) -> None:
    graph = lower(zoo.get(name).with_input(64, 64, 3))
    content = write_tflite(model_of(graph, STATIC8))
    hard_swish = operators(content).count("HARD_SWISH")
    # LiteRT 2.3 delegates everything but int8 HARD_SWISH, which splits the graph.
    assert 1 <= partitions(content) <= 1 + hard_swish
    run(content, images_of(graph, 1))


def test_mobilenet_v2_has_the_69_ops_of_the_converter() -> None:
    spec = replace(zoo.get("mobilenet-v2"), padding="symmetric")
    graph = lower(spec)
    expected = {"CONV_2D": 35, "DEPTHWISE_CONV_2D": 17, "ADD": 10, "PAD": 5}
    expected |= {"MEAN": 1, "FULLY_CONNECTED": 1}
    for number_format in (FLOAT32, STATIC8):
        assert Counter(operators(write_tflite(model_of(graph, number_format)))) == expected


@pytest.mark.parametrize(
    ("quantized", "expected"),
    [
        (False, dict.fromkeys(["CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "MUL"], 1)
         | dict.fromkeys(["PAD", "MEAN", "MAX_POOL_2D", "LOGISTIC", "HARD_SWISH"], 1)),
        (True, {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "HARD_SWISH": 1}
         | dict.fromkeys(["ADD", "MUL", "PAD", "MEAN", "MAX_POOL_2D", "LOGISTIC"], 2)),
    ],
)  # fmt: skip
def test_op_versions_are_those_of_the_converter(
    quantized: bool,  # noqa: FBT001
    expected: dict[str, int],
) -> None:
    graph = graph_of(EVERYTHING[0])
    model = parsed(write_tflite(model_of(graph, STATIC8 if quantized else FLOAT32)))
    found = {
        NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]: code.version
        for code in model.operatorCodes
    }
    assert found == expected


def test_a_dense_layer_has_one_scale() -> None:
    """With a scale per output TFLite 2.7 to 2.9 computes zeros and says nothing."""
    graph = graph_of(EVERYTHING[0])
    model = parsed(write_tflite(model_of(graph, STATIC8)))
    tensors = {tensor.name.decode(): tensor for tensor in model.subgraphs[0].tensors}
    for op in graph.ops:
        if op.has_weights:
            expected = 1 if op.kind == "dense" else op.out_shape[-1]
            assert len(tensors[f"{op.name}.weight"].quantization.scale) == expected
            assert len(tensors[f"{op.name}.bias"].quantization.scale) == expected


def test_the_file_survives_the_official_object_api() -> None:
    graph = graph_of(EVERYTHING[0])
    images = images_of(graph)
    content = write_tflite(model_of(graph, STATIC8))
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(parsed(content).Pack(builder), file_identifier=b"TFL3")
    np.testing.assert_array_equal(run(bytes(builder.Output()), images), run(content, images))


def test_constants_are_aligned_and_buffer_0_is_empty() -> None:
    graph = graph_of(EVERYTHING[1])
    content = write_tflite(model_of(graph, STATIC8))
    model = schema.Model.GetRootAs(content)
    assert model.Buffers(0).DataIsNone()
    start = np.frombuffer(content, np.uint8).ctypes.data
    for index in range(1, model.BuffersLength()):
        data = model.Buffers(index).DataAsNumpy()
        assert (data.ctypes.data - start) % ALIGNMENT == 0


def test_the_signature_names_input_and_logits() -> None:
    graph = graph_of(EVERYTHING[1])
    content = write_tflite(model_of(graph))
    runner = Interpreter(model_content=content).get_signature_runner("serving_default")
    image = images_of(graph, 1)
    result = runner(**{INPUT: image.transpose(0, 2, 3, 1)})
    np.testing.assert_array_equal(result["logits"], run(content, image))


def golden_weights(graph: Graph) -> Weights:
    """Weights by integer arithmetic, so that no generator's stream matters."""
    weights = {}
    for op in graph.ops:
        if op.has_weights:
            shape, units = op.weight_shape, op.out_shape[-1]
            count = int(np.prod(shape))
            weight = (((np.arange(count) * 7) % 17 - 8) / 16).astype(np.float32)
            weights[op.name] = (weight.reshape(shape), (np.arange(units) / 8).astype(np.float32))
    return weights


@pytest.mark.parametrize(
    ("scheme", "sha256"),
    [
        ("float32", "99d6e377ade471d4b605295d22459a7905837ead2cef198a448ce289b283a57c"),
        ("static8", "d912fbef044d309382b485c648842de3ed755aabe47672a1910dc3f51bca45d7"),
    ],
)
def test_golden_bytes(scheme: str, sha256: str) -> None:
    graph = graph_of(EVERYTHING[0])
    quantization = random_quantization(graph) if scheme == "static8" else None
    content = write_tflite(Model(graph, golden_weights(graph), quantization))
    assert content == write_tflite(Model(graph, golden_weights(graph), quantization))
    assert hashlib.sha256(content).hexdigest() == sha256


def one_op(kind: str, name: str, attributes: Any = None, act: str = "none") -> Graph:
    builder = GraphBuilder()
    builder.op(kind, name, (builder.input(INPUT, (1, 8, 8, 4)),), attributes, act=act)
    return builder.graph()


@pytest.mark.parametrize(
    ("graph", "sentence"),
    [
        (one_op("maxpool", "pool", Window(kernel=(3, 3), dilation=(2, 2))),
         "op 'pool' is a max pool with dilation (2, 2), which TFLite cannot express"),
        (one_op("conv", "c", Conv(out=4)), "op 'c' has no weights"),
    ],
)  # fmt: skip
def test_what_tflite_cannot_express_is_refused_by_name(graph: Graph, sentence: str) -> None:
    for quantization in (None, random_or_none(graph)):
        with pytest.raises(ExportError) as error:
            write_tflite(Model(graph, {}, quantization))
        assert sentence in str(error.value)


def random_or_none(graph: Graph) -> Quantization | None:
    return Quantization(dict.fromkeys((INPUT, *(op.name for op in graph.ops)), QParams(0.1, 0)))


def test_weights_of_another_shape_are_refused_by_name() -> None:
    graph = graph_of(EVERYTHING[1])
    weights = dict(model_of(graph).weights)
    weight, bias = weights["dense.0"]
    weights["dense.0"] = (weight[:, 1:], bias)
    with pytest.raises(ExportError, match=r"'dense.0' has weights \(16, 31\).*needs \(16, 32\)"):
        write_tflite(Model(graph, weights))


def test_a_max_pool_with_a_scale_of_its_own_is_computed_in_real_numbers() -> None:
    """The kernel gives codes of its input; those of another scale are quantised anew."""
    builder = GraphBuilder()
    window = Window(kernel=(3, 2), stride=(2, 1), padding=(1, 0, 0, 1))
    builder.op("maxpool", "pool", (builder.input(INPUT, (1, 8, 7, 4)),), window)
    graph = builder.graph()
    scales = Quantization({INPUT: QParams(0.02, 5), "pool": QParams(0.05, -3)})
    content = write_tflite(Model(graph, {}, scales))
    assert operators(content) == ["DEQUANTIZE", "PADV2", "MAX_POOL_2D", "QUANTIZE"]
    codes = np.random.default_rng(0).integers(-128, 128, (5, 8, 7, 4)).astype(np.int8)
    given = scales[INPUT].dequantize(codes)
    expected = scales["pool"].quantize(compute(graph["pool"], [given]))
    found = run_tflite(content, {INPUT: codes[:, None]})["pool"]
    np.testing.assert_array_equal(found[:, 0], expected)
