"""TensorFlow's converter in its child process, as the oracle of the native writer."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from device_agents.errors import VerificationError
from models.execute import execute, execute_all
from models.fold import random_weights
from models.graph import GraphBuilder
from models.lower import lower
from models.model import Model, random_model
from models.number_format import FLOAT32, STATIC8
from models.ops import Conv, Dense, Depthwise, Mean
from models.spec import ArchSpec
from models.window import Window
from pipeline.compress.passes.ptq import calibrate
from pipeline.formats import create
from pipeline.formats.api import ExportError
from pipeline.formats.figures import compare
from pipeline.formats.files import run_content
from pipeline.formats.tflite import converter
from pipeline.formats.tflite.write import write_tflite
from pipeline.formats.verify import verify_outputs

if TYPE_CHECKING:
    from pathlib import Path

    from models.graph import Graph


# Between them: every op kind and activation, both paddings, PAD.
NETS = {
    "v2": (
        "40x40x3:symmetric:conv_k3_s2_o16:mb_k3_s1_o8:mb_k3_s2_m48_o16:mb_k5_s1_m96_o16_skip:"
        "conv_k1_s1_o64:fc10"
    ),
    "v3": (
        "33x30x3:symmetric:conv_k3_s2_o16_hardswish:mb_k5_s2_m48_o24_relu_se6-relu-hardsigmoid:"
        "mb_k3_s1_m48_o24_hardswish_se6-relu-hardsigmoid_skip:conv_k1_s1_o64_hardswish:"
        "fc32_hardswish:fc10"
    ),
    "mixed": (
        "32x32x1:same:conv_k3_s1_o16_relu:ds_k3_s2_o16:mb_k3_s1_m32_o16_silu_se4-silu-sigmoid:"
        "mb_k3_s1_m32_o16_poolskip:conv_k1_s1_o32_linear:fc10"
    ),
}


class Case:
    """A network with images, its native files and the converter's."""

    def __init__(self, line: str) -> None:
        graph = lower(ArchSpec.parse(line))
        height, width, channels = graph.image_shape
        rng = np.random.default_rng(0)
        self.images = rng.standard_normal((50, channels, height, width), np.float32)
        model = random_model(graph, rng)
        self.expected = execute(model, self.images).numpy()
        self.native = write_tflite(model), write_tflite(calibrate(model, self.images))
        self.converted = (
            converter.convert(model, timeout_s=300),
            converter.convert(model, self.images, timeout_s=300),
        )


@pytest.fixture(scope="module", params=NETS)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(NETS[request.param])


def operators(content: bytes) -> tuple[Counter[tuple[str, int]], int]:
    """(name, version) of each op, and delegate partitions."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    codes = [
        (names[max(c.builtinCode, c.deprecatedBuiltinCode)], c.version) for c in model.operatorCodes
    ]
    found = Counter(codes[op.opcodeIndex] for op in model.subgraphs[0].operators)
    interpreter = Interpreter(model_content=content, num_threads=1)
    before = len(interpreter._get_ops_details())
    interpreter.allocate_tensors()
    return found, len(interpreter._get_ops_details()) - before


def run(content: bytes, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return run_content(create("tflite"), content, images)


@pytest.mark.slow
def test_same_ops_same_versions_no_more_partitions(case: Case) -> None:
    for native, converted in zip(case.native, case.converted, strict=True):
        found, partitions = operators(native)
        expected, allowed = operators(converted)
        assert found == expected
        assert partitions <= allowed


@pytest.mark.slow
def test_int8_dense_layers_have_one_scale(case: Case) -> None:
    """TFLite before 2.10 computes zeros from a scale for each output."""
    for content in (case.native[1], case.converted[1]):
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
        graph, dense = model.subgraphs[0], schema.BuiltinOperator.FULLY_CONNECTED
        weights = [
            graph.tensors[op.inputs[1]]
            for op in graph.operators
            if model.operatorCodes[op.opcodeIndex].builtinCode == dense
        ]
        assert weights
        assert [len(tensor.quantization.scale) for tensor in weights] == [1] * len(weights)


@pytest.mark.slow
def test_float32_gives_the_same_outputs(case: Case) -> None:
    native, converted = (run(files[0], case.images) for files in (case.native, case.converted))
    assert np.abs(native - converted).max() < 1e-5


@pytest.mark.slow
def test_int8_is_as_close_to_torch(case: Case) -> None:
    native, converted = (
        compare(case.expected, run(files[1], case.images)).sqnr_db
        for files in (case.native, case.converted)
    )
    assert native > 20
    assert native > converted - 0.5


@pytest.mark.slow
def test_int8_has_the_same_number_formats(case: Case) -> None:
    """Scales and zero points, but for what an addition reads.

    There the converter stores a convolution in the coarser format of the sum; we do not.
    """

    def formats(content: bytes) -> tuple[list[float], list[int]]:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content))
        graph, add = model.subgraphs[0], schema.BuiltinOperator.ADD
        sums = [
            op for op in graph.operators if model.operatorCodes[op.opcodeIndex].builtinCode == add
        ]
        added = {index for op in sums for index in op.inputs}
        results = [op.outputs[0] for op in graph.operators if op.outputs[0] not in added]
        found = [graph.tensors[index].quantization for index in results]
        # Sorted, because ops beside each other may stand in any order.
        return sorted(q.scale.item() for q in found), sorted(q.zeroPoint.item() for q in found)

    native, converted = formats(case.native[1]), formats(case.converted[1])
    assert native[0] == pytest.approx(converted[0], rel=1e-3)
    assert native[1] == converted[1]


KERAS = """
import sys
import tensorflow as tf

layers, folder = tf.keras.layers, sys.argv[1]
net = tf.keras.Sequential([
    layers.Input((8, 8, 3), batch_size=1), layers.Conv2D(4, 3), layers.BatchNormalization(),
    layers.ReLU(), layers.GlobalAveragePooling2D(), layers.Dense(5),
])
net.save(f"{folder}/net.keras")
net.export(f"{folder}/saved")
image, extra = layers.Input((8, 8, 3), name="file"), layers.Input((4,), name="extra")
x = layers.Conv2D(4, 3, padding="same")(image)
both = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), extra])
two = tf.keras.Model([image, extra], [layers.Dense(5)(both), layers.Conv2D(2, 1)(x)])
two.save(f"{folder}/two.keras")
words = layers.Input((None,), dtype="int32", name="words")
mean = layers.GlobalAveragePooling1D()(layers.Embedding(10, 4)(words))
tf.keras.Model(words, layers.Dense(2)(mean)).save(f"{folder}/words.keras")
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models as users bring them, made in a process of their own."""
    folder = tmp_path_factory.mktemp("keras")
    argv = [sys.executable, "-c", KERAS, str(folder)]
    subprocess.run(argv, check=True, capture_output=True, timeout=300)
    return folder


def noise(count: int = 20) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).standard_normal((count, 3, 8, 8), np.float32)


@pytest.mark.slow
def test_a_keras_file_and_its_tflite_file_compute_the_same(made: Path) -> None:
    file = converter.convert_saved_model(made / "net.keras", timeout_s=300)
    shapes = {name: value.shape for name, value in file.reference.items()}
    assert shapes == {"output_0": (converter.RANDOM_SAMPLES, 1, 5)}
    found = verify_outputs("net.tflite", FLOAT32, file.reference, file.outputs)
    assert found.images == converter.RANDOM_SAMPLES
    assert found.sqnr_db > 100


@pytest.mark.slow
def test_int8_of_a_saved_model_is_held_against_it(made: Path) -> None:
    file = converter.convert_saved_model(made / "saved", noise(), noise(), timeout_s=300)
    assert create("tflite").describe(file.content).input.dtype == "int8"
    assert 20 < verify_outputs("net.tflite", STATIC8, file.reference, file.outputs).sqnr_db < 60
    # The same as by the format's own way of running a file.
    outputs = run(file.content, noise())
    np.testing.assert_allclose(file.outputs["output_0"][:, 0], outputs, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_a_file_calibrated_on_other_numbers_than_it_is_used_on_is_refused(made: Path) -> None:
    dark = noise() * np.float32(0.001)
    file = converter.convert_saved_model(made / "net.keras", dark, noise(), timeout_s=300)
    with pytest.raises(VerificationError, match=r"net\.tflite \(static8\) does not compute what"):
        verify_outputs("net.tflite", STATIC8, file.reference, file.outputs)


@pytest.mark.slow
def test_several_inputs_and_outputs_are_verified_by_name(made: Path) -> None:
    file = converter.convert_saved_model(made / "two.keras", timeout_s=300)
    count = converter.RANDOM_SAMPLES
    shapes = {name: value.shape for name, value in file.outputs.items()}
    assert shapes == {"output_0": (count, 1, 5), "output_1": (count, 1, 8, 8, 2)}
    assert verify_outputs("two.tflite", FLOAT32, file.reference, file.outputs).sqnr_db > 100
    wrong = {**file.outputs, "output_1": file.outputs["output_1"] * np.float32(1.01)}
    with pytest.raises(VerificationError, match=r"two\.tflite: output 'output_1' \(float32\) does"):
        verify_outputs("two.tflite", FLOAT32, file.reference, wrong)
    lacking = {"output_0": file.outputs["output_0"]}
    with pytest.raises(VerificationError, match=r"two\.tflite gives outputs of the shapes"):
        verify_outputs("two.tflite", FLOAT32, file.reference, lacking)


@pytest.mark.slow
def test_what_cannot_be_verified_is_not_converted(made: Path) -> None:
    with pytest.raises(ExportError, match=r"no random int32 of shape 1x\? can be drawn"):
        converter.convert_saved_model(made / "words.keras", timeout_s=300)


@pytest.mark.slow
def test_a_damaged_keras_file_fails_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "net.keras").write_bytes(b"not a model")
    with pytest.raises(ExportError, match=r"TFLiteConverter cannot convert .*net\.keras: "):
        converter.convert_saved_model(tmp_path / "net.keras", timeout_s=300)


def test_what_is_no_model_is_refused_before_a_process_starts(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.keras", tmp_path / "net.pt"):
        with pytest.raises(ExportError, match=r"known: a SavedModel folder"):
            converter.convert_saved_model(path)


def test_a_converter_that_takes_too_long_is_ended() -> None:
    graph = lower(ArchSpec.parse("8x8x1:same:conv_k3_s1_o4:fc2"))
    model = random_model(graph, np.random.default_rng(0))
    with pytest.raises(ExportError, match=r"did not convert the network within 0\.2 s"):
        converter.convert(model, timeout_s=0.2)


def anything() -> Graph:
    """What a graph can say and no spec of ours does: sides that differ, groups, gaps, ends."""
    builder = GraphBuilder()
    image, other = builder.input("image", (1, 13, 17, 4)), builder.input("other", (1, 7, 5, 8))
    scale = builder.constant("scale", (1, 1, 1, 8))
    strip = Conv(out=8, kernel=(1, 5), stride=(1, 2), padding=(0, 0, 2, 2))
    x = builder.op("conv", "strip", [image], strip, act="relu")
    pool = Window(kernel=(3, 2), stride=(2, 2), padding=(2, 0, 1, 0))
    x = builder.op("maxpool", "pool", [x], pool)
    grouped = Conv(out=8, kernel=(3, 3), padding=(1, 1, 1, 1), groups=2)
    x = builder.op("conv", "grouped", [x], grouped)
    gaps = Conv(out=4, kernel=(3, 3), padding=(2, 2, 1, 1), dilation=(2, 1))
    x = builder.op("conv", "gaps", [x], gaps)
    double = Depthwise(kernel=(3, 1), padding=(1, 1, 0, 0), multiplier=2)
    x = builder.op("mul", "scaled", [builder.op("depthwise", "double", [x], double), scale])
    total = builder.op("add", "total", [x, other], act="relu6")
    mean = builder.op("mean", "mean", [total], Mean(keepdims=False))
    return builder.graph(total, builder.op("dense", "scores", [mean], Dense(3)))


@pytest.mark.slow
def test_the_oracle_says_what_a_graph_can_say() -> None:
    graph, rng = anything(), np.random.default_rng(2)
    model = Model(graph, random_weights(graph, rng))
    inputs = {t.name: rng.standard_normal(t.shape, np.float32) for t in graph.inputs}
    interpreter = Interpreter(model_content=converter.convert(model, timeout_s=300))
    interpreter.allocate_tensors()
    # The converter orders and names them in its own way; their shapes tell them apart.
    of_shape = {values.shape: values for values in inputs.values()}
    for source in interpreter.get_input_details():
        interpreter.set_tensor(source["index"], of_shape[tuple(source["shape"])])
    interpreter.invoke()
    results = [interpreter.get_tensor(r["index"]) for r in interpreter.get_output_details()]
    found = {values.shape: values for values in results}
    expected = execute_all(model, inputs)
    assert expected.keys() == {"total", "scores"}
    for values in expected.values():
        np.testing.assert_allclose(found[values.shape], values, rtol=1e-4, atol=1e-5)
