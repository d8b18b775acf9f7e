"""edgewright compress, through the command: passes in order, their figures, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.lower import lower
from models.model import Model, random_model
from models.spec import ArchSpec
from pipeline.cli.main import main
from pipeline.formats.api import ReadOptions
from pipeline.formats.source import read_model

SPEC = "16x16x3:same:conv_k3_s2_o16:mb_k3_s1_m32_o16_se8-relu-hardsigmoid_skip:fc5"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    random_model(lower(ArchSpec.parse(SPEC)), rng).save("net.npz")
    images = rng.standard_normal((40, 16, 16, 3), np.float32)
    np.savez("data.npz", input=images)
    np.savez("labelled.npz", input=images, labels=np.arange(40) % 5)


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
