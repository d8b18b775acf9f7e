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

from models.execute import execute
from models.lower import lower
from models.model import random_model
from models.spec import ArchSpec
from pipeline.compress.passes.ptq import calibrate
from pipeline.formats import create
from pipeline.formats.api import ExportError
from pipeline.formats.figures import compare
from pipeline.formats.tflite import converter
from pipeline.formats.tflite.write import write_tflite

if TYPE_CHECKING:
    from pathlib import Path


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
    exporter = create("tflite")
    io = exporter.describe(content)
    return io.unpack(exporter.run(content, io.pack(images)))


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


@pytest.mark.slow
def test_keras_files_and_saved_models_are_converted(tmp_path: Path) -> None:
    """Made in a process of its own: TensorFlow does not enter this one."""
    code = (
        "import sys, tensorflow as tf\n"
        "net = tf.keras.Sequential([tf.keras.layers.Input((8, 8, 3), batch_size=1),\n"
        "  tf.keras.layers.Conv2D(4, 3), tf.keras.layers.BatchNormalization(),\n"
        "  tf.keras.layers.ReLU(), tf.keras.layers.GlobalAveragePooling2D(),\n"
        "  tf.keras.layers.Dense(5)])\n"
        "net.save(sys.argv[1] + '/net.keras'); net.export(sys.argv[1] + '/saved')\n"
    )
    argv = [sys.executable, "-c", code, str(tmp_path)]
    subprocess.run(argv, check=True, capture_output=True, timeout=300)
    images = np.random.default_rng(0).standard_normal((20, 3, 8, 8), np.float32)
    first = converter.convert_saved_model(tmp_path / "net.keras", timeout_s=300)
    second = converter.convert_saved_model(tmp_path / "saved", timeout_s=300)
    third = converter.convert_saved_model(tmp_path / "net.keras", images, timeout_s=300)
    assert np.abs(run(first, images) - run(second, images)).max() < 1e-5
    assert create("tflite").describe(third).input.dtype == "int8"
    assert compare(run(first, images), run(third, images)).sqnr_db > 20


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
