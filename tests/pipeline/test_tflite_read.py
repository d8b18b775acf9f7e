"""Ops of TFLite files, read and computed as LiteRT computes them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.execute import execute_all
from models.model import Model
from pipeline.formats.child import environment
from pipeline.formats.tflite.read import read_tflite
from tests.tflite_cases import CASES
from tests.tflite_maker import run

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
