"""Other people's models on a virtual Raspberry Pi: written by us, or as they are, and in use."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from pipeline.cli.main import main
from tests.device_lab import add_profile
from tests.other_models import need

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.lab.userland import Userland

pytestmark = pytest.mark.slow


SPEECH = ("--input-shape", "input=1x512", "--input-shape", "state=2x1x128")


@pytest.mark.parametrize(
    ("name", "format_", "shapes"),
    [
        ("basic-pitch.tflite", "tflite", ()),
        ("face-short.tflite", "tflite", ()),
        ("resnet8-int8.tflite", "tflite", ()),
        ("ocr-cls.onnx", "onnx", ("--input-shape", "1x3x48x192")),
        # What no graph can say is deployed as it is.
        ("silero-ifless.onnx", "", SPEECH),
        ("alexa.tflite", "", ()),
    ],
)
def test_it_is_deployed(
    name: str,
    format_: str,
    shapes: tuple[str, ...],
    tmp_path: Path,
    virtual_pi: Userland,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    add_profile(tmp_path / "config", "pi", virtual_pi)
    file = str(need(name))
    if format_:
        assert main(["export", file, "--format", format_, "-o", "made", *shapes]) == 0
        file = capsys.readouterr().out.strip()
        shapes = ()
    what = name.partition(".")[0]
    told = ["--name", what, "--version", "1", *shapes]
    assert main(["deploy", file, "--device", "pi", *told]) == 0, capsys.readouterr().err
    shown = capsys.readouterr()
    assert re.search(r"pi: outputs (equal|agree with) this computer's", shown.err), shown.err
    assert virtual_pi.run("ls", shown.out.strip()).split()
