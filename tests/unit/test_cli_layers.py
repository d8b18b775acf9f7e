"""edgewright verify --per-layer, through the command: the ranking, the picture, the sentences."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from models.fold import random_weights
from models.graph import Graph, GraphBuilder
from models.model import Model
from models.ops import Conv, Dense, Mean
from pipeline.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path


def graph() -> Graph:
    builder = GraphBuilder()
    builder.input("x", (1, 8, 6, 3))
    builder.op("conv", "stem", ["x"], Conv(out=8, kernel=(3, 3)), act="relu")
    builder.op("conv", "body", ["stem"], Conv(out=8), act="relu6")
    builder.op("add", "sum", ["stem", "body"])
    builder.op("mean", "pooled", ["sum"], Mean(keepdims=False))
    builder.op("dense", "scores", ["pooled"], Dense(5))
    return builder.graph()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network one weight of whose stem spoils the scale of its channel, and its int8 file."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    weights = dict(random_weights(graph(), rng))
    weight, bias = weights["stem"]
    weight = weight.copy()
    weight[:, 0, 0, 2] = 60
    weights["stem"] = weight, bias
    Model(graph(), weights).save("net.npz")
    images = rng.standard_normal((40, 8, 6, 3), np.float32)
    images[..., 2] *= 1e-3
    np.savez("data.npz", x=images)
    assert main(["quantize", "net.npz", "--data", "data.npz"]) == 0
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["verify", "--per-layer", *words, "--data", "data.npz"])
    return (code, *capsys.readouterr())


@pytest.mark.parametrize(
    "models", [["net.npz"], ["net-static8.tflite", "net.npz"], ["net.npz", "net-static8.tflite"]]
)
def test_the_layer_that_loses_is_ranked_first_whatever_is_given(
    capsys: pytest.CaptureFixture[str], models: list[str]
) -> None:
    code, out, _ = run(capsys, *models, "--json")
    assert code == 0
    found: dict[str, Any] = json.loads(out)
    worst = found["layers"][0]
    assert (worst["name"], worst["kind"]) == ("stem", "conv")
    assert worst["advice"] == "its weights: leave it in float32"
    assert worst["weight_share"] > 0.9
    assert "stem" in found["suggested"]
    assert found["suggested_db"] > found["sqnr_db"] + 6
    assert found["arguments"][:2] == ["--float-layers", "stem"]


def test_what_it_says_to_do_mends_it(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "net.npz")
    assert code == 0
    command = next(line for line in out.splitlines() if "edgewright quantize" in line)
    words = shlex.split(command[command.index("edgewright quantize") :])[1:]
    figures = []
    for given in (["quantize", "net.npz", "--data", "data.npz"], words):
        capsys.readouterr()
        assert main([*given, "--json", "-o", "made.tflite"]) == 0
        figures.append(json.loads(capsys.readouterr().out)["sqnr_db"])
    assert figures[1] > figures[0] + 6


def test_without_the_float_model_rounded_weights_are_not_seen_and_that_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = run(capsys, "net-static8.tflite")
    assert code == 0
    assert "what rounded weights cost is not in it: name the float model too" in out


def test_the_ranking_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, _ = run(capsys, "net.npz", "--picture", "layers.svg")
    assert code == 0
    drawn = ET.parse("layers.svg").getroot()  # noqa: S314  # it was drawn here
    texts = [element.text or "" for element in drawn.iter("{http://www.w3.org/2000/svg}text")]
    names = [text for text in texts if text in {"x", *(op.name for op in graph().ops)}]
    assert names[0] == "stem"
    assert len(names) == 6


def test_another_network_is_told_from_the_float_model(capsys: pytest.CaptureFixture[str]) -> None:
    model = Model.load("net.npz")
    other = replace(model, weights=random_weights(graph(), np.random.default_rng(9)))
    other.save("other.npz")
    code, _, err = run(capsys, "net-static8.tflite", "other.npz")
    assert code == 2
    assert "is of another network than the float model that was given" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("net.npz net.npz", "of two models --per-layer takes one in static8 or static16x8"),
        ("net.npz --picture layers.png", "--picture layers.png does not end in .svg"),
        ("net.npz --device local", "--per-layer computes here; leave --device out"),
        ("net-static8.tflite --network net.npz", "--per-layer takes a network's .npz as OTHER"),
    ],
)
def test_one_sentence(capsys: pytest.CaptureFixture[str], words: str, sentence: str) -> None:
    code, out, err = run(capsys, *words.split())
    assert (code, out) == (2, "")
    assert sentence in err
