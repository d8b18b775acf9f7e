"""`--data` where a model that generated inputs cannot run is timed, compared and deployed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents.api import Measurement
from pipeline.cli.commands._bench_text import lines
from pipeline.cli.samples import read_fed
from tests.cli_calls import said
from tests.tiny_models import onnx_conv, onnx_of_shapes, tflite_conv

if TYPE_CHECKING:
    from pathlib import Path

ADVICE = "it was run on generated inputs: --data FILE.npz or FOLDER gives it real ones"
HERE = ("--device", "here")
QUICK = (*HERE, "--protocol", "quick")
DEPLOY = ("deploy", "shapes.onnx", *HERE, "--name", "n", "--version")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    devices = tmp_path / "config" / "devices"
    devices.mkdir(parents=True)
    (devices / "here.toml").write_text(
        f'extends = "local"\ncanary = false\ndirectory = "{tmp_path / "device"}"\n'
    )
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(tmp_path / "config"))
    onnx_of_shapes(tmp_path / "shapes.onnx")
    rng = np.random.default_rng(0)
    x, shape = rng.standard_normal((6, 1, 4), np.float32), np.array([[2, 2]] * 6)
    np.savez(tmp_path / "real.npz", allow_pickle=False, x=x, shape=shape)
    return tmp_path


def test_a_model_is_timed_on_real_values(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    out, err = said(capsys, 3, "bench", "shapes.onnx", *QUICK)
    assert out == ""
    assert err.endswith(f"; {ADVICE}\n")
    timed = ("bench", "shapes.onnx", *QUICK, "--data", "real.npz")
    out, _ = said(capsys, 0, *timed)
    assert "\ninputs: x 1x4, shape 2; values of --data\n" in out
    assert "\noutputs: agree with this computer's" in out or "\noutputs: equal this" in out
    onnx_conv(place / "conv.onnx")
    out, err = said(capsys, 0, *timed, "--reference", "conv.onnx", "--json")
    told = json.loads(out)
    assert (len(told["inputs_sha256"]), told["reference_inputs_sha256"]) == (64, "")
    text = lines(Measurement.from_json(told))
    assert "inputs: x 1x4, shape 2; values of --data" in text
    assert "inputs of the reference: x 1x3x16x16" in text
    assert "conv.onnx is run on generated inputs, since real.npz does not fit it: " in err


def test_pictures_are_fed_as_they_are_to_the_model(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    from PIL import Image

    tflite_conv(place / "m.tflite")
    (place / "pictures" / "a").mkdir(parents=True)
    Image.new("RGB", (20, 20), (255, 0, 0)).save(place / "pictures" / "a" / "red.png")
    fed = ("--data", "pictures", "--mean", "0", "--scale", "1")
    out, err = said(capsys, 0, "bench", "m.tflite", *HERE, "--memory", *fed)
    assert (err, "; values of --data\n" in out) == ("", True)
    two = ("compare", "m.tflite", "m.tflite", *QUICK, "--data", "pictures")
    _, err = said(capsys, 0, *two)
    assert err.count("pixels are fed as (p - 127.5) / 127.5, since the file does not say how") == 1


def test_a_file_is_timed_on_the_first_sample_and_no_other_is_sent(place: Path) -> None:
    path, values = place / "shapes.onnx", np.load(place / "real.npz")
    fed = read_fed(place / "real.npz", path, {}, None)
    assert [len(array) for array in fed.arrays] == [4, 4]
    for sent in (fed.values, fed.of(path, {})):
        assert [value.shape for value in sent] == [(1, 1, 4), (1, 2)]
        assert sent[0].data == values["x"][0].tobytes()


def test_what_cannot_be_fed_is_one_sentence(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    (place / "m.json").write_text('{"edgewright_null": 1, "latency_ms": 1.0}')
    asked = ("bench", "m.json", "--device", "fake", "--data", "real.npz")
    out, err = said(capsys, 2, *asked)
    assert (out, err) == (
        "",
        "edgewright: --data feeds .tflite and .onnx files, which m.json is none of; leave it out\n",
    )
    tflite_conv(place / "m.tflite")
    asked = ("bench", "m.tflite", *HERE, "--runtime", "benchmark_model", "--data", "real.npz")
    out, err = said(capsys, 2, *asked)
    assert "benchmark_model makes up what it runs a model on; take another --runtime" in err
    assert (out, err.count("\n")) == ("", 1)


def test_two_files_are_compared_on_real_values(capsys: pytest.CaptureFixture[str]) -> None:
    two = ("shapes.onnx", "shapes.onnx")
    for command in (("compare", *two, *QUICK), ("verify", *two)):
        out, err = said(capsys, 2, *command)
        assert (out, err.count("\n")) == ("", 1)
        assert err.endswith(f"; {ADVICE}\n")
    out, _ = said(capsys, 0, "compare", *two, *QUICK, "--data", "real.npz")
    assert "outputs agree on 6 samples" in out


def test_a_model_is_deployed_once_it_agrees_on_real_values(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, err = said(capsys, 0, *DEPLOY, "1")
    assert "outputs not compared: this computer cannot run it: " in err
    assert f"; {ADVICE}; " in err
    _, err = said(capsys, 0, *DEPLOY, "2", "--data", "real.npz")
    assert "outputs equal this computer's" in err or "outputs agree with this computer's" in err
