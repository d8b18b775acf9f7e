"""`edgewright compress` with quantisation-aware training as its last pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.graph import GraphBuilder
from models.model import Input, Model, random_model
from models.ops import Conv, Dense, Mean
from pipeline.cli.main import main
from pipeline.formats import create as create_format

LEARN = "finetune:epochs=4,batch_size=8,learning_rate=0.05"
QAT = "qat:epochs=2,batch_size=8,learning_rate=0.02"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = GraphBuilder()
    at = net.input("picture", (1, 8, 8, 3))
    at = net.op("conv", "stem", [at], Conv(kernel=(3, 3), out=16), act="relu")
    at = net.op("mean", "pool", [at], Mean(keepdims=False))
    net.op("dense", "scores", [at], Dense(3))
    made = random_model(net.graph(), np.random.default_rng(0))
    model = Model(made.graph, made.weights, inputs=(Input("picture", "NHWC"),))
    Path("net.tflite").write_bytes(create_format("tflite").write(model))
    write_arrays("data.npz")


def write_arrays(name: str, *, judged: float = 1.0) -> None:
    """Pixels of three classes, told by the channel that is brightest; every other one judges."""
    rng = np.random.default_rng(1)
    labels = np.arange(80) % 3
    brighter = np.eye(3, dtype=np.float32)[labels][:, None, None]
    pixels = rng.uniform(0, 2, (80, 8, 8, 3)).astype(np.float32) + brighter
    pixels[1::2] *= np.float32(judged)
    np.savez(name, picture=pixels, labels=labels)


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[Any, str]:
    found = main(["compress", "net.tflite", *words, "--json"])
    out, err = capsys.readouterr()
    assert found == code, err
    return (json.loads(out) if out else None), err


def test_a_network_is_trained_with_its_codes_and_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told, _ = run(capsys, LEARN, QAT, "--data", "data.npz", "--max-drop", "0")
    came, learnt, codes = told["steps"]
    assert codes["score"] >= 0.9 > came["score"]
    assert codes["bytes"] < learnt["bytes"]
    line = told["history"][-1]
    assert "calibrated static8 on 40 images, and trained so 2 epochs on 32 samples" in line
    content = Path("net-compressed.tflite").read_bytes()
    assert str(create_format("tflite").read_numbers(content)) == "integers"
    again, _ = run(
        capsys, LEARN, QAT, "--data", "data.npz", "--max-drop", "0", "-o", "again.tflite"
    )
    assert again["steps"][2]["remembered"]
    assert Path("again.tflite").read_bytes() == content


def test_layers_of_the_trained_network_stay_in_float32_as_it_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_arrays("loud.npz", judged=3)  # outside of what is calibrated for
    run(capsys, LEARN, QAT, "--data", "loud.npz", code=5)
    assert not Path("net-compressed.tflite").exists()
    told, _ = run(capsys, LEARN, QAT, "--data", "loud.npz", "--max-drop", "100")
    assert told["steps"][2]["left_in_float32"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((QAT, "prune"), f"{QAT} is followed by prune; numbers are made smaller last"),
        ((QAT, "quantize:static8"), "is followed by quantize:static8"),
        (("qat",), "qat needs samples to learn from"),
        (("qat:bn=live", "--data", "data.npz"), "bn"),
        (("qat:held_out=0", "--data", "data.npz"), "held_out"),
        (("qat:scheme=static16x8", "--format", "onnx", "--data", "data.npz"), "static16x8"),
    ],
)
def test_what_cannot_be_is_refused(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str
) -> None:
    _, err = run(capsys, *words, code=2)
    assert sentence in err
    assert len(list(Path().glob("*.tflite"))) == 1
