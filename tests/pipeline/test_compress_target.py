"""`edgewright compress --target-ms` on this computer: what is said is what was measured.

Latencies are ratios of two networks that run in turns, one of which is several times the other, so
that it does not matter how fast this computer is. One that is too busy to be measured says so.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.lower import lower
from models.model import Model, random_model
from models.spec import ArchSpec
from pipeline.cli.main import main
from pipeline.formats import create
from pipeline.formats.api import ReadOptions
from pipeline.formats.source import read_model
from pipeline.store import Store
from tests.cli_calls import make_workplace

SPEC = "48x48x3:same:conv_k3_s1_o32:conv_k3_s2_o64:fc5"
QUICKLY = ("--device", "here", "--protocol", "quick", "--points", "1")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_workplace(tmp_path, monkeypatch)
    random_model(lower(ArchSpec.parse(SPEC)), np.random.default_rng(0)).save("net.npz")


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["compress", "net.npz", *words])
    out, err = capsys.readouterr()
    return code, out, err


def widths(path: str) -> dict[str, int]:
    model = read_model(path, ReadOptions())
    assert isinstance(model, Model)
    return {op.name: op.out_shape[-1] for op in model.graph.ops if op.has_weights}


@pytest.mark.slow  # on a busy computer every measurement takes what it may
def test_what_is_said_is_what_was_measured_of_the_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = run(capsys, "prune", *QUICKLY, "--target-ms", "70%", "--json")
    if code == 3:  # nothing was valid
        assert "measured" in err
        assert not list(Path().glob("*.tflite"))
        return
    assert code == 0, err
    told: dict[str, Any] = json.loads(out)
    latency, file = told["latency"], Path(told["file"])
    taken = latency["measured"]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == taken["sha256"]
    assert taken in [one["measured"] for one in latency["rounds"]]
    assert latency["target_ms"] == pytest.approx(0.7 * latency["whole"]["latency_ms"])
    assert taken["latency_ms"] <= latency["target_ms"]
    model = read_model("net.npz", ReadOptions())
    assert isinstance(model, Model)
    whole = hashlib.sha256(create("tflite").write(model)).hexdigest()
    assert latency["whole"]["sha256"] == whole
    with Store.open(None) as store:
        (kept,) = [
            one.data
            for one in store.measurements(model_sha256=taken["sha256"])
            if one.data["protocol"]["name"] == "quick" and one.data["ratio"] is not None
        ][-1:]
        asked = len(store.measurements())
    assert kept["reference_sha256"] == whole
    assert taken["latency_ms"] == pytest.approx(kept["ratio"] * latency["whole"]["latency_ms"])
    left = widths(str(file))
    before = widths("net.npz")
    for group in latency["groups"]:
        assert left[group["name"]] == group["after"]
        assert before[group["name"]] == group["before"]
        assert group["after"] % 8 == 0
    assert "at most 10 measurements on here, of tflite files in float32" in err
    # The same again has nothing left to measure, and gives the same file.
    again, out, err = run(capsys, "prune", *QUICKLY, "--target-ms", "70%", "-o", "again.tflite")
    assert again == 0, err
    assert Path("again.tflite").read_bytes() == file.read_bytes()
    assert "nothing was trained afterwards" in err
    with Store.open(None) as store:
        assert len(store.measurements()) == asked


def test_what_cannot_be_met_is_told_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = run(capsys, "prune:least=0.7", *QUICKLY, "--target-ms", "1%")
    assert (code, "cannot be met by pruning" in err) == (4, True), err
    assert not list(Path().glob("*.tflite"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("prune", "--rounds", "3"), "--rounds goes with --target-ms T"),
        (("prune", "--protocol", "quick"), "--protocol says how a device times"),
        (("prune", "--max-drop", "nan"), "is no number of points"),
        (("prune", "--target-ms", "5"), "--target-ms goes with --device D"),
        (("prune", *QUICKLY, "--target-ms", "soon"), "write milliseconds or a share as 70%"),
        (("prune", *QUICKLY, "--target-ms", "120%"), "less than 100 %"),
        (("prune", *QUICKLY, "--target-ms", "nan"), "nan ms is no latency"),
        (("prune:ratio=0.5", *QUICKLY, "--target-ms", "5"), "ratio=0.5 is chosen by --target-ms"),
        (("prune", "quantize:float16", *QUICKLY, "--target-ms", "5"), "takes the pass prune alone"),
        (("prune", *QUICKLY, "--target-ms", "1e6"), "before anything is cut"),
        (("prune:multiple=999", *QUICKLY, "--target-ms", "70%"), "can be narrower"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str
) -> None:
    code, _, err = run(capsys, *words)
    assert (code, sentence in err) == (2, True), err
    assert "Traceback" not in err
    assert not list(Path().glob("*.tflite"))
