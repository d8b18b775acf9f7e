"""Ops of TFLite files, read and computed as LiteRT computes them."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.execute import execute_all
from models.model import Model
from pipeline.formats.api import Unsupported
from pipeline.formats.child import environment
from pipeline.formats.tflite.contents import read_contents
from pipeline.formats.tflite.mediapipe import DECONV
from pipeline.formats.tflite.partitions import predict
from pipeline.formats.tflite.read import read_tflite
from scripts.tflite_maker import TFLiteFile
from tests.tflite_cases import CASES
from tests.tflite_reading import run

Array = np.ndarray[Any, Any]
ROOT = Path(__file__).parents[2]


def executed(content: bytes, inputs: list[Array]) -> list[Array]:
    model = read_tflite(content)
    assert isinstance(model, Model), model.sentence
    given = {tensor.name: x for tensor, x in zip(model.graph.inputs, inputs, strict=True)}
    outputs = execute_all(model, given)
    return [outputs[name] for name in model.graph.outputs]


def same(found: Array, expected: Array) -> None:
    assert found.shape == expected.shape
    if expected.dtype.kind in "biu":
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
        return
    assert found.dtype == np.float32
    reach = max(float(np.ptp(expected)), 1e-3) if expected.size > 1 else 1.0
    assert np.abs(found - expected).max() <= 1e-4 * reach


@pytest.mark.parametrize("name", CASES)
def test_an_op_computes_what_litert_computes(name: str) -> None:
    content, fed = CASES[name].build()
    rng = np.random.default_rng(len(name))
    inputs = [each.sample(rng) for each in fed]
    for found, expected in zip(executed(content, inputs), run(content, inputs), strict=True):
        same(found, expected)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel", [(2, 3), (3, 5), (4, 3)])
def test_mediapipes_transposed_convolution_computes_what_xnnpack_computes(
    padding: str, kernel: tuple[int, int]
) -> None:
    shape, (down, across), rng = (1, 5, 7, 3), (2, 3), np.random.default_rng(5)
    size = (10, 21) if padding == "same" else (8 + kernel[0], 18 + kernel[1])
    file = TFLiteFile()
    source, made = file.tensor("x", shape), file.tensor("y", (1, *size, 4))
    weight = file.constant("w", rng.normal(0, 1, (4, *kernel, 3)).astype(np.float32))
    bias = file.constant("b", rng.normal(0, 1, 4).astype(np.float32))
    steps = struct.pack("<iii", 1 if padding == "same" else 2, across, down)
    kind = f"CUSTOM {DECONV}"
    file.op(kind, [source, weight, bias], [made], custom=steps)
    content = file.content([source], [made])
    inputs = [rng.normal(0, 1, shape).astype(np.float32)]
    (found,) = executed(content, inputs)
    (expected,) = run(content, inputs, plain=False)
    same(found, expected)
    assert predict(read_contents(content)).count == 1


def test_a_custom_op_with_options_that_are_none_of_its_own_is_refused() -> None:
    file = TFLiteFile()
    source, made = file.tensor("x", (1, 2, 2, 1)), file.tensor("y", (1, 4, 4, 1))
    weight, bias = (
        file.constant(name, np.ones(s, np.float32)) for name, s in (("w", (1, 2, 2, 1)), ("b", 1))
    )
    file.op(f"CUSTOM {DECONV}", [source, weight, bias], [made], custom=b"\3\0\0\0")
    content = file.content([source], [made])
    found = read_tflite(content)
    assert isinstance(found, Unsupported)
    assert "CUSTOM Convolution2DTransposeBias at 'y (op 0)'" in found.sentence
    assert "LiteRT has no kernel for" in predict(read_contents(content)).unknown


@pytest.mark.slow
def test_files_that_no_converter_writes_are_read_as_litert_runs_them_or_refused() -> None:
    argv = [sys.executable, "-m", "tests.read_draws", "12"]
    done = subprocess.run(
        argv, check=True, capture_output=True, timeout=600, cwd=ROOT, env=environment()
    )
    found = json.loads(done.stdout)
    # The logarithm of a negative number is none, and any code will do.
    assert [fault for fault in found["faults"] if not fault.startswith("LOG ")] == []
    assert found["ends"]["same"] >= 350
