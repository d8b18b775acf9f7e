"""Layers that `--max-drop` leaves in float32, timed on this computer: what is said is measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.lower import lower
from models.model import random_model
from models.spec import ArchSpec
from pipeline.cli.commands._islands import Islands
from pipeline.cli.main import main
from pipeline.evaluate.two_files import TwoFiles
from tests.cli_calls import make_workplace

SPEC = "16x16x3:same:conv_k3_s1_o32:conv_k3_s2_o64:fc5"
QUICKLY = ("--device", "here", "--protocol", "quick")
LEAVING = ("net.npz", "--data", "data.npz", "--max-drop", "0")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_workplace(tmp_path, monkeypatch)
    rng = np.random.default_rng(0)
    model = random_model(lower(ArchSpec.parse(SPEC)), rng)
    last = model.graph.outputs[0]
    weight, bias = model.weights[last]
    far = np.array(bias)
    far[4] = -1000.0  # one step of codes holds all other scores
    replace(model, weights={**model.weights, last: (weight, far)}).save("net.npz")
    np.savez("data.npz", input=rng.standard_normal((48, 16, 16, 3), np.float32))


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.slow  # on a busy computer every measurement takes what it may
def test_what_layers_cost_is_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "quantize", *LEAVING, *QUICKLY, "--json")
    assert Path("net-static8.tflite").is_file()
    if code == 3:  # nothing could be measured
        return
    assert code == 0, err
    told: dict[str, Any] = json.loads(out)
    found = told["latency"]
    assert (found["device"], found["ops_in_float32"]) == ("here", len(told["left_in_float32"]))
    for beside in ("beside_static", "beside_float32"):
        assert found[beside]["in_turns"]
        assert found[beside]["second_ms"] > 0

    words = ("quantize:static8", *LEAVING[1:], *QUICKLY, "-o", "passed.tflite")
    code, out, err = run(capsys, "compress", "net.npz", *words)
    assert Path("passed.tflite").read_bytes() == Path("net-static8.tflite").read_bytes()
    if code == 0:
        assert f"the {found['ops_in_float32']} ops in float32 cost" in err


def test_a_device_that_is_gone_leaves_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "quantize", *LEAVING, "--device", "gone")
    assert (code, "net-static8.tflite is written and checked all the same" in err) == (3, True), err
    assert Path("net-static8.tflite").is_file()
    code, _, err = run(capsys, "quantize", *LEAVING, "--protocol", "quick")
    assert (code, "--protocol says how a device times" in err) == (2, True), err


def two(first_ms: float, second_ms: float, half: float = 0.01, why: str = "") -> TwoFiles:
    ratio = second_ms / first_ms
    interval = (ratio - half, ratio + half)
    reasons = (why,) if why else ()
    verdict = "suspect" if why else "valid"
    return TwoFiles(first_ms, second_ms, ratio, interval, True, verdict, reasons)  # noqa: FBT003


@pytest.mark.parametrize(
    ("codes", "real", "words"),
    [
        (two(0.4, 0.5), two(0.8, 0.5), ("3 ops in float32 cost 0.1000 ms", "it is faster than")),
        (
            two(0.4, 0.9),
            two(0.8, 0.9),
            ("0.9000 against 0.4000", "slower than the model in float32"),
        ),
        (None, two(0.5, 0.5), ("does not show to be faster",)),
        (None, two(0.8, 0.5, why="too hot"), ("it is faster", "is suspect: too hot")),
    ],
)
def test_a_file_that_is_slower_than_float32_is_told(
    codes: TwoFiles | None, real: TwoFiles, words: tuple[str, ...]
) -> None:
    said = Islands("board", 3, codes, real).sentences
    assert len(said) == len(words)
    assert all(word in sentence for word, sentence in zip(words, said, strict=True))
