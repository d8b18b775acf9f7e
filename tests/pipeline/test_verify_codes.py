"""`edgewright verify --codes`: an int8 file's codes beside exact integers, here and on devices."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from device_agents.errors import VerificationError
from pipeline.measure.codes import CodesBeside, OutputCodes, check_codes
from tests import wrong_runtimes
from tests.cli_calls import make_workplace, refusal, run_ok, said
from tests.int8_files import int8_file, samples_file
from tests.tiny_models import tflite_conv

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_workplace(tmp_path, monkeypatch)


def add_board(folder: Path, monkeypatch: pytest.MonkeyPatch, python: str) -> None:
    (folder / "devices").mkdir(exist_ok=True)
    (folder / "devices" / "board.toml").write_text(
        f'transport = "local"\ndirectory = "{folder}/board"\npython = "{python}"\n'
    )
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(folder))


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_right_kernels_give_the_codes_but_for_rounding(
    format_: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, data = int8_file(tmp_path, format_), samples_file(tmp_path)
    told = json.loads(run_ok(capsys, "verify", "--codes", file, "--data", data, "--json"))
    (output,) = told["outputs"]
    assert (told["device"], told["samples"], told["real_outputs"]) == (None, 24, [])
    assert output["values"] == 24 * 12
    assert output["equal_share"] >= 0.7
    assert output["largest_difference"] <= 5
    assert output["far_samples"] == 0
    shown = run_ok(capsys, "verify", "--codes", file)
    assert "equal" in shown
    assert output["name"] in shown


def test_codes_of_kernels_that_leave_a_layer_out_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = wrong_runtimes.int8_dense(tmp_path / "one.tflite", scale_per_output=False)
    bad = wrong_runtimes.int8_dense(tmp_path / "many.tflite", scale_per_output=True)
    add_board(tmp_path, monkeypatch, wrong_runtimes.zeroing_litert(tmp_path))
    told = json.loads(run_ok(capsys, "verify", "--codes", good, "--device", "board", "--json"))
    assert told["device"] == "board"
    assert told["outputs"][0]["equal_share"] == 1.0
    # Right here, wrong there: it is the device's kernels that are looked at.
    run_ok(capsys, "verify", "--codes", bad)
    out, err = said(capsys, 5, "verify", "--codes", bad, "--device", "board", "--json")
    assert json.loads(out)["outputs"][0]["far_samples"] == json.loads(out)["samples"]
    assert "does not compute on device 'board' what its codes mean" in err
    assert "the kernels of the runtime there are at fault" in err


def test_codes_of_kernels_that_saturate_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, data = int8_file(tmp_path, "onnx"), samples_file(tmp_path)
    add_board(tmp_path, monkeypatch, wrong_runtimes.saturating_onnxruntime(tmp_path, 0.3))
    _, err = said(capsys, 5, "verify", "--codes", file, "--data", data, "--device", "board")
    assert "samples are more than 5 codes off" in err


@pytest.mark.parametrize("fed", [False, True])
def test_a_deployment_tells_of_codes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    fed: bool,
) -> None:
    how = ("--device", "here", "--name", "net", "--version")
    data = ("--data", samples_file(tmp_path)) if fed else ()
    _, err = said(capsys, 0, "deploy", int8_file(tmp_path, "tflite"), *how, "1", *data)
    assert re.search(r"here: beside exact integers [0-9.]+% of 48 codes equal, the largest", err)
    assert "more than rounding" not in err
    if fed:
        monkeypatch.setattr("pipeline.measure.codes.STRAY_STEPS", -1.0)
        _, err = said(capsys, 0, "deploy", int8_file(tmp_path, "tflite"), *how, "1", *data)
        assert ": more than rounding explains" in err
        return
    tflite_conv(tmp_path / "float.tflite")
    _, err = said(capsys, 0, "deploy", tmp_path / "float.tflite", *how, "2")
    assert "exact integers" not in err


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["float.tflite"], 2, "float.tflite is float32, whose activations are no codes; give an"),
        (["no.tflite"], 2, "no.tflite"),
        (["float.tflite", "float.tflite"], 2, "--codes looks at one file; leave OTHER"),
        (["float.tflite", "--per-layer"], 2, "--codes looks at one file; leave OTHER"),
    ],
)
def test_what_has_no_codes_is_refused(
    words: list[str],
    code: int,
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tflite_conv(tmp_path / "float.tflite")
    assert sentence in refusal(capsys, code, "verify", "--codes", *words)


@pytest.mark.parametrize(
    ("far", "samples", "refused"), [(0, 1, False), (1, 1, True), (4, 16, False), (5, 16, True)]
)
def test_a_few_samples_may_stray(far: int, samples: int, *, refused: bool) -> None:
    one = OutputCodes("scores", 10 * samples, 0.9, 30, 0.5, far)
    found = CodesBeside(samples, (one,))
    assert found.words == f"90.00% of {10 * samples} codes equal, the largest difference 30"
    if not refused:
        check_codes(found, "net.tflite", "here")
        return
    with pytest.raises(VerificationError, match=r"net\.tflite does not compute here what its code"):
        check_codes(found, "net.tflite", "here")
