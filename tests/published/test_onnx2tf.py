"""`edgewright export --library` of an ONNX file by onnx2tf itself, where it is installed.

Installing takes minutes; `scripts/bench_import.py --only conversion` does it, in an environment of
its own.
"""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from pipeline.cli.main import main
from pipeline.formats.api import ReadOptions
from pipeline.formats.subjects import find_runnable

# Imported with the test file, before tests move the cache (see `scripts.lab.images`).
from scripts._import_conversion import find_peer

if TYPE_CHECKING:
    from pathlib import Path

PEER = find_peer()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PEER is None, reason="onnx2tf is installed by bench_import, in minutes"),
]


class Recurrent(nn.Module):
    """An LSTM, which our graph cannot say."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm, self.dense = nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.dense(self.lstm(x)[0].mean(1))
        return scores


def test_a_file_that_no_graph_can_say_is_converted_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", f"{PEER}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = (torch.zeros(1, 7, 6),)
        torch.onnx.export(Recurrent().eval(), example, "net.onnx", dynamo=False, opset_version=17)
    assert main(["export", "net.onnx", "-o", "made"]) == 2
    assert "LSTM at " in capsys.readouterr().err
    assert main(["export", "net.onnx", "-o", "made", "--library"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "made/net-float32.tflite\n"
    assert "compared with its source on 16 generated samples" in shown.err
    made = find_runnable("made/net-float32.tflite", ReadOptions())
    assert made is not None
    assert made.numbers == "floats"
