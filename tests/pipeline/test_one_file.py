"""Deployed models of several files are one file there, with the same bytes every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from device_agents.errors import ConfigError
from device_agents.model_files import read
from pipeline.formats.files import run_file
from pipeline.formats.onnx.one_file import as_one_file
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
        np.testing.assert_array_equal(run_file(whole, images), run_file(path, images))
    assert not whole.exists()
    (tmp_path / "w.bin").write_bytes(b"short")
    refused = pytest.raises(ConfigError, match=r"weights beside .*m\.onnx do not fit it")
    with refused, as_one_file(read(path)):
        pass


def test_links_of_a_download_cache_are_one_model(tmp_path: Path) -> None:
    """A cache keeps the files under their hashes, and names them by links elsewhere."""
    kept, named, foreign = tmp_path / "blobs", tmp_path / "snapshots" / "1", tmp_path / "foreign"
    for folder in (kept, named, foreign):
        folder.mkdir(parents=True)
    path = onnx_conv(kept / "aa11")
    model = onnx.load(path)
    onnx.save_model(
        model, str(path), save_as_external_data=True, location="m.onnx_data", size_threshold=0
    )
    images = np.random.default_rng(0).random((2, 3, 16, 16), np.float32)
    with as_one_file(read(path)) as whole:
        right = run_file(whole.rename(tmp_path / "whole.onnx"), images)
    (kept / "m.onnx_data").rename(kept / "bb22")
    for name, blob in (("m.onnx", "aa11"), ("m.onnx_data", "bb22")):
        (named / name).symlink_to(f"../../blobs/{blob}")
    with as_one_file(read(named / "m.onnx")) as whole:
        np.testing.assert_array_equal(run_file(whole, images), right)
    # A link to anywhere else is still not followed.
    (foreign / "bb22").write_bytes((kept / "bb22").read_bytes())
    (named / "m.onnx_data").unlink()
    (named / "m.onnx_data").symlink_to(foreign / "bb22")
    with pytest.raises(ConfigError, match="not beside it or below"):
        read(named / "m.onnx")


def test_a_single_file_is_itself(tmp_path: Path) -> None:
    path = tflite_conv(tmp_path / "m.tflite")
    with as_one_file(read(path)) as whole:
        assert whole == path
