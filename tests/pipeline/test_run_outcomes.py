"""Runs that end in neither met nor missed: nothing learnt, and nothing to compare with.

The real command, device and files; only fewer and shorter measurements than a figure would take.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from device_agents.api import BenchProtocol
from device_agents.errors import VerificationError
from pipeline.cli.main import main
from pipeline.store import Store

if TYPE_CHECKING:
    from pipeline.store.result import RunResult

pytestmark = pytest.mark.slow

RECIPE = Path(__file__).parents[1] / "recipes" / "tiny.toml"
SHORT = replace(BenchProtocol.quick(), processes=1, max_processes=1, max_s=0.05, warmup_min_ms=5.0)
SETS = (
    "search.candidates=1", "search.batch=1", "search.proxy.epochs=1", "target.latency_ratio=100",
    'export.formats=["tflite"]',
)  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a device `board`, which is measured briefly."""
    devices = tmp_path / "config" / "devices"
    devices.mkdir(parents=True)
    (devices / "board.toml").write_text(f'extends = "local"\ndirectory = "{tmp_path / "board"}"\n')
    monkeypatch.setenv("EDGEWRIGHT_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("thorough", "quick"):
        monkeypatch.setattr(BenchProtocol, name, classmethod(lambda _cls: SHORT))
    monkeypatch.setattr("pipeline.search.confirm.FINALIST", SHORT)
    monkeypatch.setattr("pipeline.measure.timer.OP_PROTOCOL", SHORT)
    return tmp_path


def run(place: Path, *sets: str) -> tuple[int, RunResult]:
    arguments = ["run", str(RECIPE), "--store", str(place / "store"), "--device", "board"]
    for text in (*SETS, *sets):
        arguments += ["--set", text]
    code = main(arguments)
    with Store.open(place / "store", create=False) as store:
        return code, store.result()


def test_a_run_that_learnt_nothing_deploys_nothing(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (240, 16, 16), np.uint8)  # noise: nothing is there to learn
    np.savez(place / "noise.npz", images=images, labels=np.arange(240) % 4)
    code, result = run(
        place, 'data.name="npz"', f'data.options.path="{place / "noise.npz"}"', "train.epochs=1"
    )
    said = capsys.readouterr()
    assert code == 4
    assert result.comparison.outcome == "learnt nothing"
    assert "cannot be told from guessing (always naming the commonest class is right" in said.out
    assert "learnt nothing: look at images and labels" in said.err
    assert "target met" not in said.out
    assert result.deployed == {}
    assert not list((place / "board").glob("deployed/*"))
    folder = place / "store" / "runs" / "tiny-1"
    assert (folder / "winner-static8.tflite").is_file()
    assert "nothing learnt" in (folder / "report.html").read_text()


def test_a_baseline_that_fails_leaves_the_winner_its_files_and_report(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise VerificationError("baseline-x0.25: 6.5 dB is below what it ought to have")

    monkeypatch.setattr("pipeline.evaluate.baseline.export", refused)
    code, result = run(place, "train.epochs=4")
    said = capsys.readouterr()
    assert code == 4
    assert result.comparison.outcome == "no comparison"
    assert "no width of mobilenet-v1 could be used (baseline-x0.25: 6.5 dB is below" in said.out
    assert "has nothing to hold its winner against" in said.err
    assert {row.network for row in result.artifacts} == {"winner"}
    assert Path(str(result.deployed["path"])).is_file()
    folder = place / "store" / "runs" / "tiny-1"
    assert {path.name for path in folder.glob("winner*")} == {
        "winner.npz", "winner-static8.tflite", "winner-float32.tflite",
    }  # fmt: skip
    report = (folder / "report.html").read_text()
    assert "no comparison" in report
    assert "target met" not in report
