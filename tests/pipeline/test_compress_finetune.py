"""`edgewright compress` with a pass that learns: what of, what is judged on, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.execute import execute_all
from models.graph import GraphBuilder
from models.model import Input, Model, random_model
from models.ops import Conv, Dense
from models.ops.reducing import Mean
from pipeline.cli.main import main
from pipeline.formats import create as create_format

TRAINED = "finetune:epochs=4,batch_size=8,learning_rate=0.05"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def classifier() -> Model:
    net = GraphBuilder()
    at = net.input("picture", (1, 8, 8, 3))
    at = net.op("conv", "stem", [at], Conv(kernel=(3, 3), out=16), act="relu")
    at = net.op("mean", "pool", [at], Mean(keepdims=False))
    net.op("dense", "scores", [at], Dense(3))
    made = random_model(net.graph(), np.random.default_rng(0))
    return Model(made.graph, made.weights, inputs=(Input("picture", "NHWC", (0.0,), (1 / 64,)),))


def bright(count: int, seed: int) -> tuple[Any, Any]:
    """Pixels of three classes, told by the channel that is brightest."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pixels = (
        rng.integers(0, 128, (count, 8, 8, 3)) + 64 * np.eye(3, dtype=int)[labels][:, None, None]
    )
    return pixels.astype(np.uint8), labels


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[Any, str]:
    found = main(["compress", "net.tflite", *words, "--json"])
    out, err = capsys.readouterr()
    assert found == code, err
    return (json.loads(out) if out else None), err


def write_arrays(count: int = 80) -> None:
    pixels, labels = bright(count, 1)
    np.savez("data.npz", picture=pixels.astype(np.float32) / 64, labels=labels)


def test_a_pruned_network_learns_again_and_is_quantised(capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.tflite").write_bytes(create_format("tflite").write(classifier()))
    write_arrays()
    chain = ("prune:ratio=0.25,multiple=4", TRAINED, "quantize:static8")
    told, _ = run(capsys, *chain, "--data", "data.npz", "--max-drop", "0")
    came, pruned, trained, codes = told["steps"]
    assert trained["score"] > 0.9 > max(came["score"], pruned["score"])
    assert codes["score"] > 0.9
    assert trained["params"] == pruned["params"] < came["params"]
    assert told["samples"] == 40
    line = told["history"][-2]
    assert "finetuned 4 epochs on 40 samples by truths and its teacher: loss " in line
    again, _ = run(capsys, *chain, "--data", "data.npz", "-o", "again.tflite")
    assert again["steps"][2]["remembered"]
    assert Path("again.tflite").read_bytes() == Path("net-compressed.tflite").read_bytes()


def test_of_pictures_those_for_training_are_learnt_from(capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.tflite").write_bytes(create_format("tflite").write(classifier()))
    for part, count, seed in (("train", 30, 1), ("val", 12, 2)):
        for number, (pixels, label) in enumerate(zip(*bright(count, seed), strict=True)):
            place = Path("pictures", part, f"class{label}")
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(place / f"{number}.png")
    told, _ = run(capsys, TRAINED, "--data", "pictures", "--mean", "0", "--scale", "0.015625")
    assert "on 30 samples" in told["history"][-1]
    assert told["samples"] == 12
    assert told["steps"][1]["score"] > told["steps"][0]["score"]
    # Where nothing says what pictures are for, every other one is learnt from.
    told, _ = run(capsys, TRAINED, "--data", "pictures/train", "--mean", "0", "--scale", "0.015625")
    assert "on 15 samples" in told["history"][-1]
    assert told["samples"] == 15


def test_without_labels_the_model_as_it_came_is_imitated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("net.tflite").write_bytes(create_format("tflite").write(classifier()))
    np.savez("data.npz", picture=bright(80, 1)[0].astype(np.float32) / 64)
    told, _ = run(capsys, "prune:ratio=0.25,multiple=4", TRAINED, "--data", "data.npz")
    assert "on 40 samples by its teacher: loss " in told["history"][-1]
    assert told["steps"][2]["agreement"] >= told["steps"][1]["agreement"]
    assert told["steps"][2]["sqnr_db"] > told["steps"][1]["sqnr_db"]


@pytest.mark.parametrize(
    ("words", "samples", "sentence"),
    [
        ((TRAINED,), 0, "needs samples to learn from; give --data FOLDER of pictures"),
        ((TRAINED, "--data", "data.npz"), 3, "data.npz holds 3 samples, which cannot be shared"),
        (
            ("finetune:epochs=0", "--data", "data.npz"),
            8,
            "0 is not a whole number from 1 up",
        ),
        (("finetune:features=nose+stem", "--data", "data.npz"), 8, "has no op 'nose' to match"),
        (("quantize:static8", TRAINED, "--data", "data.npz"), 8, "numbers are made smaller last"),
    ],
)
def test_what_cannot_be_is_refused(
    words: tuple[str, ...], samples: int, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("net.tflite").write_bytes(create_format("tflite").write(classifier()))
    write_arrays(samples or 8)
    _, err = run(capsys, *words, code=2)
    assert sentence in err
    assert err.count("\n") == 1
    assert not Path("net-compressed.tflite").exists()


def test_numbers_that_are_none_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.tflite").write_bytes(create_format("tflite").write(classifier()))
    inputs = bright(8, 1)[0].astype(np.float32)
    inputs[5, 0, 0, 0] = np.nan
    np.savez("data.npz", picture=inputs)
    _, err = run(capsys, TRAINED, "--data", "data.npz", code=2)
    assert "holds 1 numbers that are NaN or infinite, first in sample 5" in err
    assert execute_all(classifier(), {"picture": inputs[:1]})["scores"].shape == (1, 3)
