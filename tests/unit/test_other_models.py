"""The models of other people that tests are given: whole, and skipped with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from device_agents.model_files import what_is
from scripts import other_models
from scripts.lab import images
from tests.other_models import NAMES, need

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES = {".tflite": "a TFLite model", ".onnx": "an ONNX model"}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_what_its_name_says(name: str) -> None:
    path = need(name)
    if path.suffix in SUFFIXES:
        assert what_is(path).words == SUFFIXES[path.suffix]
    elif path.suffix:
        assert "HDF5" in what_is(path).words
    else:
        assert (path / "saved_model.pb").is_file()


def test_a_package_that_there_is_not_skips_with_what_pip_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(images, "FOLDER", tmp_path)
    monkeypatch.setitem(other_models.VERSIONS, "rapidocr", "0.0.0.dev9")
    with pytest.raises(pytest.skip.Exception, match=r"pip cannot fetch rapidocr 0\.0\.0\.dev9: "):
        need("ocr-cls.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["package-rapidocr.lock"]
