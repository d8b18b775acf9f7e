"""The part of bench_compress that quantises without training, on a tiny network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.lower import lower
from models.model import random_model
from models.spec import ArchSpec
from scripts import _compress_ptq
from scripts._compress_ptq import Net, four_bits, rows, spread_channels, whole_bits
from scripts._compress_rows import NOT_MEASURED, Asked

if TYPE_CHECKING:
    from pathlib import Path

TINY = "32x32x3:same:conv_k3_s2_o8_relu:conv_k3_s2_o8_relu:fc3"


@pytest.fixture
def net(tmp_path: Path) -> Net:
    """A network that names its own answers rightly."""
    rng = np.random.default_rng(0)
    model = random_model(lower(ArchSpec.parse(TINY)), rng)
    images = rng.standard_normal((40, 32, 32, 3), np.float32)
    made = Net("tiny", model, images[:16], images, np.zeros(40, np.int64), tmp_path)
    made.labels = made.answers(made.write(model, "tflite", "own")).argmax(1)
    return made


def test_what_is_lost_is_told_of_every_runtime(net: Net, tmp_path: Path) -> None:
    asked = Asked(tmp_path, tmp_path, tmp_path, quick=True, peers=False)
    figures = list(whole_bits(net, asked))
    lost = [figure for figure in figures if "points lost" in figure.what]
    assert [figure.what.split(" in ")[1][:6] for figure in lost] == ["LiteRT", "onnxru"]
    assert all(figure.beside == "float 100.00 %, n = 40" for figure in lost)
    assert {one.ours for one in figures if "beside" in one.what} == {NOT_MEASURED}
    assert net.sqnr_db(tmp_path / "tiny-float.onnx", tmp_path / "tiny-int8.onnx") > 12


def test_spread_channels_compute_the_same_and_lose_more(net: Net, tmp_path: Path) -> None:
    lost, regained = spread_channels(net)
    assert net.sqnr_db(tmp_path / "tiny-own.tflite", tmp_path / "tiny-spread.tflite") > 80
    assert lost.value is not None
    assert (lost.met, regained.bar) == (lost.value >= 3, ">= 90%")
    decibels = [
        net.sqnr_db(tmp_path / "tiny-spread.tflite", tmp_path / f"tiny-{name}.tflite")
        for name in ("plain", "right")
    ]
    assert decibels[1] > decibels[0] + 3


def test_four_bits_are_told_with_the_nearest(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compress_ptq, "_ITERATIONS", 5)
    (figure,) = four_bits(net)
    assert "; nearest " in figure.beside
    assert figure.met == (figure.value is not None and figure.value <= 1.5)


def test_networks_that_are_not_trained_are_not_measured(tmp_path: Path) -> None:
    asked = Asked(tmp_path, tmp_path, tmp_path, nets=("mbv2",))
    (figure,) = rows(asked)
    assert (figure.ours, figure.met) == (NOT_MEASURED, None)
