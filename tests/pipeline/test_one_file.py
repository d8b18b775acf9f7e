"""Deployed models of several files are one file there, with the same bytes every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from device_agents.errors import ConfigError
from device_agents.model_files import read
from pipeline.export.one_file import as_one_file
from pipeline.export.verify import run_artifact
from tests.tiny_models import onnx_conv, tflite_conv

if TYPE_CHECKING:
    from pathlib import Path


def test_a_model_in_parts_becomes_one_file(tmp_path: Path) -> None:
    path = onnx_conv(tmp_path / "m.onnx")
    model = onnx.load(path)
    onnx.save_model(
        model, str(path), save_as_external_data=True, location="w.bin", size_threshold=0
    )
    images = np.random.default_rng(0).random((2, 3, 16, 16), np.float32)
    with as_one_file(read(path)) as whole, as_one_file(read(path)) as again:
        assert read(whole).parts == ()
        assert whole.name == "m.onnx"
        assert whole.read_bytes() == again.read_bytes()
        np.testing.assert_array_equal(run_artifact(whole, images), run_artifact(path, images))
    assert not whole.exists()
    (tmp_path / "w.bin").write_bytes(b"short")
    refused = pytest.raises(ConfigError, match=r"weights beside .*m\.onnx do not fit it")
    with refused, as_one_file(read(path)):
        pass


def test_a_single_file_is_itself(tmp_path: Path) -> None:
    path = tflite_conv(tmp_path / "m.tflite")
    with as_one_file(read(path)) as whole:
        assert whole == path
