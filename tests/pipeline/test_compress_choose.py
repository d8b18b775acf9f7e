"""`edgewright compress` without passes on this computer: what is taken is what was measured.

Which chain wins is the computer's to say; one that is too busy to be measured says so.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.lower import lower
from models.model import random_model
from models.spec import ArchSpec
from pipeline.cli.main import main
from pipeline.store import Store
from tests.cli_calls import make_workplace

SPEC = "32x32x3:same:conv_k3_s2_o32:conv_k3_s1_o32:fc5"
QUICKLY = ("--device", "here", "--protocol", "quick")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_workplace(tmp_path, monkeypatch)
    rng = np.random.default_rng(0)
    random_model(lower(ArchSpec.parse(SPEC)), rng).save("net.npz")
    images = rng.standard_normal((64, 32, 32, 3), np.float32)
    np.savez("data.npz", input=images)
    np.savez("labelled.npz", input=images, labels=np.arange(64) % 5)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["compress", "net.npz", *words])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.slow  # on a busy computer every measurement takes what it may
def test_the_file_is_that_of_the_chain_that_meets_the_target_and_loses_least(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = (*QUICKLY, "--data", "data.npz", "--target-ms", "40%", "--points", "1", "--rounds", "2")
    code, out, err = run(capsys, *words, "--json")
    if code == 3:  # nothing was valid
        assert "measured" in err
        return
    told: dict[str, Any] = json.loads(out)
    first = told["chains"][0]
    assert [one["name"] for one in told["chains"]][:4] == [
        *("as it came", "quantize:float16", "quantize:dynamic8", "quantize:static8"),
    ]
    assert told["target_ms"] == pytest.approx(0.4 * first["latency_ms"])
    assert "at most 6 chains with" in err
    able = [one for one in told["chains"] if one["refused"] is None]
    assert code == (0 if able else 4), err
    if not able:
        assert "the closest is" in err
        assert (told["taken"], told["file"]) == (None, None)
        assert not list(Path().glob("*.tflite"))
        return
    best = min(able, key=lambda one: (max(one["lost_points"], 0), one["latency_ms"]))
    assert told["taken"] == best["name"]
    assert best["latency_ms"] <= told["target_ms"]
    content = Path(told["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == best["sha256"]
    assert len(content) == best["bytes"]
    with Store.open(None) as store:
        assert store.measurements(model_sha256=best["sha256"])
        asked = len(store.measurements())
    if any("latency_ms" not in one for one in told["chains"]):
        return  # what could not be measured is tried again
    # The same again has nothing left to measure, and gives the same file.
    again, out, err = run(capsys, *words, "-o", "again.tflite")
    assert again == 0, err
    assert Path("again.tflite").read_bytes() == content
    assert f"taken, {best['name']}: it takes" in err
    with Store.open(None) as store:
        assert len(store.measurements()) == asked


@pytest.mark.slow  # as above
def test_what_is_cut_learns_from_labels(capsys: pytest.CaptureFixture[str]) -> None:
    # Nothing but pruning meets so little.
    words = (*QUICKLY, "--data", "labelled.npz", "--target-ms", "15%", "--points", "1")
    code, out, err = run(capsys, *words, "--rounds", "2", "--json")
    if code == 3:
        assert "measured" in err
        return
    assert code in (0, 4), err
    told: dict[str, Any] = json.loads(out)
    trained = [one for one in told["chains"] if "finetune" in one["passes"]]
    assert trained
    assert all("prune" in one["passes"] for one in trained)
    if code == 0 and "finetune" in str(told["taken"]):
        assert any("finetuned 5 epochs on 32 samples" in line for line in told["history"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "no pass is named"),
        ((*QUICKLY, "--rounds", "3"), "--rounds goes with --target-ms T"),
        ((*QUICKLY, "--max-drop", "1"), "--max-drop needs samples to judge on"),
        ((*QUICKLY, "--target-ms", "120%"), "less than 100 %"),
        (("--target-ms", "5"), "no pass is named"),
        (("--device", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str
) -> None:
    code, _, err = run(capsys, *words)
    assert (code, sentence in err) == (2, True), err
    assert "Traceback" not in err
    assert not list(Path().glob("*.tflite"))


def test_a_device_that_is_gone_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "--device", "gone")
    assert code == 3, err
    assert not list(Path().glob("*.tflite"))
