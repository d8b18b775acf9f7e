"""edgewright compress, through the command: passes in order, their figures, and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models.execute import execute_all
from models.graph import GraphBuilder
from models.lower import lower
from models.model import Model, random_model
from models.ops import Conv, Dense, Mean
from models.spec import ArchSpec
from pipeline.cli.main import main
from pipeline.coding.files import pack_file
from pipeline.formats.api import ReadOptions
from pipeline.formats.source import read_model
from tests.cli_calls import make_workplace

SPEC = "16x16x3:same:conv_k3_s2_o16:mb_k3_s1_m32_o16_se8-relu-hardsigmoid_skip:fc5"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    net = random_model(lower(ArchSpec.parse(SPEC)), rng)
    images = rng.standard_normal((40, 16, 16, 3), np.float32)
    np.savez("data.npz", input=images)
    np.savez("labelled.npz", input=images, labels=np.arange(40) % 5)
    _centred(net, images).save("net.npz")


def _centred(model: Model, images: npt.NDArray[np.float32]) -> Model:
    """Return a model with other biases of its scores, so that not all images are of one class."""
    (scores,) = execute_all(model, {"input": images}).values()
    last = model.graph.outputs[0]
    weight, bias = model.weights[last]
    centred = (bias - np.asarray(scores).reshape(40, -1).mean(0)).astype(np.float32)
    return replace(model, weights={**model.weights, last: (weight, centred)})


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["compress", *words])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_passes_are_done_in_order_and_judged(
    capsys: pytest.CaptureFixture[str], format_: str
) -> None:
    code, out, err = run(
        capsys,
        *("net.npz", "prune:ratio=0.5", "quantize:static8", "--data", "labelled.npz"),
        *("--format", format_, "--json"),
    )
    assert code == 0, err
    told: dict[str, Any] = json.loads(out)
    assert [step["name"] for step in told["steps"]] == [
        *("as it came", "prune:ratio=0.5", "quantize:static8"),
    ]
    first, pruned, quantised = told["steps"]
    assert first["sqnr_db"] is None or first["sqnr_db"] > 80
    assert pruned["macs"] < 0.6 * first["macs"]
    assert pruned["bytes"] < first["bytes"]
    assert quantised["macs"] == pruned["macs"]
    assert Path(told["file"]).stat().st_size == quantised["bytes"]
    assert str(quantised["bytes"]) in told["history"][-1]
    assert all(0 <= step["score"] <= 1 for step in told["steps"])


def test_samples_that_calibrate_do_not_judge(capsys: pytest.CaptureFixture[str]) -> None:
    images = np.load("data.npz")["input"]
    images[1::2] *= 3  # outside of what the others calibrate for
    np.savez("loud.npz", input=images)
    np.savez("few.npz", input=images[:24])  # too few to be divided
    words = ("net.npz", "quantize:static8", "--json", "--data")
    code, out, err = run(capsys, *words, "few.npz")
    assert (code, json.loads(out)["samples"]) == (0, 24), err
    Path("net-compressed.tflite").unlink()
    code, _, err = run(capsys, *words, "loud.npz")
    assert (code, "SQNR in the median sample" in err) == (5, True), err
    assert not Path("net-compressed.tflite").exists()
    code, out, _ = run(capsys, "net.npz", "quantize:dynamic8", "--json", "--data", "data.npz")
    assert (code, json.loads(out)["samples"]) == (0, 40)


def test_hard_swish_stays_in_float32(capsys: pytest.CaptureFixture[str]) -> None:
    spec = SPEC.replace("conv_k3_s2_o16", "conv_k3_s2_o16_hardswish")
    random_model(lower(ArchSpec.parse(spec)), np.random.default_rng(0)).save("swish.npz")
    code, _, err = run(
        capsys, "swish.npz", "prune:ratio=0.5", "quantize:static8", "--data", "data.npz"
    )
    assert code == 0, err
    made = read_model("swish-compressed.tflite", ReadOptions())
    assert isinstance(made, Model)
    assert made.quantization is not None
    integer = {op.name: made.quantization.is_integer(op) for op in made.graph.ops}
    swish = [op.name for op in made.graph.ops if op.act == "hardswish"]
    assert swish
    assert not any(integer[name] for name in swish)
    assert sum(integer.values()) > len(integer) / 2


def test_the_file_is_the_pruned_network(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "net.npz", "prune:ratio=0.5,multiple=4", "-o", "p.tflite")
    assert code == 0, err
    assert "prune:ratio=0.5,multiple=4" in out
    assert out.splitlines()[-1] == "p.tflite"
    assert "generated samples" in err
    made = read_model("p.tflite", ReadOptions())
    assert isinstance(made, Model)
    widths = [op.out_shape[-1] for op in made.graph.ops if op.kind == "conv"]
    assert widths[0] == 8


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("prun",), "no pass 'prun' known; did you mean 'prune'?"),
        (("prune:ratio=2",), "is not at least 0 and below 1"),
        (("prune:colour=red",), "has no option 'colour'"),
        (("prune:ratio=nan",), "is not at least 0 and below 1"),
        (("prune:ratio=0.1,ratio=0.2",), "says ratio twice"),
        (("prune:keep=nosuch",), "nosuch"),
        (("ptq",), "the pass 'ptq' is spelled quantize:FORMAT"),
        (("quantize:static9",), "static9"),
        (("quantize:dynamic8,images=3",), "3 has no option 'images'; known: float_layers"),
        (("prune,ratio=0.1",), "options of a pass follow a colon, as in prune:ratio=0.3"),
        (("quantize:float_layers=nosuch,static8",), "'static8' is no option"),
        (("quantize:dynamic8,scheme=float16",), "write the number format as quantize:float16"),
        (("quantize:dynamic8", "--max-drop", "1"), "--max-drop needs samples to judge on"),
        (("prune:ratio",), "'ratio' is no option; write OPTION=VALUE"),
        (("quantize:static8", "prune"), "numbers are made smaller last"),
        (("quantize:static8",), "quantize:static8 needs samples to calibrate on"),
        (("quantize:float32",), "leaves numbers as they are"),
        (("prune", "-o", "net.onnx"), "does not end in .tflite"),
        (("quantize:float16", "--format", "onnx"), "choose another quantize:FORMAT or --format"),
    ],
)
def test_what_cannot_be_is_refused(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str
) -> None:
    code, _, err = run(capsys, "net.npz", *words)
    assert (code, sentence in err) == (2, True), err
    assert not list(Path().glob("*.tflite"))


def test_a_pass_that_finds_nothing_to_do_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "net.npz", "prune:ratio=0.01", "-o", "same.tflite")
    assert (code, "prune:ratio=0.01: pruned nothing: ratio 0.01 of " in err) == (0, True), err
    assert "widths are multiples of 8" in err
    code, out, _ = run(capsys, "net.npz", "prune:ratio=0.01", "quantize:dynamic8", "--json")
    assert [step["changed"] for step in json.loads(out)["steps"]] == [False, False, True]


@pytest.mark.parametrize(
    ("data", "unit"), [("labelled.npz", "accuracy"), ("data.npz", "agreement")]
)
def test_what_may_be_lost_is_kept(capsys: pytest.CaptureFixture[str], data: str, unit: str) -> None:
    words = ("--data", data, "--json", "--max-drop")
    code, _, err = run(capsys, "net.npz", "prune:ratio=0.9,multiple=1,least=0", *words, "0")
    assert code == 4, err
    assert "after prune:ratio=0.9,multiple=1,least=0 the model has lost " in err
    assert f" points of {unit}, more than 0; " in err
    assert not list(Path().glob("*.tflite"))
    code, out, err = run(capsys, "net.npz", "prune:ratio=0.5", "quantize:static8", *words, "100")
    told = json.loads(out)
    assert (code, told["drop_of"], told["drop_points"] <= 100) == (0, unit, True), err


def test_layers_stay_in_float32_for_it_after_pruning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What is lost beside the pruned network counts for the file; beside MODEL, for the limit."""
    images = np.load("data.npz")["input"]
    images[1::2] *= 3  # outside of what the others calibrate for: int8 throughout is refused
    np.savez("loud.npz", input=images)
    words = ("net.npz", "prune:ratio=0.3", "quantize:static8", "--data", "loud.npz", "--json")
    assert run(capsys, *words)[0] == 5
    code, out, err = run(capsys, *words, "--max-drop", "100")
    assert code == 0, err
    pruned, quantised = json.loads(out)["steps"][1:]
    assert pruned["left_in_float32"] == []
    assert quantised["left_in_float32"]
    assert quantised["lost_points"] == json.loads(out)["drop_points"]


def test_files_are_timed_in_turns_with_the_model(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_workplace(tmp_path, monkeypatch)
    away = 'extends = "local"\npython = "no-such-python"\n'
    away += f'directory = "{tmp_path / "away"}"\n'
    (tmp_path / "config" / "devices" / "away.toml").write_text(away)
    words = ("net.npz", "prune:ratio=0.5", "quantize:dynamic8", "--protocol", "quick", "--device")
    code, out, err = run(capsys, *words, "here", "--json")
    assert code in {0, 3}, err  # a busy computer's figures may be invalid, and are shown
    first, *rest = json.loads(out)["steps"]
    assert first["latency"] is None
    assert all(step["latency"]["in_turns"] for step in rest)
    assert all(step["latency"]["first_ms"] > 0 for step in rest)
    Path("net-compressed.tflite").unlink()
    code, _, err = run(capsys, *words, "nosuch")
    assert (code, "no device 'nosuch' known" in err) == (2, True), err
    assert not list(Path().glob("*.tflite"))
    code, out, err = run(capsys, *words, "away")
    assert (code, "net-compressed.tflite is written and checked" in err) == (3, True), err
    assert Path("net-compressed.tflite").exists()
    assert "as it came" in out


def test_codes_on_the_device_are_held_against_exact_integers(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_workplace(tmp_path, monkeypatch)
    words = ("net.npz", "quantize:static8", "--data", "data.npz", "--protocol", "quick")
    code, out, err = run(capsys, *words, "--device", "here", "--json")
    assert code in {0, 3}, err  # a busy computer's figures may be invalid, and are shown
    codes = json.loads(out)["codes"]
    assert codes["samples"] == 8
    assert codes["outputs"][0]["equal_share"] >= 0.7
    monkeypatch.setattr("pipeline.measure.codes.STRAY_STEPS", -1.0)
    code, _, err = run(capsys, *words, "--device", "here")
    assert code in {5, 3}, err
    assert "codes equal, the largest difference" in err
    if code == 5:
        assert "does not compute on device 'here' what its codes mean" in err


def test_labels_of_another_task_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    images = np.load("data.npz")["input"]
    np.savez("far.npz", input=images, labels=np.ones((40, 2, 2), int))
    code, out, err = run(capsys, "net.npz", "prune", "--data", "far.npz", "--json")
    assert (code, "not scored: " in err) == (0, True), err
    assert json.loads(out)["metric"] is None


def test_a_model_of_codes_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("quantize:static8", "--data", "data.npz", "-o", "codes.tflite")
    assert run(capsys, "net.npz", *words)[0] == 0
    code, _, err = run(capsys, "codes.tflite", "prune", "-o", "again.tflite")
    assert (code, "codes.tflite is static8 already; give the float model" in err) == (2, True), err
    assert not Path("again.tflite").exists()


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_an_input_without_a_batch_is_no_hindrance(
    capsys: pytest.CaptureFixture[str], format_: str
) -> None:
    builder = GraphBuilder()
    image, offset = builder.input("image", (1, 8, 8, 3)), builder.input("offset", (7, 5))
    conv = Conv(out=32, kernel=(3, 3), stride=(1, 1), padding=(1, 1, 1, 1))
    features = builder.op("conv", "features", [image], conv, act="relu")
    pooled = builder.op("mean", "pooled", [features], Mean(keepdims=False))
    scores = builder.op("dense", "scores", [pooled], Dense(5))
    graph = builder.graph(builder.op("add", "sum", [scores, offset]))
    random_model(graph, np.random.default_rng(0)).save("two.npz")
    code, out, err = run(capsys, "two.npz", "prune:ratio=0.5", "--format", format_, "--json")
    assert code == 0, err
    assert json.loads(out)["steps"][1]["changed"]


def test_passes_for_storage_show_what_the_file_is_packed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("net.npz", "sparsify:ratio=0.8,keep=nosuch+fc", "share:bits=3,init=density")
    code, _, err = run(capsys, *words)
    assert (code, "no op of the network is named 'nosuch'" in err) == (2, True), err
    words = ("net.npz", "sparsify:ratio=0.8", "share:bits=3,init=density")
    code, out, err = run(capsys, *words, "--json")
    assert code == 0, err
    told = json.loads(out)
    first, sparse, shared = (step["packed_bytes"] for step in told["steps"])
    assert first > sparse > shared
    assert len({step["bytes"] for step in told["steps"]}) == 1
    packed = pack_file(Path(told["file"]), lambda _: None)[1]
    assert len(packed.content) == shared
    code, out, err = run(capsys, *words)
    assert (code, "packed" in out) == (0, True), err
    code, out, _ = run(capsys, "net.npz", "prune:ratio=0.5", "--json")
    assert [step["packed_bytes"] for step in json.loads(out)["steps"]] == [None, None]
