"""TFLite models that other people published: read, and computed as LiteRT computes them."""

from __future__ import annotations

import numpy as np
import pytest

from models.execute import execute_all
from models.number_format import DYNAMIC8, STATIC8
from pipeline.formats.api import Unsupported
from pipeline.formats.tflite.read import read_tflite
from tests import other_models
from tests.tflite_reading import fed, model_of, run, steps_apart

FLOATS = tuple(
    name
    for name in other_models.NAMES
    if name.startswith(("basic-pitch.tflite", "face", "iris", "resnet8.tflite"))
)


@pytest.mark.parametrize("name", FLOATS)
def test_models_of_others_compute_what_litert_computes(name: str) -> None:
    path = other_models.need(name)
    model = model_of(path)
    raw, real = fed(model, path.read_bytes())
    ours = execute_all(model, real)
    for output, expected in zip(model.graph.outputs, run(path.read_bytes(), raw), strict=True):
        assert ours[output].shape == expected.shape
        reach = max(float(np.ptp(expected)), float(np.abs(expected).max()))
        assert np.abs(ours[output] - expected).max() <= 1e-4 * reach


@pytest.mark.parametrize("name", ["resnet8-int8.tflite", "ds-cnn-int8.tflite"])
def test_int8_models_of_others_mean_what_litert_computes(name: str) -> None:
    path = other_models.need(name)
    model = model_of(path)
    assert model.number_format == STATIC8
    (apart,) = steps_apart(model, path.read_bytes(), plain=False)
    assert apart.max() <= 1.001


def test_a_dynamic_range_model_of_others_keeps_its_codes() -> None:
    path = other_models.need("ds-cnn.tflite")
    model = model_of(path)
    quantization = model.quantization
    assert quantization is not None
    assert quantization.number_format == DYNAMIC8
    layers = [op for op in model.graph.ops if op.has_weights]
    assert quantization.weights.keys() == {op.name for op in layers if op.kind == "conv"}
    assert quantization.float_ops == {op.name for op in layers if op.kind != "conv"}
    for op in layers:
        if op.kind == "conv":
            real = quantization.weights[op.name].dequantize(op)
            np.testing.assert_allclose(model.weights[op.name][0], real, rtol=1e-6)


@pytest.mark.parametrize("name", ["alexa.tflite", "jarvis.tflite", "mycroft.tflite", "nabu.tflite"])
def test_models_with_state_are_refused_by_name(name: str) -> None:
    path = other_models.need(name)
    found = read_tflite(path)
    assert isinstance(found, Unsupported)
    kinds = {op.kind for op in found.ops}
    expected = {"CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "SUBGRAPH"}
    assert kinds == expected
    assert str(path) in found.sentence
    assert "stream/states" in found.sentence or "stream_10/states" in found.sentence
