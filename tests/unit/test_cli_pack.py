"""`edgewright pack` and `unpack`: the same bytes again, figures, and sentences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import device_agents.golden
from pipeline.cli.main import main
from tests.packed_files import small_packed

GOLDEN = Path(device_agents.golden.__file__).parent


@pytest.mark.parametrize("name", ["golden.tflite", "golden.onnx"])
def test_a_model_file_is_packed_and_unpacked(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packed, back = tmp_path / "packed.ewp", tmp_path / "packed"
    assert main(["pack", str(GOLDEN / name), "-o", str(packed), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["packed_bytes"] == packed.stat().st_size < told["bytes"]
    assert told["compression_rate"] == told["bytes"] / told["packed_bytes"]
    for tensor in told["tensors"]:
        assert tensor["shared_bits"] - tensor["entropy_bits"] == pytest.approx(
            tensor["divergence_bits"], abs=1e-9
        )
        assert tensor["stored_bits"] == 8 * tensor["packed_bytes"] / tensor["elements"]
        assert np.prod(tensor["shape"]) == tensor["elements"]
    assert main(["unpack", str(packed)]) == 0
    assert told["sha256"] in capsys.readouterr().out
    assert back.read_bytes() == (GOLDEN / name).read_bytes()


def test_the_table_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "golden.tflite"
    path.write_bytes((GOLDEN / path.name).read_bytes())
    assert main(["pack", str(path)]) == 0
    out = capsys.readouterr().out
    assert "entropy" in out
    assert "Laplace" not in out
    assert f"{path}.ewp: {path.stat().st_size} -> " in out
    assert "unpacked and compared" in out


def test_a_file_is_not_packed_over_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "golden.tflite"
    path.write_bytes((GOLDEN / path.name).read_bytes())
    assert main(["pack", path.name, "-o", str(path)]) == 2
    assert f"--out {path} is the file itself; choose another name" in capsys.readouterr().err
    assert path.read_bytes() == (GOLDEN / path.name).read_bytes()


def test_what_other_codes_cost_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    path = tmp_path / "golden.tflite"
    path.write_bytes((GOLDEN / path.name).read_bytes())
    assert main(["pack", str(path), "--codes"]) == 0
    out = capsys.readouterr().out
    for code in ("the tensor", "all tensors", "the largest", "Laplace"):
        assert code in out


def test_any_other_file_is_one_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "labels.txt"
    content = b"cat\ndog\n" * 400
    path.write_bytes(content)
    assert main(["pack", str(path)]) == 0
    assert "no weight tensors found" in capsys.readouterr().out
    path.unlink()
    assert main(["unpack", f"{path}.ewp"]) == 0
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("unpack none.ewp", "cannot read none.ewp: there is no such file"),
        ("unpack there.ewp", "there is there already; say with --out where"),
        ("unpack cut.ewp", "cut.ewp is cut short or damaged"),
        ("unpack changed.ewp -o new", "is cut short or damaged: tensor 't0' is not as it was"),
        ("unpack newer.ewp", "it is of version 2 of the layout, and this edgewright reads up to"),
        ("unpack there", "there does not end in .ewp; say with --out"),
        ("unpack there -o new", "there is no packed file (.ewp); `edgewright pack` makes one"),
        ("unpack there.ewp -o there/x", "cannot write there/x"),
        ("pack none", "cannot read none: there is no such file"),
        ("pack empty", "empty is empty; give a model file"),
        ("pack there.ewp", "there.ewp is packed already; `edgewright unpack` makes the file of it"),
        ("pack cut.tflite", "a TFLite model that is cut short or damaged"),
    ],
)
def test_one_sentence_and_no_file(
    words: str,
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    packed = small_packed()[1]
    changed, newer = bytearray(packed), bytearray(packed)
    start = 13 + int.from_bytes(packed[9:13], "little") + 4
    changed[start + 5] ^= 1
    newer[8] = 2
    made = {
        "there": b"x",
        "empty": b"",
        "there.ewp": packed,
        "cut.ewp": packed[:-9],
        "changed.ewp": bytes(changed),
        "newer.ewp": bytes(newer),
        "cut.tflite": (GOLDEN / "golden.tflite").read_bytes()[:900],
    }
    for name, content in made.items():
        Path(name).write_bytes(content)
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert not out
    assert sentence in err
    assert err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == set(made)
