"""edgewright quantize, through the command: what is written, what is left, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from models.fold import random_weights
from models.graph import Graph, GraphBuilder
from models.model import Model
from models.ops import Concat, Conv, Dense, Gather, LayerNorm, Mean
from pipeline.cli.main import main
from pipeline.formats import create
from pipeline.formats.files import run_inputs


def graph() -> Graph:
    """A map and indices go in, scores and a state come out; a layer norm has no integer kernel."""
    builder = GraphBuilder()
    builder.input("image", (1, 8, 6, 3))
    builder.input("word", (1, 1), "int32")
    builder.constant("table", (9, 4))
    builder.op("conv", "stem", ["image"], Conv(out=8, kernel=(3, 3), stride=(2, 2)), act="relu")
    builder.op("conv", "body", ["stem"], Conv(out=12), act="relu6")
    builder.op("mean", "pooled", ["body"], Mean(keepdims=False))
    for name in ("scale", "shift"):
        builder.constant(name, (12,))
    builder.op("layernorm", "norm", ["pooled", "scale", "shift"], LayerNorm(1, 1e-5))
    builder.op("gather", "embedded", ["table", "word"], Gather(0))
    builder.op("dense", "state", ["embedded"], Dense(12))
    builder.op("mean", "flat", ["body"], Mean(keepdims=False))
    builder.op("concat", "both", ["norm", "flat"], Concat(1))
    builder.op("dense", "scores", ["both"], Dense(5))
    return builder.graph("scores", "state")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    network = Model(graph(), random_weights(graph(), rng))
    network.save("net.npz")
    images = rng.standard_normal((80, 8, 6, 3), np.float32)
    words = rng.integers(0, 9, (80, 1), np.int32)
    np.savez("data.npz", image=images, word=words)
    bad = images.copy()
    bad[3, 0, 0, 0] = np.nan
    np.savez("nan.npz", image=bad, word=words)
    np.savez("shape.npz", image=images[:, :5], word=words)
    np.savez("other.npz", picture=images, word=words)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["quantize", *words])
    out, err = capsys.readouterr()
    return code, out, err


def found(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code, out, err = run(capsys, *words, "--json")
    assert code == 0, err
    told: dict[str, Any] = json.loads(out)
    return told


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_a_model_of_several_inputs_is_quantised_and_its_file_runs(
    capsys: pytest.CaptureFixture[str], format_: str
) -> None:
    told = found(capsys, "net.npz", "--data", "data.npz", "--format", format_)
    assert told["file"] == f"net-static8.{format_}"
    assert told["sqnr_db"] > 20
    assert [output["name"] for output in told["outputs"]] == ["scores", "state"]
    data = np.load("data.npz")
    given = {name: data[name][:4][:, None] for name in ("image", "word")}
    if format_ == "onnx":
        given["image"] = given["image"].transpose(0, 1, 4, 2, 3)
    outputs = run_inputs(Path(told["file"]), given)
    assert outputs["scores"].shape == (4, 1, 5)
    content = Path(told["file"]).read_bytes()
    assert create(format_).read_numbers(content) == "integers"
    assert len(content) < Path("net.npz").stat().st_size


def test_int16_activations_lose_less(capsys: pytest.CaptureFixture[str]) -> None:
    data = dict(np.load("data.npz"))
    # A few values far from the rest, which leave 8 bits few codes for the rest.
    np.savez("far.npz", image=data["image"] ** 3, word=data["word"])
    first, second = (
        found(capsys, "net.npz", "--data", "far.npz", "--scheme", scheme)["sqnr_db"]
        for scheme in ("static8", "static16x8")
    )
    assert second > first + 6


def test_options_of_the_pass_are_followed(capsys: pytest.CaptureFixture[str]) -> None:
    four, learnt = (
        found(capsys, "net.npz", "--data", "data.npz", "--options", f"weight_bits=4{more}")
        for more in ("", ",rounding=adaround,iterations=60,bias_correction=true,ranges=mse")
    )
    assert four["sqnr_db"] < learnt["sqnr_db"]


@pytest.mark.parametrize(("scheme", "least_db"), [("float16", 50), ("dynamic8", 25)])
def test_weights_are_made_small_without_data(
    capsys: pytest.CaptureFixture[str], scheme: str, least_db: float
) -> None:
    told = found(capsys, "net.npz", "--scheme", scheme, "-o", "out")
    assert told["file"] == f"out/net-{scheme}.tflite"
    assert told["sqnr_db"] > least_db
    assert told["drop_points"] is None


def test_named_layers_stay_in_float32(capsys: pytest.CaptureFixture[str]) -> None:
    whole = found(capsys, "net.npz", "--data", "data.npz")
    part = found(
        capsys,
        *("net.npz", "--data", "data.npz", "--float-layers", "s*m", "--float-layers", "body"),
        *("-o", "part.tflite"),
    )
    assert part["asked_in_float32"] == ["s*m", "body"]
    first, second = (told["outputs"][0]["sqnr_db"] for told in (whole, part))
    assert second > first + 1


def spoil() -> None:
    """Write a model whose first layer int8 spoils, and data for it."""
    model = Model.load("net.npz")
    weights = dict(model.weights)
    weight, bias = weights["stem"]
    weight = weight.copy()
    weight[..., 2] *= 1e-3
    weight[:, 0, 0, 2] = 300  # of a channel whose values are tiny: it spoils the scale alone
    weights["stem"] = weight, bias
    Model(graph(), weights).save("spoilt.npz")
    data = dict(np.load("data.npz"))
    data["image"][..., 2] *= 1e-4
    np.savez("tiny.npz", **data)


def test_layers_are_left_in_float32_until_the_drop_holds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil()
    words = ("spoilt.npz", "--data", "tiny.npz", "--max-drop", "2.5")
    told = found(capsys, *words)
    assert told["drop_of"] == "agreement"
    assert told["drop_points"] <= 2.5
    assert "stem" in told["left_in_float32"]
    assert len(told["left_in_float32"]) < 8
    code, out, err = run(capsys, *words)
    assert (code, out) == (0, "spoilt-static8.tflite\n")
    assert "--float-layers stem" in err
    assert "throughout in static8 it loses" in err
    assert "1 of 9 ops are left in float32" in err
    # The refusal of the plain command names this way on.
    code, out, err = run(capsys, *words[:3], "-o", "plain.tflite")
    assert (code, out) == (5, "")
    assert "dB SQNR in the median sample (at least 10)" in err
    assert "the same command with `--max-drop 5`, say, leaves as few layers in float32" in err
    assert not Path("plain.tflite").exists()


def test_a_file_that_holds_the_drop_and_would_be_refused_is_backed_off(
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil()
    told = found(capsys, "spoilt.npz", "--data", "tiny.npz", "--max-drop", "100")
    assert told["left_in_float32"] == ["stem"]
    assert told["sqnr_db"] > 10


def test_the_score_of_labels_is_what_may_drop(capsys: pytest.CaptureFixture[str]) -> None:
    data = dict(np.load("data.npz"))
    np.savez("labelled.npz", **data, labels=np.arange(80) % 5)
    told = found(capsys, "net.npz", "--data", "labelled.npz", "--max-drop", "50")
    assert told["drop_of"] == "score"
    assert told["left_in_float32"] == []


def test_one_number_is_judged_by_how_far_it_is_off(capsys: pytest.CaptureFixture[str]) -> None:
    builder = GraphBuilder()
    x = builder.op("conv", "c", [builder.input("x", (1, 8, 6, 3))], Conv(out=4), act="relu")
    builder.op("dense", "y", [builder.op("mean", "m", [x], Mean(keepdims=False))], Dense(1))
    Model(builder.graph("y"), random_weights(builder.graph("y"), np.random.default_rng(0))).save(
        "one.npz"
    )
    x = np.random.default_rng(0).standard_normal((80, 8, 6, 3), np.float32)
    np.savez("one-data.npz", x=x)
    told = found(capsys, "one.npz", "--data", "one-data.npz", "--max-drop", "50")
    assert 0 < told["drop_points"] < 50


def test_classes_on_a_map_of_one_place_are_scored_as_classes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    builder = GraphBuilder()
    x = builder.op("conv", "c", [builder.input("x", (1, 8, 6, 3))], Conv(out=5), act="relu")
    builder.op("mean", "y", [x], Mean())  # (1, 1, 1, 5)
    Model(builder.graph("y"), random_weights(builder.graph("y"), np.random.default_rng(0))).save(
        "map.npz"
    )
    x = np.random.default_rng(0).standard_normal((80, 8, 6, 3), np.float32)
    np.savez("map-data.npz", x=x, labels=np.arange(80) % 5)
    plain = found(capsys, "map.npz", "--data", "map-data.npz")
    told = found(capsys, "map.npz", "--data", "map-data.npz", "--max-drop", "50")
    assert told["drop_points"] == pytest.approx(100 * (plain["score_before"] - plain["score"]))


def test_the_score_of_labels_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    data = dict(np.load("data.npz"))
    np.savez("labelled.npz", **data, labels=np.arange(80) % 5)
    told = found(capsys, "net.npz", "--data", "labelled.npz")
    second = {name: values[1::2] for name, values in data.items()}  # every other one judges
    np.savez("judged.npz", **second, labels=np.arange(80)[1::2] % 5)
    file = told["file"]
    assert main(["verify", "net.npz", file, "--data", "judged.npz", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert told["metric"] == "accuracy"
    assert (told["score_before"], told["score"]) == (scores["first"], scores["second"])
    _, _, err = run(capsys, "net.npz", "--data", "labelled.npz")
    before, after = f"{scores['first']:.2%}", f"{scores['second']:.2%}"
    assert f"accuracy {before} before and {after} now, on 40 samples\n" in err
    np.savez("odd.npz", **data, labels=np.full((80, 2, 2), 1))
    code, out, err = run(capsys, "net.npz", "--data", "odd.npz")
    assert (code, out) == (0, "net-static8.tflite\n")
    assert "edgewright: not scored: labels int64[40, 2, 2] are no class for each sample" in err
    assert found(capsys, "net.npz", "--data", "data.npz")["score"] is None


def test_pictures_to_judge_by_are_those_of_val(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    builder = GraphBuilder()
    builder.op("conv", "c", [builder.input("x", (1, 8, 6, 3))], Conv(out=2, kernel=(1, 1)))
    builder.op("mean", "scores", ["c"], Mean(keepdims=False))
    red = np.zeros((2, 1, 1, 3), np.float32)
    red[0, ..., 0] = red[1, ..., 2] = 1  # a is red, b is blue
    weights = random_weights(builder.graph("scores"), np.random.default_rng(0))
    weights["c"] = (red.reshape(weights["c"][0].shape), *weights["c"][1:])
    Model(builder.graph("scores"), weights).save("colours.npz")
    parts = {"train": {"a": "red", "b": "blue"}, "val": {"a": "red", "b": "red"}}
    for part, paint in parts.items():
        for label, colour in paint.items():
            (place / "pictures" / part / label).mkdir(parents=True)
            for number in range(3):
                picture = Image.new("RGB", (6, 8), colour)
                picture.save(place / "pictures" / part / label / f"{number}.png")
    told = found(capsys, "colours.npz", "--data", "pictures")
    assert (told["score_before"], told["score"]) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("net.npz", "static8 needs samples to calibrate on; give --data FOLDER"),
        ("net.npz --scheme float16 --max-drop 1", "--max-drop needs samples to judge on"),
        (
            "net.npz --format dynamic8",
            "--format dynamic8 is no file format; have onnx, tflite; numb",
        ),
        ("net.npz --scheme float32", "float32 is what a model has before it is quantised"),
        (
            "net.npz --data nan.npz",
            "'image' holds 1 numbers that are NaN or infinite, first in sam",
        ),
        ("net.npz --data shape.npz", "'image' has the shape [80, 5, 6, 3]; the model needs (N, 8"),
        ("net.npz --data other.npz", "an array 'picture', and the model no such input"),
        ("net.npz --data none.npz", "no data 'none.npz'"),
        ("net.npz --data data.npz --float-layers stm", "no op of the network is named 'stm'; did"),
        ("net.npz --data data.npz -o net.onnx", "--out net.onnx does not end in .tflite"),
        ("net.npz --data data.npz --format onnx --scheme float16", "onnx files hold float32"),
        ("net.npz --data data.npz --options images=3", "--options says images; say that by --samp"),
        ("net.npz --data data.npz --options range=mse", "has no option 'range'; did you mean"),
        ("net.npz --data data.npz --options ranges=most", "minmax"),
        ("net.npz --scheme float16 --options ranges=mse", "'small_weights' has no option 'ranges'"),
        ("none.tflite --data data.npz", "cannot read none.tflite: there is no such file"),
    ],
)
def test_one_sentence(capsys: pytest.CaptureFixture[str], words: str, sentence: str) -> None:
    code, out, err = run(capsys, *words.split())
    assert (code, out) == (2, "")
    assert sentence in err
    assert err.count("\n") == 1
    assert not list(Path().glob("*.tflite"))


def test_what_is_quantised_already_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    found(capsys, "net.npz", "--data", "data.npz")
    code, _, err = run(capsys, "net-static8.tflite", "--data", "data.npz", "-o", "again.tflite")
    assert code == 2
    assert "the model is static8 already; give the float model" in err
    code, _, err = run(capsys, "net-static8.tflite", "--data", "data.npz", "-o", ".")
    assert code == 2


def write_unknown(path: str) -> None:
    """An ONNX file with an op that our graph does not know, behind a layer."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.standard_normal((6, 4), np.float32), "w")
    shape = numpy_helper.from_array(np.array([1, 2, 2], np.int64), "shape")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"], name="layer"),
        helper.make_node("Reshape", ["scores", "shape"], ["map"], name="map"),
        helper.make_node("Det", ["map"], ["y"], name="determinant"),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", (1, 6)), ("y", (1,)))
    ]
    body = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight, shape])
    made = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    Path(path).write_bytes(made.SerializeToString())


def test_a_file_with_unknown_ops_is_quantised_by_a_library(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_unknown("det.onnx")
    x = np.random.default_rng(1).standard_normal((64, 6), np.float32)
    np.savez("x.npz", x=x)
    code, out, err = run(capsys, "det.onnx", "--data", "x.npz")
    assert (code, out) == (0, "det-static8.onnx\n"), err
    assert "has ops that are not known here: Det at" in err
    given = {"x": x[:4][:, None]}
    files = [run_inputs(Path(f"det{kind}.onnx"), given)["y"] for kind in ("", "-static8")]
    error = np.abs(files[1] - files[0]).max()
    assert 0 < error < 0.1 * np.abs(files[0]).max()
    for words in ("--max-drop 1", "--float-layers layer"):
        code, _, err = run(capsys, "det.onnx", "--data", "x.npz", *words.split(), "-o", "s.onnx")
        assert code == 2
        assert f"{words.split()[0]} cannot be kept: leave it out" in err
    code, _, err = run(capsys, "det.onnx", "--data", "x.npz", "--format", "tflite")
    assert code == 2
    assert "a library quantises it in its own format alone" in err
