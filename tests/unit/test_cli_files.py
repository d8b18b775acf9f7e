"""What commands say to files of other kinds, to two of one thing, and to plain words."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from device_agents.errors import ConfigError
from models import weights_file
from pipeline.cli.main import main
from pipeline.recipe.recipe import Recipe
from tests.tiny_models import onnx_conv, tflite_conv

TINY = Path(__file__).parents[1] / "recipes" / "tiny.toml"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    onnx_conv(tmp_path / "m.onnx")
    tflite_conv(tmp_path / "m.tflite")
    (tmp_path / "named.onnx").write_bytes((tmp_path / "m.tflite").read_bytes())
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "m.onnx").read_bytes()[:300])
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as archive:
        archive.writestr("net/data.pkl", "x")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            "export net.pt -o out",
            "net.pt is a pickle, which runs whatever code it holds when it is",
        ),
        ("export none.pt -o out", "no file none.pt"),
        ("verify m.tflite --network m.onnx", "m.onnx is not a network file of edgewright, a .npz"),
        ("verify m.pb --network n.npz", "'m.pb' has no known suffix; known: .onnx, .tflite"),
        ("verify named.onnx --network n.npz", "is a TFLite model, although its name ends in .onnx"),
        ("bench named.onnx --device local", "rename it to .tflite"),
        ("bench cut.onnx --device local", "an ONNX model that is cut short or damaged: something"),
        ("bench net.pt --device local", "net.pt is no model file: it is a PyTorch file"),
        ("bench m.onnx --device local --runtime tflite", "which the runtime tflite does not take"),
        ("bench m.onnx --device local --device pi", "--device is given 2 times (local, pi); a com"),
        ("run r.toml --device local --device pi", "--device is given 2 times (local, pi)"),
        ("deploy m.onnx --device a --device b --name n --version 1", "--device is given 2 times"),
        ("bench m.onnx m.tflite --device local", "unexpected extra argument (m.tflite)"),
        ("bench m.onnx --device local --reference a --reference b", "--reference is given 2 times"),
        ("bench m.onnx", "Missing option '--device'"),
    ],
)
def test_one_sentence(capsys: pytest.CaptureFixture[str], words: str, sentence: str) -> None:
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert err.count("\n") == 1


def test_a_damaged_archive_of_ours_is_told_from_other_kinds(place: Path) -> None:
    with zipfile.ZipFile(place / "n.npz", "w") as archive:
        archive.writestr("w.npy", "x")
    with pytest.raises(ConfigError, match="is a NumPy archive and not a supernet file of edgewrig"):
        weights_file.read(place / "n.npz", "supernet", lambda *_: None)  # type: ignore[arg-type, return-value]


def test_int8_is_static8(capsys: pytest.CaptureFixture[str], place: Path) -> None:
    asked = ["export", "mobilenet-v3-small", "-o", "out", "--scheme", "int8"]
    assert main(asked) == 0
    assert capsys.readouterr().out.strip() == "out/mobilenet-v3-small-static8.tflite"
    recipe = place / "r.toml"
    text = TINY.read_text()
    recipe.write_text(text.replace("[quantize]", '[quantize]\nscheme = "int8"'))
    assert Recipe.load(recipe).quantize.scheme == "static8"
    other = Recipe.load(recipe, ["quantize.scheme=static8"])
    assert other.digest() == Recipe.load(recipe).digest()
