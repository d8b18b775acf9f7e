"""bench_compress at a tiny size: networks trained and resumed, figures and their marks."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from scripts import _compress_bases, bench_compress
from scripts._compress_rows import NOT_MEASURED, Gain, count, unmeasured
from scripts.figures import Figure

if TYPE_CHECKING:
    from pathlib import Path

TINY = "32x32x3:same:conv_k3_s2_o8_relu:conv_k3_s2_o8_relu:fc16_relu:fc3"


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of data with a few pictures of three classes, and have one tiny base."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data" / _compress_bases.CIFAR
    folder.mkdir(parents=True)
    for part, each in (("train", 12), ("test", 4)):
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            for label in ("cat", "dog", "ship"):
                for number in range(each):
                    picture = io.BytesIO()
                    pixels = rng.integers(0, 255, (32, 32, 3), np.uint8)
                    Image.fromarray(pixels).save(picture, "JPEG")
                    archive.writestr(f"{label}/{number}.jpg", picture.getvalue())
    monkeypatch.setattr(_compress_bases, "BASES", {"tiny": TINY})
    monkeypatch.setattr(_compress_bases, "VALIDATION", 4)
    monkeypatch.setattr(_compress_bases, "BATCH", 8)
    return tmp_path / "data"


def run(out: Path, *more: str) -> tuple[int, list[dict[str, Any]]]:
    code = bench_compress.main(["--quick", "--check", "--json", str(out), *more])
    figures: list[dict[str, Any]] = json.loads(out.read_text())["figures"]
    return code, figures


def test_a_base_that_is_not_trained_is_not_measured(
    tmp_path: Path, cifar: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--only", "bases", "--data", str(cifar), "--work", str(tmp_path / "work"))
    code, figures = run(tmp_path / "before.json", *given)
    assert (code, [one["ours"] for one in figures][1]) == (0, NOT_MEASURED)
    assert capsys.readouterr().out.endswith("1 met, 0 missed, 1 not measured\n")
    work = ["--data", str(cifar), "--work", str(tmp_path / "work")]
    assert _compress_bases.main([*work, "--epochs", "1"]) == 0
    code, figures = run(tmp_path / "after.json", *given)
    assert (code, figures[1]["beside"]) == (0, "12 test images, 1 epochs")
    assert 0 <= figures[1]["value"] <= 100


def test_a_training_that_was_killed_ends_as_one_that_was_not(
    tmp_path: Path, cifar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = _compress_bases.load_cifar(cifar)
    whole = _compress_bases.make("tiny", 2, data=data, work=tmp_path / "whole")
    killed = tmp_path / "killed"
    save = _compress_bases.FileCheckpoints.save

    def save_and_die(self: Any, state: Any) -> None:
        save(self, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_compress_bases.FileCheckpoints, "save", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            _compress_bases.make("tiny", 2, data=data, work=killed)
    assert _compress_bases.find("tiny", killed) is None
    _compress_bases.make("tiny", 2, data=data, work=killed)
    resumed = _compress_bases.find("tiny", killed)
    assert resumed is not None
    assert resumed.network.digest() == whole.network.digest()
    assert [file.name for file in killed.iterdir()] == ["tiny-2.npz"]


def test_the_base_that_was_trained_longest_is_found(tmp_path: Path, cifar: Path) -> None:
    data = _compress_bases.load_cifar(cifar)
    for epochs in (2, 1):
        _compress_bases.make("tiny", epochs, data=data, work=tmp_path / "work")
    found = _compress_bases.find("tiny", tmp_path / "work")
    assert found is not None
    assert found.epochs == 2
    assert _compress_bases.find("tin", tmp_path / "work") is None


def test_a_gain_counts_an_image_once_however_many_seeds() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 1, 10_000)) < np.array([0.83, 0.80])[:, None, None]
    one, copied = Gain.of(first, second), Gain.of(np.tile(first, (3, 1)), np.tile(second, (3, 1)))
    assert one.points == pytest.approx(100 * (first.mean() - second.mean()))
    assert (copied.low, copied.high) == pytest.approx((one.low, one.high))
    assert (copied.seeds, copied.images) == (3, 10_000)
    # A thousand draws of two shares with this difference: 95 % of intervals hold it.
    rights = rng.random((2, 1000, 1, 500)) < np.array([0.83, 0.80])[:, None, None, None]
    gains = [Gain.of(a, b) for a, b in zip(*rights, strict=True)]
    assert np.mean([gain.low <= 3.0 <= gain.high for gain in gains]) == pytest.approx(
        0.95, abs=0.02
    )


@pytest.mark.parametrize("shapes", [((2, 5), (2, 6)), ((5,), (5,)), ((0, 5), (0, 5))])
def test_a_gain_of_no_pairs_is_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="no pairs"):
        Gain.of(*(np.zeros(shape, np.bool_) for shape in shapes))


def test_what_is_not_measured_is_neither_met_nor_missed() -> None:
    without = unmeasured("QAT", "no base", ">= 0")
    assert (without.ours, without.met, without.value) == (NOT_MEASURED, None, None)
    figures = [without, Figure("a", "1", met=True), Figure("b", "2", met=False), Figure("c", "3")]
    assert count(figures) == "1 met, 1 missed, 1 not measured"
