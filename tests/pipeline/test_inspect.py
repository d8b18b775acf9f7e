"""The command `inspect`: what it finds in files of every format, and what it says to bad ones."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models import zoo
from models.cost import cost
from models.lower import lower
from models.model import random_model
from models.number_format import STATIC8
from pipeline.cli.main import main
from pipeline.formats import create
from pipeline.formats.tflite.write import write_tflite
from tests.other_models import need
from tests.tiny_models import onnx_conv, tflite_conv

ROOT = Path(__file__).parents[2]


def inspected(capsys: pytest.CaptureFixture[str], *args: str | Path) -> dict[str, Any]:
    assert main(["inspect", "--json", *map(str, args)]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def shown(capsys: pytest.CaptureFixture[str], *args: str | Path) -> str:
    assert main(["inspect", *map(str, args)]) == 0
    return capsys.readouterr().out


def test_a_tflite_file_of_state_is_told_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    found = inspected(capsys, need("nabu.tflite"))
    assert (found["format"], found["version"]) == ("TFLite", "schema 3")
    [source], [output] = found["inputs"], found["outputs"]
    assert (source["dtype"], source["dims"]) == ("int8", [1, 3, 40])
    assert source["scale"] == pytest.approx(0.101961, rel=1e-4)
    assert (output["dtype"], output["dims"]) == ("uint8", [1, 1])
    assert found["ops"]["SPLIT_V"] == 3
    assert found["ops"]["VAR_HANDLE"] == 12  # in both subgraphs
    assert found["partitions"]["count"] == 4
    breaks = [op for op in found["partitions"]["left"] if op["breaks"]]
    assert {op["kind"] for op in breaks} == {"SPLIT_V"}
    text = shown(capsys, need("nabu.tflite"))
    assert "delegate: 4 partitions of XNNPACK expected" in text
    assert "breaks 3 SPLIT_V  XNNPACK has no such op   op 25, 36, 46" in text
    assert "note: it keeps state in variables" in text


def test_one_network_in_two_formats_has_one_cost(capsys: pytest.CaptureFixture[str]) -> None:
    tflite = inspected(capsys, need("basic-pitch.tflite"))
    onnx_file = inspected(capsys, need("basic-pitch.onnx"), "--input-shape", "1x43844x1")
    assert tflite["macs"] == onnx_file["macs"] == 524_079_648
    assert tflite["params"] == pytest.approx(onnx_file["params"], abs=10)
    folder = inspected(capsys, need("basic-pitch"))
    assert [item["name"] for item in folder["outputs"]] == ["contour", "note", "onset"]
    assert folder["ops"]["Conv2D"] == tflite["ops"]["CONV_2D"] == onnx_file["ops"]["Conv"]


@pytest.mark.parametrize("format_", ["tflite", "onnx"])
def test_files_of_our_writers_cost_what_their_graph_costs(
    format_: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = lower(zoo.get("mobilenet-v3-large").with_input(64, 64, 3))
    model = random_model(graph, np.random.default_rng(0))
    path = tmp_path / f"net.{format_}"
    path.write_bytes(create(format_).write(model))
    found, counted = inspected(capsys, path), cost(graph)
    assert found["macs"] == counted.macs + counted.se_macs
    elements = sum(array.size for arrays in model.weights.values() for array in arrays)
    assert found["params"] == pytest.approx(elements, rel=1e-3)  # scalars of activations
    # Hard-swish is several ops in ONNX files, padding one of its own in TFLite files.
    assert found["peak_activation_bytes"] >= counted.peak_activation_bytes
    assert found["peak_activation_bytes"] < 2 * counted.peak_activation_bytes


def test_an_int8_file_says_its_types(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = lower(zoo.get("mobilenet-v2").with_input(32, 32, 3))
    model = random_model(graph, np.random.default_rng(0), STATIC8)
    path = tmp_path / "net.tflite"
    path.write_bytes(write_tflite(model))
    found = inspected(capsys, path)
    assert set(found["activations"]) == {"int8"}
    assert found["weight_bytes"]["int8"] > 10 * found["weight_bytes"]["int32"]
    assert found["number_format"] == "static8"
    assert found["partitions"]["count"] == 1
    assert not found["partitions"]["left"]


def test_an_open_shape_leaves_the_cost_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    path = need("ocr-det.onnx")
    found = inspected(capsys, path)
    assert "" not in found["inputs"][0]["dims"]
    text = shown(capsys, path)
    assert "with --input-shape" in text
    assert found["params"] == 2_453_416


@pytest.mark.parametrize(
    ("name", "number_format"),
    [
        ("face-front.tflite", "float16"),
        ("ds-cnn.tflite", "dynamic8"),
        ("ds-cnn-int8.tflite", "static8"),
        ("iris.tflite", "float32"),
        ("nabu.tflite", None),
    ],
)
def test_the_number_format_is_named(
    name: str, number_format: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspected(capsys, need(name))["number_format"] == number_format


def test_keras_and_saved_models_are_told_without_tensorflow() -> None:
    script = (
        "import sys\nfrom pipeline.cli.main import main\n"
        "codes = [main(['inspect', path]) for path in sys.argv[1:]]\n"
        "heavy = ('tensorflow', 'torch', 'onnxruntime', 'onnx', 'keras')\n"
        "print(codes, [name for name in heavy if name in sys.modules])\n"
    )
    paths = [need("resnet8.h5"), need("ds-cnn")]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, paths)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[0, 0] []"
    assert "Conv2D 9, Activation 7, BatchNormalization 7" in done.stdout
    assert "input_1  float32  ?x49x10x1" in done.stdout


def test_an_exported_program_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval()
    program = torch.export.export(module, (torch.zeros(1, 3, 9, 7),))
    torch.export.save(program, tmp_path / "net.pt2")
    found = inspected(capsys, tmp_path / "net.pt2")
    assert found["ops"] == {"aten.conv2d": 1, "aten.relu": 1}
    assert found["inputs"][0]["dims"] == [1, 3, 9, 7]
    assert found["params"] == 8 * 3 * 9 + 8
    assert found["weight_bytes"] == {"float32": 4 * found["params"]}


def test_a_module_is_captured_and_told_in_its_own_layout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "net.py"
    source.write_text("import torch\n\ndef net():\n    return torch.nn.Conv2d(3, 8, 3)\n")
    found = inspected(capsys, f"{source}:net", "--input-shape", "1x3x9x7")
    assert found["inputs"][0]["dims"] == [1, 3, 9, 7]
    assert found["outputs"][0]["dims"] == [1, 8, 7, 5]
    assert found["macs"] == 7 * 5 * 8 * 3 * 9
    assert found["params"] == 8 * 3 * 9 + 8


def test_a_model_of_our_own_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = lower(zoo.get("mobilenet-v2").with_input(32, 32, 3))
    random_model(graph, np.random.default_rng(0)).save(tmp_path / "net.npz")
    found = inspected(capsys, tmp_path / "net.npz")
    assert found["macs"] == cost(graph).macs
    assert found["can"][0].startswith("it is known as a graph: export it to")


def test_labels_and_metadata_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx_conv(tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    helper.set_model_props(model, {"names": "{0: 'cat', 1: 'dog'}", "author": "someone"})
    onnx.save(model, tmp_path / "m.onnx")
    found = inspected(capsys, tmp_path / "m.onnx")
    assert found["labels"] == ["cat", "dog"]
    assert "author: someone" in shown(capsys, tmp_path / "m.onnx")
    tflite_conv(tmp_path / "m.tflite")
    with zipfile.ZipFile(tmp_path / "m.tflite", "a") as archive:  # as metadata writers append it
        archive.writestr("labels.txt", "cat\ndog\nbird\n")
    assert inspected(capsys, tmp_path / "m.tflite")["labels"] == ["cat", "dog", "bird"]


def test_damaged_labels_are_no_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.tflite"
    tflite_conv(path)
    begin = path.stat().st_size
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.txt", "cat\ndog\nbird\n" * 9)
    content = bytearray(path.read_bytes())
    packed = begin + 30 + len("labels.txt")  # behind the member's header
    content[packed : packed + 4] = b"\xff" * 4
    path.write_bytes(content)
    found = inspected(capsys, path)
    assert found["labels"] == []
    assert not found["cannot"]


@pytest.mark.parametrize("write", [onnx_conv, tflite_conv])
@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ("nosuch=1x2", "the model has no input 'nosuch'; its inputs are "),
        ("1x2", "1x2 does not fit input "),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(
    write: Any, shape: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ("m.onnx" if write is onnx_conv else "m.tflite")
    write(path)
    assert main(["inspect", str(path), "--input-shape", shape]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert words in err


@pytest.mark.parametrize(("dim", "asked"), [("batch", False), ("height", True)])
def test_only_what_no_convention_settles_is_asked_for(
    dim: str,
    asked: bool,  # noqa: FBT001
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [dim, 4]) for n in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:])
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    assert ("with --input-shape" in inspected(capsys, tmp_path / "m.onnx")["can"][0]) == asked


def external(path: Path) -> None:
    """Write an ONNX file whose weights lie in another one."""
    weights = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 64]) for n in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], [weights])
    onnx.save_model(
        helper.make_model(graph),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )


def test_weights_beside_a_file_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    external(tmp_path / "m.onnx")
    found = inspected(capsys, tmp_path / "m.onnx")
    assert found["params"] == found["macs"] == 64 * 64
    assert found["size_bytes"] > 4 * 64 * 64
    assert found["remarks"] == ["1 file beside it holds weights"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cut.tflite", "is a TFLite model that is cut short or damaged"),
        ("cut.onnx", "is an ONNX model that is cut short or damaged"),
        ("text.tflite", "is no model file: it is a text that begins 'not a model'"),
        ("text.onnx", "is no model file: it is a text that begins 'not a model'"),
        ("text.h5", "is no Keras model, or it is damaged"),
        ("text.keras", "is no Keras model, or it is damaged"),
        ("text.pt2", "is no exported program of torch.export, or it is damaged"),
        ("text.npz", "is not a model file of edgewright"),
        ("tflite.onnx", "is a TFLite model, although its name ends in .onnx; rename it"),
        ("empty.tflite", "it is empty; copy or download it again"),
        ("empty.h5", "is no Keras model, or it is damaged"),
        ("empty.pt2", "is no exported program of torch.export, or it is damaged"),
        ("folder", "is a folder without saved_model.pb; give a model file in it"),
        ("cut", "is no SavedModel, or it is damaged"),
        ("parted.onnx", "keeps weights in 'weights.bin', which is not there; copy that file"),
        ("pickle.pt", "is no model file: it is a PyTorch file (.pt, .pth)"),
        ("nothing.tflite", "no model file 'nothing.tflite'"),
        ("weights.h5", "it holds weights and no model"),
    ],
)
def test_a_bad_file_is_one_sentence(
    name: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    make_bad_files(tmp_path)
    assert main(["inspect", name]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert words in err


def make_bad_files(folder: Path) -> None:
    import h5py

    onnx_conv(folder / "m.onnx")
    tflite_conv(folder / "m.tflite")
    (folder / "cut.onnx").write_bytes((folder / "m.onnx").read_bytes()[:-20])
    (folder / "cut.tflite").write_bytes((folder / "m.tflite").read_bytes()[:-60])
    (folder / "tflite.onnx").write_bytes((folder / "m.tflite").read_bytes())
    for suffix in ("tflite", "onnx", "h5", "keras", "pt2", "npz"):
        (folder / f"text.{suffix}").write_text("not a model\n")
        (folder / f"empty.{suffix}").touch()
    (folder / "folder").mkdir()
    (folder / "cut").mkdir()
    (folder / "cut" / "saved_model.pb").write_bytes(b"\x08\x01\x12\xff\xff\x03")
    external(folder / "parted.onnx")
    (folder / "weights.bin").unlink()
    with zipfile.ZipFile(folder / "pickle.pt", "w") as archive:
        archive.writestr("net/data.pkl", "x")
    with h5py.File(folder / "weights.h5", "w") as file:
        file["dense"] = np.ones(3)


@pytest.mark.parametrize("name", ["ocr-rec.onnx", "large.tflite"])
def test_a_file_of_20_mb_takes_2_s_from_a_cold_start(name: str, tmp_path: Path) -> None:
    """Processor seconds, which other work on this machine does not add to."""
    if name == "large.tflite":
        graph = lower(zoo.get("mobilenet-v3-large").with_input(224, 224, 3))
        path = tmp_path / name
        path.write_bytes(write_tflite(random_model(graph, np.random.default_rng(0))))
    else:
        path = need(name)
    assert path.stat().st_size > 20e6
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    argv = [sys.executable, "-m", "pipeline.cli.main", "inspect", str(path)]
    subprocess.run(argv, cwd=ROOT, capture_output=True, check=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
