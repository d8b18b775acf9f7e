"""`edgewright verify A B` and `compare A B` through the real command, in real runtimes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.fold import random_weights
from models.graph import Graph, GraphBuilder
from models.model import Model
from models.ops import Conv, Dense, Mean
from pipeline.formats import create
from tests.cli_calls import make_workplace, said

if TYPE_CHECKING:
    from pathlib import Path


def network() -> Graph:
    """Two inputs, one of them a map that is not square, and two outputs, one of them a map."""
    builder = GraphBuilder()
    image, state = builder.input("image", (1, 9, 13, 3)), builder.input("state", (1, 6))
    conv = Conv(out=6, kernel=(3, 3), stride=(1, 2), padding=(1, 1, 1, 1))
    features = builder.op("conv", "features", [image], conv, act="relu")
    pooled = builder.op("mean", "pooled", [features], Mean(keepdims=False))
    new = builder.op("add", "new", [pooled, state])
    scores = builder.op("dense", "scores", [new], Dense(4))
    return builder.graph(features, scores)


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_workplace(tmp_path, monkeypatch)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """One network as TFLite, ONNX and .npz, and another one that looks like it."""
    graph = network()
    model = Model(graph, random_weights(graph, np.random.default_rng(0)))
    other = Model(graph, random_weights(graph, np.random.default_rng(1)))
    made = {}
    for name, what, format_ in (
        ("net.tflite", model, "tflite"),
        ("net.onnx", model, "onnx"),
        ("other.onnx", other, "onnx"),
    ):
        made[name] = tmp_path / name
        made[name].write_bytes(create(format_).write(what))
    made["net.npz"] = tmp_path / "net.npz"
    model.save(made["net.npz"])
    return made


@pytest.mark.parametrize("second", ["net.onnx", "net.npz"])
def test_files_of_one_network_agree_in_every_output(
    files: dict[str, Path], second: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = said(capsys, 0, "verify", files["net.tflite"], files[second], "--json")
    told = json.loads(out)
    assert [output["name"] for output in told["outputs"]] == ["features", "scores"]
    assert min(output["sqnr_db"] for output in told["outputs"]) > 100
    assert max(output["max_abs_error"] for output in told["outputs"]) < 1e-5
    moved = ["channels last"] if second == "net.onnx" else []
    assert [way.replace("first", "last") for way in told["inputs_moved"]] == moved


def test_files_of_two_networks_are_told_apart(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, err = said(capsys, 5, "verify", files["net.tflite"], files["other.onnx"])
    assert "other.onnx does not compute what" in err
    assert "the output 'features' differs by up to" in err


def test_samples_are_read_by_the_names_of_inputs(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    data = tmp_path / "samples.npz"
    image, state = rng.random((5, 9, 13, 3), np.float32), rng.random((5, 6), np.float32)
    np.savez(data, image=image, state=state)
    both = files["net.tflite"], files["net.onnx"]
    out, _ = said(capsys, 0, "verify", *both, "--data", data, "--json")
    assert json.loads(out)["samples"] == 5
    np.savez(data, image=image[:, :8], state=state)
    _, err = said(capsys, 2, "verify", *both, "--data", data)
    assert "'image' has the shape [5, 8, 13, 3]" in err
    np.savez(data, picture=image, state=state)
    _, err = said(capsys, 2, "verify", *both, "--data", data)
    assert "no such input" in err


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["net.tflite"], "give OTHER, a second model"),
        (["net.tflite", "net.bin"], "no model 'net.bin': there is no such file"),
        (["net.tflite", "net.onnx", "--mean", "3"], "--mean 3 needs --scale too"),
        (["net.tflite", "net.onnx", "--scale", "1/x"], "--scale '1/x' is not one number or three"),
        (
            ["net.tflite", "net.onnx", "--input-shape", "z=1x2"],
            "neither model has an input of that name; their",
        ),
        (["net.tflite", "net.onnx", "--device", "nowhere"], "no device 'nowhere'"),
    ],
)
def test_a_mistake_is_one_sentence(
    files: dict[str, Path], args: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert files
    _, err = said(capsys, 2, "verify", *args)
    assert sentence in err


def test_a_file_is_verified_on_a_device(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    both = files["net.onnx"], files["net.tflite"]
    out, _ = said(capsys, 0, "verify", *both, "--device", "here", "--json")
    told = json.loads(out)
    assert told["device"] == "here"
    assert max(output["max_abs_error"] for output in told["outputs"]) < 1e-5
    _, err = said(capsys, 2, "verify", files["net.onnx"], files["net.npz"], "--device", "here")
    assert "net.npz is no file that a runtime takes" in err


def test_files_of_one_runtime_are_compared_in_turns(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    same = files["net.tflite"].with_name("same.tflite")
    same.write_bytes(files["net.tflite"].read_bytes())
    quick = ("--device", "here", "--protocol", "quick", "--json")
    told = json.loads(said(capsys, 0, "compare", files["net.tflite"], same, *quick)[0])
    assert told["in_turns"]
    low, high = told["ratio_ci95"]
    assert 0 < low <= told["ratio"] <= high


def test_files_of_two_runtimes_are_compared_one_after_the_other(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    both = files["net.tflite"], files["net.onnx"]
    out, _ = said(capsys, 0, "compare", *both, "--device", "here", "--protocol", "quick")
    assert "one after the other, being of two runtimes" in out
    assert "outputs agree on 16 generated samples" in out


def test_files_are_compared_on_samples_of_the_user(
    files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    image, state = rng.random((5, 9, 13, 3), np.float32), rng.random((5, 6), np.float32)
    data = tmp_path / "samples.npz"
    np.savez(data, image=image, state=state)
    same = files["net.tflite"].with_name("same.tflite")
    same.write_bytes(files["net.tflite"].read_bytes())
    asked = ("compare", files["net.tflite"], same, "--device", "here", "--protocol", "quick")
    out, _ = said(capsys, 0, *asked, "--data", data)
    assert "outputs agree on 5 samples" in out
    np.savez(data, image=image[:, :8], state=state)
    _, err = said(capsys, 2, *asked, "--data", data)
    assert "'image' has the shape [5, 8, 13, 3]" in err


def test_what_computes_something_else_is_not_timed(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, err = said(
        capsys, 5, "compare", files["net.tflite"], files["other.onnx"], "--device", "here"
    )
    assert "does not compute what" in err
