from __future__ import annotations

from typing import TYPE_CHECKING

from models.number_format import FLOAT32, STATIC8
from pipeline.evaluate.final import list_forms
from pipeline.formats.onnx import ONNX
from pipeline.measure.form import Form

if TYPE_CHECKING:
    import pytest

TFLITE = [Form("tflite", FLOAT32), Form("tflite", STATIC8)]


def test_every_format_is_written_in_all_its_number_formats() -> None:
    onnx = [Form("onnx", FLOAT32), Form("onnx", STATIC8)]
    assert list_forms(("tflite", "onnx"), TFLITE[1]) == [*TFLITE, *onnx]
    assert list_forms(("onnx",), TFLITE[1]) == [TFLITE[1], *onnx]


def test_a_format_is_not_asked_for_what_it_does_not_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ONNX, "number_formats", (FLOAT32,))
    assert list_forms(("tflite", "onnx"), TFLITE[1]) == [*TFLITE, Form("onnx", FLOAT32)]
