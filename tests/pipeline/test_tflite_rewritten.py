"""TFLite files of other people, read and written again: the same numbers, and no more work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from models.model import Model
from pipeline.formats.tflite.read import read_tflite
from pipeline.formats.tflite.write import write_tflite
from tests import other_models

FILES = (
    *("basic-pitch.tflite", "face-back.tflite", "face-front.tflite", "face-full.tflite"),
    *("face-sparse.tflite", "face-mesh.tflite", "iris.tflite", "resnet8.tflite"),
    *("resnet8-int8.tflite", "ds-cnn.tflite", "ds-cnn-int8.tflite"),
)


def opened(content: bytes) -> tuple[Interpreter, int, int]:
    """A file ready to run, with its operators and its delegate partitions."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    operators = len(interpreter._get_ops_details())
    interpreter.allocate_tensors()
    return interpreter, operators, len(interpreter._get_ops_details()) - operators


def given(interpreter: Interpreter) -> list[Any]:
    rng = np.random.default_rng(0)
    ends = [(tuple(d["shape"]), d["dtype"]) for d in interpreter.get_input_details()]
    return [
        rng.random(shape, np.float32)
        if dtype == np.float32
        else rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape).astype(dtype)
        for shape, dtype in ends
    ]


def computed(interpreter: Interpreter, inputs: list[Any]) -> list[Any]:
    for end, value in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(end["index"], value)
    interpreter.invoke()
    return [interpreter.get_tensor(end["index"]) for end in interpreter.get_output_details()]


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_others_is_written_again_with_no_more_work(name: str) -> None:
    path = other_models.need(name)
    model = read_tflite(Path(path), {})
    assert isinstance(model, Model)
    theirs, their_operators, their_partitions = opened(path.read_bytes())
    ours, operators, partitions = opened(write_tflite(model))
    assert partitions <= their_partitions
    assert operators <= their_operators
    inputs = given(theirs)
    for expected, found in zip(computed(theirs, inputs), computed(ours, inputs), strict=True):
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        if found.dtype == np.float32:
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        else:
            assert np.abs(found.astype(int) - expected).max() <= 1
